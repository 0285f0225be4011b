"""A field and its value are to be mentioned (paper §6.1, "semantic content").

    target ["food", "Italian"]      "Aromi serves Italian food ."   strict 1, released 1
                                    "Aromi serves Italianate food." strict 0, released 1 (a substring)
    target ["family", "no"]         "It is not family friendly ."   strict 1 (a listed surface form)

*strict*: the value or one of its surface forms (`forms` of the data set) stands in the text as whole tokens,
whatever their case; a form within a longer form of another value of the field does not count ("family friendly" in "not
family friendly"). *released*: the value is a substring of the text (eval_control.py).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, classed, explored, words
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.rules import Rule
from diffcontrol.task import ControlTask, Head
from diffcontrol.text import END, Vocabulary

Pair = tuple[str, str]  # field, value
CHAIN = 4
MENTIONED = ("", "")  # the state of texts that mention the value


class SemanticContent(ControlTask):
    """Targets are [field, value]; an annotation is the list of those in the meaning representation *and* realised."""

    def __init__(self, data: Corpus):
        self.corpus = data

    @cached_property
    def known(self) -> dict[str, list[str]]:
        """field → values of the training data, sorted."""
        values: dict[str, set[str]] = {}
        for example in self.corpus.splits["train"]:
            for field, value in example.fields.items():
                values.setdefault(field, set()).add(value)
        return {field: sorted(values[field]) for field in sorted(values)}

    @cached_property
    def pairs(self) -> dict[Pair, int]:
        """Number of every known (field, value)."""
        return {pair: i for i, pair in enumerate((f, v) for f, values in self.known.items() for v in values)}

    @cached_property
    def forms(self) -> dict[str, list[tuple[str, str]]]:
        """field → (surface form, value), longest first."""
        table = {}
        for field, values in self.known.items():
            listed = self.corpus.forms.get(field, {})
            forms = [(f" {form.lower()} ", value) for value in values for form in listed.get(value, [value])]
            table[field] = sorted(forms, key=lambda entry: (-len(entry[0].split()), entry))
        return table

    def mentioned(self, words: Sequence[str], field: str) -> set[str]:
        """Values of the field that the text mentions."""
        text, found = f" {' '.join(words).lower()} ", set()
        for form, value in self.forms[field]:
            while form in text:  # again and again, as neighbours share the space between them
                found.add(value)
                text = text.replace(form, "  ")  # a shorter form within this one no longer counts
        return found

    def annotate(self, example: Example) -> list[list[str]]:
        return [
            [field, value]
            for field, value in example.fields.items()
            if (field, value) in self.pairs and value in self.mentioned(example.words, field)
        ]

    def targets(self, annotation: list[list[str]]) -> list[list[str]]:
        return annotation

    def parse(self, target: Any) -> list[str]:
        """[field, value], or the released form [field words…, ":", value words…], or the text "field: value"."""
        if isinstance(target, str):
            target = target.replace(":", " : ").split()
        parts = [str(part) for part in target] if isinstance(target, list | tuple) else []
        if ":" in parts:
            cut = parts.index(":")
            parts = [" ".join(parts[:cut]), " ".join(parts[cut + 1 :])]
        if len(parts) != 2:
            raise ValueError(f"semantic_content: {target!r} is not a target; write [field, value]")
        field, value = parts
        if field not in self.known:
            raise ValueError(f"semantic_content: no field {field!r}; known are {', '.join(self.known)}")
        if value not in self.known[field]:
            raise ValueError(
                f"semantic_content: {field} has no value {value!r}; known are {', '.join(self.known[field])}"
            )
        return [field, value]

    def head(self, width: int) -> "MentionHead":
        return MentionHead(width, self.pairs)

    def serialize(self, target: Sequence[str]) -> list[str]:
        return [target[0], ":", *target[1].split()]

    def rule(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Rule]:
        return lambda target: Mention(self, target, vocabulary)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Automaton]:
        make = cache(lambda field, value: mentioning(self, field, value, vocabulary))
        return lambda target: make(*target)

    def classes(self) -> list[list[str]]:
        return [list(pair) for pair in self.pairs]

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        rows = list(zip(texts, targets, strict=True))
        return {
            "strict": [float(value in self.mentioned(words, field)) for words, (field, value) in rows],
            "released": [float(value in " ".join(words)) for words, (_, value) in rows],
        }


class Mention(Rule):
    """No END before the mention. Until then words that begin a form of the value gain BONUS nats, and a nat more with
    every HURRY words of the text, those that go on with a form of which n words are written 1 + n times that. Where no
    more places are left than the shortest form has words, nothing else is allowed."""

    BONUS, HURRY = 4.0, 4

    def __init__(self, task: SemanticContent, target: Sequence[str], vocabulary: Vocabulary):
        self.task, (self.field, self.value), self.vocabulary = task, target, vocabulary
        self.forms = [form.split() for form, value in task.forms[self.field] if value == self.value]
        self.spellings: dict[str, list[int]] = {}
        for word, i in vocabulary.ids.items():
            self.spellings.setdefault(word.lower(), []).append(i)

    def factors(self, words: Sequence[int]) -> Tensor:
        added = torch.zeros(len(self.vocabulary))
        text = [self.vocabulary.words[i] for i in words]
        if self.value in self.task.mentioned(text, self.field):
            return added
        added[END] = -torch.inf
        lower, gain = [word.lower() for word in text], self.BONUS + len(text) / self.HURRY
        for form in self.forms:
            for n in range(min(len(form), len(lower) + 1)):
                if lower[len(lower) - n :] == form[:n]:
                    spelled = self.spellings.get(form[n], [])
                    added[spelled] = added[spelled].clamp(min=(1 + n) * gain)
        if self.task.corpus.length - 2 - len(text) <= min(map(len, self.forms)) and (added > 0).any():
            added[added <= 0] = -torch.inf
        return added

    def weighed(self, words: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Words are drawn by how much nearer they bring the mention; as what is gained by one is lost where its form is
        not gone on with, it comes to the same for all texts that mention the value."""
        allowed = self.factors(words).isfinite()
        text = [self.vocabulary.words[i].lower() for i in words]
        before = self._nearness(text)
        gains = torch.full((len(self.vocabulary),), self._nearness([*text, ""]) - before)
        for word in {word for form in self.forms for word in form} if before < 0 else ():
            gains[self.spellings.get(word, [])] = self._nearness([*text, word]) - before
        potential = torch.zeros(len(gains)).masked_fill(~allowed, -torch.inf)
        return gains + potential, potential

    def _nearness(self, text: Sequence[str]) -> float:
        """About the log-probability that a text which begins so mentions the value."""
        if self.value in self.task.mentioned(text, self.field):
            return 0.0
        begun = [
            n / len(form) for form in self.forms for n in range(len(form)) if form[:n] == list(text[len(text) - n :])
        ]
        return -(self.BONUS + len(text) / self.HURRY) * (1 - max(begun))


