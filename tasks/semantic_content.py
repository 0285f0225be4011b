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
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.data.meaning import spelled
from diffcontrol.forms import NOTHING, OTHERWISE, SAID, Telling, after, denials, saying
from diffcontrol.refused import Refused
from diffcontrol.rules import Follows, Rule
from diffcontrol.task import ControlTask, Head, Mark, spelling
from diffcontrol.text import END, Vocabulary

Pair = tuple[str, str]  # field, value
#: field → words of which one stands before a mention, an article aside: a place is near, not what the text is about
ONLY_AFTER = {
    "near": ("near", "nearby", "to", "by", "beside", "besides", "opposite", "behind", "around", "past", "outside",
             "alongside", "from", "of", "at"),
}  # fmt: skip
NEVER_AFTER = {"name": ("near", "beside", "opposite", "behind")}  # the same where none may stand there
UNSAID = "unsaid"  # marks what is mentioned in a text that does not say it


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
    def writable(self) -> set[Pair]:
        """Those that have a form of words which a model can write; words that are rare in training it cannot."""
        words = self.corpus.vocabulary.spellings
        return {
            (field, value)
            for field, forms in self.forms.items()
            for form, value in forms
            if all(word in words for word in form.split())
        }

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
        for form, values in groupby(self.forms[field], itemgetter(0)):
            if form in text:
                found |= {value for _, value in values}
            while form in text:  # again and again, as neighbours share the space between them
                text = text.replace(form, "  ")  # a shorter form within this one no longer counts
        return found

    @cached_property
    def tellings(self) -> dict[Pair, Telling]:
        """(field, value) → what a reader takes to say it, to say otherwise, or to speak of another field."""
        found = {}
        for field, values in self.known.items():
            own = list(dict.fromkeys(form.strip() for form, _ in self.forms[field]))
            others = {form.strip() for other, forms in self.forms.items() if other != field for form, _ in forms}
            longer = [other for other in sorted(others) if any(f" {inner} " in f" {other} " for inner in own)]
            for value in values:
                ways = [form.strip() for form, meant in self.forms[field] if meant == value]
                found[field, value] = Telling(self._meanings(field, ways, own, others, longer))
        return found

    @staticmethod
    def _meanings(field: str, ways: Sequence[str], own: Sequence[str], others: set[str],
                  longer: Sequence[str]) -> dict[str, str]:  # fmt: skip
        """form → what it means to a target; of two reasons for a form's meaning the first counts.

        ways: forms of the target's value; own: of all values of its field; others: of other fields; longer: of those
        the ones that have one of `own` within.
        """
        found = {way: OTHERWISE if field in ONLY_AFTER else SAID for way in ways}
        found |= {form: NOTHING if form in others else OTHERWISE for form in own if form not in found}
        for roles, meaning in ((ONLY_AFTER, SAID), (NEVER_AFTER, OTHERWISE)):
            for way in ways:
                found |= dict.fromkeys(after(roles.get(field, ()), way), meaning)
        for form in (denial for way in ways for denial in denials(way)):
            found.setdefault(form, OTHERWISE)
        for form in longer:
            found.setdefault(form, NOTHING)
        return found

    def says(self, words: Sequence[str], field: str, value: str) -> bool:
        """Whether a reader takes the text to say the value of the field, and nothing else of the field."""
        meanings, _ = self.tellings[field, value].judged(tuple(word.lower() for word in words))
        return meanings - {NOTHING} == {SAID}

    def annotate(self, example: Example) -> list[list[str]]:
        """[field, value] of what is meant and mentioned, with UNSAID as third where the text does not say it; then of
        what the text says beyond its meaning representation. Half of E2E's leave out that it is a restaurant, which the
        text then says all the same."""
        mentioned = {field: self.mentioned(example.words, field) for field in self.known}
        meant = [
            [field, value, *([] if self.says(example.words, field, value) else [UNSAID])]
            for field, value in example.fields.items()
            if value in mentioned.get(field, ())
        ]
        beyond = [
            [field, value]
            for field, values in mentioned.items()
            for value in sorted(values)
            if example.fields.get(field) != value and self.says(example.words, field, value)
        ]
        return meant + beyond

    def targets(self, annotation: list[list[str]]) -> list[list[str]]:
        return [pair for pair in annotation if UNSAID not in pair[2:] and tuple(pair[:2]) in self.writable]

    def parse(self, target: Any) -> list[str]:
        """[field, value], or the released form [field words…, ":", value words…], or the text "field: value", or a line
        of the released compositions, whose `attr` is of the second form."""
        if isinstance(target, Mapping):
            target = target.get("attr")
        if isinstance(target, str):
            target = [part.strip() for part in target.split(":", 1)]
        parts = list(target) if isinstance(target, list | tuple) else []
        if ":" in parts:
            cut = parts.index(":")
            parts = [" ".join(map(str, parts[:cut])), " ".join(map(str, parts[cut + 1 :]))]
        if len(parts) != 2:
            raise Refused(f"semantic_content: {target!r} is not a target; write [field, value], as [food, Italian]")
        field = str(parts[0])
        if field not in self.known:
            raise Refused(f"semantic_content: no field {field!r}; known are {', '.join(self.known)}")
        value = spelling(parts[1], self.known[field])
        if value not in self.known[field]:
            value = spelled(value)  # as tokenised texts have it
        if value not in self.known[field]:
            known = ", ".join(self.known[field])
            raise Refused(f"semantic_content: {field} has no value {parts[1]!r}; known are {known}")
        if (field, value) not in self.writable:
            raise Refused(f"semantic_content: words of {value!r} are too rare in the training texts, so no model can "
                          "write them; data.more_than says how rare")  # fmt: skip
        return [field, value]

    def head(self, width: int) -> "MentionHead":
        return MentionHead(width, self.pairs)

    def least_words(self, target: Sequence[str]) -> int:
        return min(len(form.split()) for form, value in self.forms[target[0]] if value == target[1])

    def serialize(self, target: Sequence[str]) -> list[str]:
        return [target[0], ":", *target[1].split()]

    def rule(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Rule]:
        automaton = self.automaton(vocabulary)
        return lambda target: Mention(self, target, vocabulary, automaton(target))

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Automaton]:
        make = cache(lambda field, value: saying(self.tellings[field, value], vocabulary))
        return lambda target: make(*target)

    def classes(self) -> list[list[str]]:
        return [list(pair) for pair in self.pairs]

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        rows = list(zip(texts, targets, strict=True))
        return {
            "strict": [float(self.says(words, field, value)) for words, (field, value) in rows],
            "released": [float(value in " ".join(words)) for words, (_, value) in rows],
            "mentioned": [float(value in self.mentioned(words, field)) for words, (field, value) in rows],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """What says the value, and what a reader takes to say something else of its field."""
        found = [
            (self.tellings[field, value].placed(tuple(word.lower() for word in words)), field)
            for words, (field, value) in zip(texts, targets, strict=True)
        ]
        return [
            [Mark(i, j, meaning == SAID, field) for i, j, meaning in placed if meaning != NOTHING]
            for placed, field in found
        ]


class Mention(Rule):
    """Only words after which the text can still say the value. Until it does, words that begin a form gain BONUS nats,
    and a nat more with every HURRY words of the text, those that go on with a form of which n words are written 1 + n
    times that."""

    BONUS, HURRY = 4.0, 4

    def __init__(self, task: SemanticContent, target: Sequence[str], vocabulary: Vocabulary, automaton: Automaton):
        self.task, (self.field, self.value) = task, target
        self.follows = Follows(automaton, task.corpus.length - 2)
        self.forms = [form.split() for form, meant in task.forms[self.field] if meant == self.value]
        self.vocabulary = vocabulary

    def factors(self, words: Sequence[int]) -> Tensor:
        added = self.follows.factors(words)
        if added[END] == 0:  # it is said
            return added
        gained = torch.zeros(len(self.vocabulary))
        lower, gain = [self.vocabulary.words[i].lower() for i in words], self.BONUS + len(words) / self.HURRY
        for form in self.forms:
            for n in range(min(len(form), len(lower) + 1)):
                if lower[len(lower) - n :] == form[:n]:
                    spelled = self.vocabulary.spellings.get(form[n], [])
                    gained[spelled] = gained[spelled].clamp(min=(1 + n) * gain)
        return added + gained

    def weighed(self, words: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Words are drawn by how much nearer they bring the mention; as what is gained by one is lost where its form is
        not gone on with, it comes to the same for all texts that mention the value."""
        allowed = self.factors(words).isfinite()
        text = [self.vocabulary.words[i].lower() for i in words]
        before = self._nearness(text)
        gains = torch.full((len(self.vocabulary),), self._nearness([*text, ""]) - before)
        for word in {word for form in self.forms for word in form} if before < 0 else ():
            gains[self.vocabulary.spellings.get(word, [])] = self._nearness([*text, word]) - before
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
        """log p(the value is mentioned, and no other value of its field is), as a reader wants it."""
        absent = self._absent(hidden)
        wanted = torch.tensor([self.pairs[field, value] for field, value in targets], device=hidden.device)
        rivals = [[other == field and i != n for (other, _), i in self.pairs.items()]
                  for (field, _), n in zip(targets, wanted.tolist(), strict=True)]  # fmt: skip
        rival = torch.tensor(rivals, device=hidden.device)
        return self._log_present(absent.gather(1, wanted[:, None])[:, 0]) - (absent * rival).sum(1)
