"""The text is to begin with this word.

    target "there"     "there is a cheap pub near the river ."   strict 1, released 1
                       "There is a cheap pub near the river ."   strict 0, released 1 (another case)
                       "is there a cheap pub ?"                  strict 0, released 0

*strict*: the first word is that very word. *released*: whatever its case (no one has published this control).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, Some, anything, pattern, words
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.layout import Layout
from diffcontrol.refused import Refused
from diffcontrol.rules import Follows, Rule
from diffcontrol.task import ControlTask, Head, Mark, spelling
from diffcontrol.text import SPECIALS, Vocabulary


class FirstWord(ControlTask):
    """Targets and annotations are words; those of the vocabulary that begin at least
    `min_count` training texts may be asked for."""

    def __init__(self, data: Corpus, min_count: int = 5):
        self.corpus, self.min_count = data, min_count

    @cached_property
    def known(self) -> list[str]:
        seen = Counter(self.annotate(example) for example in self.corpus.splits["train"])
        words = self.corpus.vocabulary.ids.keys() - SPECIALS
        return sorted(word for word, n in seen.items() if n >= self.min_count and word in words)

    def annotate(self, example: Example) -> str:
        return example.words[0] if example.words else ""

    def targets(self, annotation: str) -> list[str]:
        return [annotation] if annotation in self.known else []

    def parse(self, target: Any) -> str:
        target = spelling(target, self.known)
        if target not in self.known:
            raise Refused(
                f"first_word: too few training texts begin with {target!r}; allowed are {', '.join(self.known)}"
            )
        return target

    def head(self, width: int) -> "WordHead":
        return WordHead(width, self.known)

    def layouts(self, target: str) -> list[Layout]:
        return [Layout({0: "START", 1: target})]

    def serialize(self, target: str) -> list[str]:
        return [target]

    def rule(self, vocabulary: Vocabulary) -> Callable[[str], Rule]:
        make = self.automaton(vocabulary)
        return lambda target: Follows(make(target))

    def automaton(self, vocabulary: Vocabulary) -> Callable[[str], Automaton]:
        size = len(vocabulary)
        rest = Some(anything(size), 0, None)
        return lambda target: pattern([Some(words([vocabulary.ids[target]], size)), rest], size)

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[str],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        rows = [(words[0] if words else "", target) for words, target in zip(texts, targets, strict=True)]
        return {
            "strict": [float(first == target) for first, target in rows],
            "released": [float(first.lower() == target.lower()) for first, target in rows],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[str],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        rows = zip(texts, targets, strict=True)
        return [[Mark(0, 1, words[0] == target, "first word")] if words else [] for words, target in rows]


class WordHead(Head):
    """log p(word) from the hidden state behind START; the first of its classes is any word that is not known."""

    def __init__(self, width: int, words: Sequence[str]):
        super().__init__()
        self.numbers = {word: i for i, word in enumerate(words, 1)}
        self.score = nn.Linear(width, len(words) + 1)

    def log_prob(self, hidden: Tensor, targets: Sequence[str]) -> Tensor:
        wanted = torch.tensor([self.numbers.get(word, 0) for word in targets], device=hidden.device)
        return self.score(hidden[:, 1]).float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]

    def loss(self, hidden: Tensor, annotations: Sequence[str]) -> Tensor:
        return -self.log_prob(hidden, annotations).mean()
