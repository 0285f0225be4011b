"""A field and its value are to be mentioned (paper §6.1, "semantic content").

    target ["food", "Italian"]      "Aromi serves Italian food ."           strict 1, mentioned 1, released 1
                                    "Aromi serves Italianate food ."        strict 0, mentioned 0, released 1
    target ["family", "no"]         "It is not family friendly ."           strict 1, mentioned 1 (a listed form)
    target ["rating", "3 stars"]    "It has 3 stars and gets 5 stars ."     strict 0, mentioned 1 (another value too)
    target ["family", "yes"]        "Children are welcome . children are
                                     n't welcome ."                         strict 0, mentioned 1 (denied as well)
    target ["near", "Iron Bridge"]  "Aromi is opposite the Iron Bridge ."   strict 1, mentioned 1
                                    "The Iron Bridge is a cheap pub ."      strict 0, mentioned 1 (the pub itself)

*mentioned*: the value or one of its surface forms (`forms` of the data set) stands in the text as whole tokens,
whatever their case; a form within a longer form of another value of the field does not count ("family friendly" in "not
family friendly"). *strict*: the text says the value as a reader takes it: the field is mentioned with this value alone,
everywhere in its role (ONLY_AFTER, NEVER_AFTER), and the value is denied nowhere. Words within a longer form of another
field do not count ("Indian" in "near Raja Indian Cuisine"), nor another value whose very words are a value of another
field. *released*: the value is a substring of the text (eval_control.py).

A text of the data may mention what it does not say in this sense. Classifiers are trained to see the mention, but it
is not asked for.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, classed, explored, words
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.refused import Refused
from diffcontrol.rules import Rule
from diffcontrol.task import ControlTask, Head
from diffcontrol.text import END, Vocabulary

Pair = tuple[str, str]  # field, value
CHAIN = 2  # see `mentioning`
#: field → words of which one stands before a mention, an article aside: a place is near, not what the text is about
ONLY_AFTER = {
    "near": {"near", "nearby", "to", "by", "beside", "besides", "opposite", "behind", "around", "past", "outside",
             "alongside", "from", "of", "at"},
}  # fmt: skip
NEVER_AFTER = {"name": {"near", "beside", "opposite", "behind"}}  # the same where none may stand there
ARTICLES = {"a", "an", "the"}
NEGATIONS = {"not", "n't", "n’t", "never"}
UNSAID = "unsaid"  # marks what is mentioned in a text that does not say it


class Span(NamedTuple):
    """Words start to stop − 1 are a form of the value."""

    start: int
    stop: int
    value: str


class SemanticContent(ControlTask):
    """Targets are [field, value]; an annotation is the list of those in the meaning representation *and* realised, with
    UNSAID as third where the text mentions the value and does not say it."""

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

    def spans(self, words: Sequence[str], field: str) -> list[Span]:
        """Mentions of the field, those by longer forms first; no word belongs to two of them."""
        lower = [word.lower() for word in words]
        text, free, found = f" {' '.join(lower)} ", [True] * len(words), list[Span]()
        for form, value in self.forms[field]:
            if form not in text:
                continue
            wanted = form.split()
            for start in range(len(words) - len(wanted) + 1):
                stop = start + len(wanted)
                if lower[start:stop] == wanted and all(free[start:stop]):
                    found.append(Span(start, stop, value))
                    free[start:stop] = [False] * len(wanted)
        return found

    def mentioned(self, words: Sequence[str], field: str) -> set[str]:
        """Values of the field that the text mentions."""
        return {span.value for span in self.spans(words, field)}

    def says(self, words: Sequence[str], targets: Sequence[Sequence[str]]) -> list[bool]:
        """Whether the text mentions a target's field with this value alone, everywhere in its role, and denies it
        nowhere; one for each target."""
        spans = {field: self.spans(words, field) for field in self.forms} if targets else {}
        found = []
        for field, value in targets:
            right = self.right(words, field, value, spans)
            found.append(bool(right) and all(right) and not self._denied(words, field, value))
        return found

    def right(self, words: Sequence[str], field: str, value: str, spans: Mapping[str, list[Span]]) -> list[bool]:
        """Of all mentions of the field that are not hidden whether they are of this value and in their role."""
        around = [span for other in spans if other != field for span in spans[other]]
        own = [span for span in spans[field] if not any(_hides(other, span, value) for other in around)]
        return [span.value == value and in_role(words, field, span.start) for span in own]

    def _denied(self, words: Sequence[str], field: str, value: str) -> bool:
        """Whether a negation stands in a form of the value or before it, and is no part of the form."""
        lower = [word.lower() for word in words]
        places = [place for place, word in enumerate(lower) if word not in NEGATIONS]
        if len(places) == len(words):
            return False
        plain = [lower[place] for place in places]
        text = f" {' '.join(plain)} "
        for form in (form.split() for form, meant in self.forms[field] if meant == value and form in text):
            for i in range(len(plain) - len(form) + 1):
                start, last = places[i], places[i + len(form) - 1]
                negated = last - start >= len(form) or (start > 0 and lower[start - 1] in NEGATIONS)
                if negated and plain[i : i + len(form)] == form:
                    return True
        return False

    def annotate(self, example: Example) -> list[list[str]]:
        pairs = [
            [field, value]
            for field, value in example.fields.items()
            if (field, value) in self.pairs and value in self.mentioned(example.words, field)
        ]
        said = self.says(example.words, pairs)
        return [pair if is_said else [*pair, UNSAID] for pair, is_said in zip(pairs, said, strict=True)]

    def targets(self, annotation: list[list[str]]) -> list[list[str]]:
        return [pair for pair in annotation if UNSAID not in pair[2:]]

    def parse(self, target: Any) -> list[str]:
        """[field, value], or the released form [field words…, ":", value words…], or the text "field: value"."""
        if isinstance(target, str):
            target = target.replace(":", " : ").split()
        parts = [str(part) for part in target] if isinstance(target, list | tuple) else []
        if ":" in parts:
            cut = parts.index(":")
            parts = [" ".join(parts[:cut]), " ".join(parts[cut + 1 :])]
        if len(parts) != 2:
            raise Refused(f"semantic_content: {target!r} is not a target; write [field, value]")
        field, value = parts
        if field not in self.known:
            raise Refused(f"semantic_content: no field {field!r}; known are {', '.join(self.known)}")
        if value not in self.known[field]:
            raise Refused(f"semantic_content: {field} has no value {value!r}; known are {', '.join(self.known[field])}")
        return [field, value]

    def head(self, width: int) -> "MentionHead":
        return MentionHead(width, self.pairs)

    def serialize(self, target: Sequence[str]) -> list[str]:
        return [target[0], ":", *target[1].split()]

    def rule(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Rule]:
        return lambda target: Mention(self, target, vocabulary)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Automaton]:
        make = cache(lambda field, value: saying(self, field, value, vocabulary))
        return lambda target: make(*target)

    def around(self, field: str) -> dict[str, set[tuple[str, ...]]]:
        """field → forms that have a say in which mentions of `field` count: its own, those of other fields that one of
        its own stands in, and those of the same other field that may take words from them."""
        forms = {f: [tuple(form.split()) for form, _ in listed] for f, listed in self.forms.items()}
        found = {field: set(forms[field])}
        for other in forms.keys() - {field}:
            close = {form for form in forms[other] if any(_within(own, form) for own in found[field])}
            while more := {form for form in forms[other] if any(_touch(form, one) for one in close)} - close:
                close |= more
            if close:
                found[other] = close
        return found

    def classes(self) -> list[list[str]]:
        return [list(pair) for pair in self.pairs]

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        rows = list(zip(texts, targets, strict=True))
        return {
            "strict": [float(self.says(words, [target])[0]) for words, target in rows],
            "released": [float(value in " ".join(words)) for words, (_, value) in rows],
            "mentioned": [float(value in self.mentioned(words, field)) for words, (field, value) in rows],
        }


def _hides(other: Span, span: Span, value: str) -> bool:
    """Whether a mention lies within a longer one of another field; one that is not of the value also within an equal
    one, as the words then say the other field."""
    longer = (other.stop - other.start) - (span.stop - span.start)
    return other.start <= span.start and span.stop <= other.stop and longer >= (span.value == value)


def in_role(words: Sequence[str], field: str, start: int) -> bool:
    """Whether the word before a mention, an article aside, is one that the field's role asks for or allows."""
    before = [word.lower() for word in words[max(0, start - 2) : start]]
    if before and before[-1] in ARTICLES:
        before.pop()
    word = before[-1] if before else ""
    return (field not in ONLY_AFTER or word in ONLY_AFTER[field]) and word not in NEVER_AFTER.get(field, ())


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


