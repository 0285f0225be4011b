"""ControlTask: the one interface between what is asked of a text and every method that writes it.

Diffusion reads a task through its *head* (on the denoiser's hidden states), the autoregressive baselines through
`serialize` (target → words of a prompt). `annotate` serves classifier training, target selection and evaluation,
so the three cannot drift apart.

B batch · L positions · H hidden width
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from diffcontrol.allowed import Rules, whole
from diffcontrol.automaton import Automaton
from diffcontrol.data.corpus import Corpus, Example, spaced
from diffcontrol.layout import Layout
from diffcontrol.recipe import Content
from diffcontrol.refused import Refused
from diffcontrol.rules import Rule
from diffcontrol.text import Vocabulary

Target = Any  # JSON-able: what a user writes down for the task, e.g. ["food", "Italian"]
Annotation = Any  # JSON-able: what is true of a text
DIGESTED = 200  # training texts, evenly spaced, whose annotations and prompts enter the address of a model


class Head(nn.Module, ABC):
    """Reads hidden states of a noisy text; trained on annotations, asked for the probability of targets.

    ends: whether the place of END is what it is asked for, so that nothing else fixes it.
    """

    ends: bool = False

    @abstractmethod
    def loss(self, hidden: Tensor, annotations: Sequence[Annotation]) -> Tensor:
        """Mean negative log-likelihood of the annotations of a batch, hidden [B L H] → []."""

    @abstractmethod
    def log_prob(self, hidden: Tensor, targets: Sequence[Target]) -> Tensor:
        """log p(target | hidden) for a target per row, hidden [B L H] → [B]."""


class Mark(NamedTuple):
    """Words `start` to `end` of a text, the last one not included, in which a control shows, for reports.

    met: whether they are as the target asks. label: what they are, in a word or two.
    """

    start: int
    end: int
    met: bool
    label: str


class ControlTask(Content):
    """One kind of control. Instances are made from conf/task with the corpus they speak about.

    What a task teaches enters the address of the models that learn it (`digest`), so that a model is trained again
    when its task was edited.
    """

    #: Raise it when the head is edited, and where `data` is a treebank also when `annotate` or `serialize` is: these
    #: edits do not show in the digest by themselves.
    version: ClassVar[int] = 1
    #: which values its arguments may have (`diffcontrol.allowed`); a class may have more rules
    allowed: ClassVar[Rules] = {"min_count": whole(1)}

    @cached_property
    def digest(self) -> str:
        """Short hash of the version and of what the task says of DIGESTED training texts: annotations and prompts.

        The texts of a treebank may not be parsed yet, so they are left out; the address has the treebank's recipe.
        """
        sha = hashlib.sha256(f"{self.version}\n".encode())
        for lesson in self._lessons():
            sha.update(json.dumps(lesson, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        return sha.hexdigest()[:16]

    @property
    def reads(self) -> Corpus | None:
        """The texts that the task speaks about; None if there are none."""
        return next((value for value in vars(self).values() if isinstance(value, Corpus)), None)

    def _lessons(self) -> Iterator[Any]:
        """Annotation and prompts of each of the texts, then the classes if they are a closed set."""
        corpus = self.reads
        if corpus is None or corpus.made_by_store:
            return
        for example in spaced(corpus.splits["train"], DIGESTED):
            annotation = self.annotate(example)
            yield annotation, [self.serialize(target) for target in self.targets(annotation)]
        try:
            yield self.classes()
        except Refused:  # there is no closed set of them
            return

    @abstractmethod
    def annotate(self, example: Example) -> Annotation:
        """What is true of the example, as far as this task is concerned."""

    @abstractmethod
    def targets(self, annotation: Annotation) -> list[Target]:
        """What of the annotation may be asked for; empty if nothing."""

    @abstractmethod
    def parse(self, target: Any) -> Target:
        """A user's or a file's target, checked.

        Raises:
            Refused: one sentence that names the value and what is allowed.
        """

    def head(self, width: int) -> Head:
        """A new head on hidden states of this width.

        Raises:
            Refused: the task has none, as fixed words are all it asks for.
        """
        raise Refused(
            f"{type(self).__name__} has no head to guide or classify with: the words it fixes are all it asks for"
        )

    def layouts(self, target: Target) -> Sequence[Layout]:
        """Ways to fix words at known places so that the target can be met, one of which is drawn; none unless
        overridden."""
        return ()

    def words(self, target: Target) -> int | None:
        """How many words every text that meets the target has; None unless overridden, as most targets leave it open.

        With `lengths=training` diffusion fixes END behind them, so its texts have this length by construction. In any
        case it computes no more positions than these words take.
        """
        return None

    def completed(self, words: Sequence[str], target: Target) -> list[str]:
        """A text that was written under the task's rule, with the words put in that the target fixes and the vocabulary
        does not have; unchanged unless overridden."""
        return list(words)

    def least_words(self, target: Target) -> int:
        """How many words a text needs to meet the target at all; as many as `words` says unless overridden.

        Diffusion always computes the positions that these words take, also where the text threatens to end before. A
        target of another task that allows fewer words is refused beside this one, so the number must not be too high.
        """
        return self.words(target) or 0

    def most_words(self, target: Target) -> int | None:
        """How many words a text that meets the target has at most; as many as `words` says unless overridden."""
        return self.words(target)

    @abstractmethod
    def serialize(self, target: Target) -> list[str]:
        """The target as words, for predictors and fine-tuned models that read it as a prompt."""

    @abstractmethod
    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Target],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        """Scores in [0, 1] by name, one per text; always `strict` and `released`. Whoever evaluates sets `strict` to 0
        where one of `text.SPECIALS` stands in the text, so that no task has to.

        judges: name → what conf's `judge` builds (a parser, a teacher), and `grammar`, the corpus's own or None; a task
            whose judge is missing says so.
        """

    def compared(self, texts: Sequence[Sequence[str]], targets: Sequence[Target],
                 sources: Sequence[Example]) -> Mapping[str, list[float]]:  # fmt: skip
        """Further scores by name, of texts beside the source sentences of their targets; none unless overridden."""
        return {}

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Target],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """Where in each text the control shows, for reports; nowhere unless overridden. No score depends on it.

        The marks of a text hold at least one word each and lie within it; any two are nested or apart. `judges` are
        those of `success`.
        """
        return [[] for _ in texts]

    # Three more, for methods that do not suit every task. A method refuses a task that leaves out what it needs.

    def rule(self, vocabulary: Vocabulary) -> Callable[[Target], Rule]:
        """target → what single words say of it, for `constrained` and `smc`.

        Raises:
            Refused: nothing, and why.
        """
        raise Refused(f"constrained: no rule on single words makes a text meet a target of {type(self).__name__}")

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Target], Automaton]:
        """target → the automaton of the texts that meet it, or of those that may, for `lookahead`.

        Raises:
            Refused: there is none, and why.
        """
        raise Refused(f"lookahead, control=exact: no automaton says which texts meet a target of {type(self).__name__}")

    def classes(self) -> list[Target]:
        """All targets there are, for `pplm`, whose discriminator tells classes apart.

        Raises:
            Refused: they are no closed set.
        """
        raise Refused(f"pplm: its discriminator tells classes apart, and targets of {type(self).__name__} are no "
                         "closed set of classes")  # fmt: skip


def counted(text: str) -> int | None:
    """The whole number, of six digits at most, that a text is; None if it is none."""
    digits = text.strip()
    return int(digits) if digits.isdecimal() and len(digits) <= 6 else None


def spelling(value: Any, known: Sequence[str]) -> str:
    """A value that Hydra or JSON may have read as a number or as true or false, as the data spell it."""
    text = str(value)
    return next((own for own in known if own.lower() == text.lower()), text) if isinstance(value, bool) else text


class GapTask(ControlTask):
    """A task whose targets give words to the left and right of what is to be written."""

    @abstractmethod
    def gap(self, target: Target) -> tuple[list[str], list[str]]:
        """Words before the gap and after it."""

    @abstractmethod
    def longest(self, target: Target) -> int | None:
        """Words that may stand in the gap at most; None where it does not matter."""


@dataclass(frozen=True)
class Request:
    """One row of an experiment: what is asked of a text, task → target, all annotations of one source sentence."""

    targets: Mapping[str, Target]
    source: Example | None = None

    def completed(self, words: Sequence[str], tasks: Mapping[str, ControlTask]) -> list[str]:
        """What was written for it, as its tasks complete it."""
        found = list(words)
        for name, task in tasks.items():
            found = task.completed(found, self.targets[name])
        return found

    @cached_property
    def number(self) -> int:
        """The same for equal targets of equal sources, in every run and on every machine: what texts are seeded by."""
        words = self.source.words if self.source else None
        text = json.dumps([dict(self.targets), words], sort_keys=True, ensure_ascii=False)
        return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