def mentioning(task: SemanticContent, field: str, value: str, vocabulary: Vocabulary) -> Automaton:
    """The automaton of texts that mention the value.

    Its states are the words that cannot be judged yet: those that may begin a form, and forms that overlap with them or
    with one another, as only where they end is it known which of them count. All before has been judged. Forms that
    overlap in a chain of more than CHAIN times the longest form's words are judged early.
    """
    forms = {tuple(form.split()) for form, _ in task.forms[field]}
    begun = {form[:n] for form in forms for n in range(len(form))}
    longest = max(map(len, forms))
    told = sorted({word for form in forms for word in form})
    spelled: dict[str, list[int]] = {}
    for word, i in vocabulary.ids.items():
        spelled.setdefault(word.lower(), []).append(i)
    classes, members = classed([words(spelled.get(word, []), len(vocabulary)) for word in told], len(vocabulary))
    names = [told[int(column.nonzero()[0])] if column.any() else "" for column in members.T]  # "" stands in no form

    def judged(text: tuple[str, ...]) -> int:
        """How many words from the first on can be judged."""
        cut = begins = next(n for n in range(len(text) + 1) if text[n:] in begun)
        found = [(i, i + n) for i in range(len(text)) for n in range(1, longest + 1) if text[i : i + n] in forms]
        while crossing := [i for i, j in found if i < cut < j]:
            cut = min(crossing)
        return cut if len(text) - cut <= CHAIN * longest else begins

    def step(state: tuple[str, ...], word: int) -> tuple[str, ...]:
        text = (*state, names[word])
        cut = judged(text)
        return MENTIONED if state == MENTIONED or value in task.mentioned(text[:cut], field) else text[cut:]

    start: tuple[str, ...] = ()
    return explored(classes, start, step, lambda text: text == MENTIONED or value in task.mentioned(text, field))


class MentionHead(Head):
    """p(pair is mentioned) = 1 − Π_l (1 − σ(score_l)): some position mentions it (noisy or)."""

    def __init__(self, width: int, pairs: Mapping[Pair, int]):
        super().__init__()
        self.pairs = pairs
        last = nn.Linear(width, len(pairs))
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
        nn.init.constant_(last.bias, -6.0)  # at first a mention is rare at every position

    def _absent(self, hidden: Tensor) -> Tensor:
        """−log p(not mentioned) of every pair, [B K]."""
        return nn.functional.softplus(self.score(hidden).float()).sum(1)

    @staticmethod
    def _log_present(absent: Tensor) -> Tensor:
        return torch.log(-torch.expm1(-absent.clamp(min=1e-6)))

    def loss(self, hidden: Tensor, annotations: Sequence[Sequence[Sequence[str]]]) -> Tensor:
        absent = self._absent(hidden)
        truth = torch.zeros_like(absent, dtype=torch.bool)
        for row, annotation in enumerate(annotations):
            for field, value in annotation:
                truth[row, self.pairs[field, value]] = True
        return torch.where(truth, -self._log_present(absent), absent).sum(1).mean()

    def log_prob(self, hidden: Tensor, targets: Sequence[Sequence[str]]) -> Tensor:
        wanted = torch.tensor([self.pairs[field, value] for field, value in targets], device=hidden.device)
        return self._log_present(self._absent(hidden).gather(1, wanted[:, None])[:, 0])