def _within(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(other[i : i + len(one)] == one for i in range(len(other) - len(one) + 1))


def _touch(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether they can stand in a text so that they share words."""
    shorter = range(1, min(len(one), len(other)) + 1)
    overlap = any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in shorter)
    return overlap or _within(one, other) or _within(other, one)


def saying(task: SemanticContent, field: str, value: str, vocabulary: Vocabulary) -> Automaton:
    """The automaton of texts that say the value."""
    found = mentioning(task, field, value, vocabulary)
    return found & undenied(task, field, value, vocabulary) if NEGATIONS & vocabulary.ids.keys() else found


def named(told: Iterable[str], vocabulary: Vocabulary) -> tuple[Tensor, list[str]]:
    """Classes of these words whatever their case [V], and the word of each class; "" is every other word."""
    distinct, spelled = sorted(set(told)), defaultdict[str, list[int]](list)
    for word, i in vocabulary.ids.items():
        spelled[word.lower()].append(i)
    classes, members = classed([words(spelled[word], len(vocabulary)) for word in distinct], len(vocabulary))
    return classes, [distinct[int(column.nonzero()[0])] if column.any() else "" for column in members.T]


class Reading(NamedTuple):
    """What an automaton knows of a text: whether it has mentioned the value, two words of what has been judged, and the
    words that cannot be judged yet."""

    mentioned: bool = False
    before: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def mentioning(task: SemanticContent, field: str, value: str, vocabulary: Vocabulary) -> Automaton:
    """The automaton of texts that mention the field with this value alone, everywhere in its role.

    Words cannot be judged while they may begin a form, nor while forms that they complete overlap with such, as only
    where those end is it known which of them count. Forms that overlap in a chain of more than CHAIN times the longest
    form's words are judged early.
    """
    close = task.around(field)
    forms = set[tuple[str, ...]]().union(*close.values())
    begun = {form[:n] for form in forms for n in range(len(form))}
    longest = max(map(len, forms))
    heard = ONLY_AFTER.get(field, set()) | NEVER_AFTER.get(field, set())
    roles = ARTICLES | heard if heard else set()
    classes, names = named([word for form in forms for word in form] + [*roles], vocabulary)

    @cache
    def judged(text: tuple[str, ...]) -> int:
        """How many words from the first on can be judged."""
        cut = begins = next(n for n in range(len(text) + 1) if text[n:] in begun)
        found = [(i, i + n) for i in range(len(text)) for n in range(1, longest + 1) if text[i : i + n] in forms]
        while crossing := [i for i, j in found if i < cut < j]:
            cut = min(crossing)
        return cut if len(text) - cut <= CHAIN * longest else begins

    @cache
    def right(before: tuple[str, ...], text: tuple[str, ...]) -> list[bool]:
        whole = (*before, *text)
        spans = {other: task.spans(whole, other) if any(text) else [] for other in close}
        return task.right(whole, field, value, spans)

    def context(text: tuple[str, ...]) -> tuple[str, ...]:
        """The last words of what has been judged, as far as the role of a mention that follows depends on them: one word
        that may or may not stand there for all such, and an article for all articles."""
        if not roles:
            return ()
        article = text[-1:] and text[-1] in ARTICLES
        last = "".join(text[-2:-1] if article else text[-1:])
        stands = min(heard) if last in heard else ""
        return (stands, "the") if article else (stands,)

    def step(state: Reading, word: int) -> Reading | None:
        text = (*state.open, names[word])
        cut = judged(text)
        found = right(state.before, text[:cut])
        if not all(found):
            return None
        return Reading(state.mentioned or bool(found), context((*state.before, *text[:cut])), text[cut:])

    def ends(state: Reading) -> bool:
        found = right(state.before, state.open)
        return all(found) and (state.mentioned or bool(found))

    return explored(classes, Reading(), step, ends)


class Denial(NamedTuple):
    """Forms that have been begun, how many of their words, and whether a negation stands in them or before them; and
    whether the last word was one."""

    begun: frozenset[tuple[tuple[str, ...], int, bool]] = frozenset()
    negated: bool = False


def undenied(task: SemanticContent, field: str, value: str, vocabulary: Vocabulary) -> Automaton:
    """The automaton of texts in which no negation stands in a form of the value or before it."""
    forms = [tuple(form.split()) for form, meant in task.forms[field] if meant == value]
    classes, names = named([word for form in forms for word in form] + [*NEGATIONS], vocabulary)

    def step(state: Denial, word: int) -> Denial | None:
        if names[word] in NEGATIONS:
            return Denial(frozenset((form, n, True) for form, n, _ in state.begun), True)
        at = [*state.begun, *((form, 0, state.negated) for form in forms)]
        on = {(form, n + 1, negated) for form, n, negated in at if form[n] == names[word]}
        if any(n == len(form) and negated for form, n, negated in on):
            return None
        return Denial(frozenset((form, n, negated) for form, n, negated in on if n < len(form)))

    return explored(classes, Denial(), step, lambda state: True)


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
        """log(1 − e^(−absent)), whose gradient is about 1/absent where nothing hints at a mention (Mächler 2012)."""
        absent = absent.clamp(min=1e-30)
        small = absent < math.log(2)
        # Each branch sees numbers of its own side alone: the gradient of the other one may be infinite.
        below = torch.where(small, absent, 1.0)
        above = torch.where(small, 1.0, absent)
        return torch.where(small, torch.log(-torch.expm1(-below)), torch.log1p(-torch.exp(-above)))

    def loss(self, hidden: Tensor, annotations: Sequence[Sequence[Sequence[str]]]) -> Tensor:
        absent = self._absent(hidden)
        truth = torch.zeros_like(absent, dtype=torch.bool)
        for row, annotation in enumerate(annotations):
            for field, value, *_ in annotation:
                truth[row, self.pairs[field, value]] = True
        return torch.where(truth, -self._log_present(absent), absent).sum(1).mean()

    def log_prob(self, hidden: Tensor, targets: Sequence[Sequence[str]]) -> Tensor:
        wanted = torch.tensor([self.pairs[field, value] for field, value in targets], device=hidden.device)
        return self._log_present(self._absent(hidden).gather(1, wanted[:, None])[:, 0])
