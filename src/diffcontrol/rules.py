"""What single words say of a target: tags by a lexicon, and where a text ends. V vocabulary."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from diffcontrol.automaton import Automaton
from diffcontrol.text import END, PAD, START, Vocabulary


class Rule(ABC):
    """What single words say of one target, for writers from left to right."""

    @abstractmethod
    def factors(self, words: Sequence[int]) -> Tensor:
        """What each next word, END among them, adds to its log-probability after these words' ids, [V]; −∞ forbids."""

    def weighed(self, words: Sequence[int]) -> tuple[Tensor, Tensor]:
        """For methods that weigh many texts against one another: what draws each next word, and what of it the target
        itself says of the text, both [V]. A rule that only hints at what leads to the target draws words by more than
        counts in the end."""
        added = self.factors(words)
        return added, added


class Lexicon:
    """log p(label | word), counted in texts with a label for each word; without smoothing, so that a word that never
    had a label cannot have it."""

    def __init__(self, texts: Iterable[tuple[Sequence[str], Sequence[str]]]):
        pairs = Counter(pair for words, labels in texts for pair in zip(words, labels, strict=True))
        totals: Counter[str] = Counter()
        for (word, _), count in pairs.items():
            totals[word] += count
        self.words: dict[str, dict[str, float]] = {}  # label → word → log p
        for (word, label), count in pairs.items():
            self.words.setdefault(label, {})[word] = math.log(count / totals[word])

    def factors(self, label: str, vocabulary: Vocabulary) -> Tensor:
        """log p(label | word) of every word, [V]; 0 for all if no word of the vocabulary has the label."""
        known = {vocabulary.ids[w]: log_p for w, log_p in self.words.get(label, {}).items() if w in vocabulary.ids}
        if not known:
            return torch.zeros(len(vocabulary))
        added = torch.full((len(vocabulary),), -torch.inf)
        added[list(known)] = torch.tensor(list(known.values()))
        return added

    def possible(self, label: str, vocabulary: Vocabulary) -> Tensor:
        """Which words can have the label, a mask [V]; all of them if no word of the vocabulary has it."""
        can = self.factors(label, vocabulary).isfinite()
        can[[START, END, PAD]] = False
        return can


class Follows(Rule):
    """Only words after which an automaton can still accept the text, in no more than `most` words of it all."""

    def __init__(self, automaton: Automaton, most: int | None = None):
        self.automaton, self.table, self.most = automaton, automaton.table.tolist(), most
        self.classes = automaton.classes.tolist()

    def factors(self, words: Sequence[int]) -> Tensor:
        state = self.automaton.start
        for word in words:
            state = self.table[state][self.classes[word]]
        left = self.automaton.left[
            self.automaton.table[state]
        ]  # after a word of each class; END is not counted in most
        room = torch.inf if self.most is None else self.most - len(words)
        return torch.where(left.isfinite() & (left <= room), 0.0, -torch.inf)[self.automaton.classes]


class Ends(Rule):
    """The text has this many words: no END before them, nothing but END after them."""

    def __init__(self, length: int, vocabulary: Vocabulary):
        self.length, is_end = length, torch.arange(len(vocabulary)) == END
        self.before, self.after = (torch.zeros(len(is_end)).masked_fill(mask, -torch.inf) for mask in (is_end, ~is_end))

    def factors(self, words: Sequence[int]) -> Tensor:
        return self.before if len(words) < self.length else self.after


class Labelled(Rule):
    """Every word has its label, and the text as many words as there are labels."""

    def __init__(self, lexicon: Lexicon, labels: Sequence[str], vocabulary: Vocabulary):
        ends = Ends(len(labels), vocabulary)
        self.rows = [*(lexicon.factors(label, vocabulary) + ends.before for label in labels), ends.after]

    def factors(self, words: Sequence[int]) -> Tensor:
        return self.rows[min(len(words), len(self.rows) - 1)]
