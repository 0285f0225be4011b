"""Control: the log-probability that a noisy text obeys, one target for each row; weighted sums compose.

Steering is what makes guided diffusion obey one task: a control, words fixed at their places, or both.

B batch · L positions · D embedding width
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from operator import and_

from torch import Tensor

from diffcontrol.automaton import Automaton, Stacked
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.layout import Layout
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Target


class Look:
    """A look at x_t: the point, its time, and what the network predicts there, computed when first asked for.

    x_t [B L D], t [B]; spread: σ of the transition that x_t was drawn from, broadcast to x_t; None where there is none.
    """

    def __init__(self, x_t: Tensor, t: Tensor, predict: Callable[[], Prediction], spread: Tensor | None = None):
        self.x_t, self.t, self.spread, self._predict = x_t, t, spread, predict

    @cached_property
    def prediction(self) -> Prediction:
        """The network's own prediction, before any decoding."""
        return self._predict()


class Control(ABC):
    """log p(c | x_t) of a batch, a target for each row."""

    @abstractmethod
    def log_prob(self, look: Look) -> Tensor:
        """[B], differentiable in x_t and in the prediction."""

    @property
    def automata(self) -> Sequence[Automaton] | None:
        """The automaton of the texts that obey, one for each row; None where there is none to condition on exactly."""
        return None


class Weighted(Control):
    """Σ_k strength_k · log p(c_k | x_t); of nothing it is 0."""

    def __init__(self, parts: Sequence[tuple[float, Control]]):
        self.parts = parts

    def log_prob(self, look: Look) -> Tensor:
        total = look.x_t.new_zeros(len(look.x_t))
        for strength, control in self.parts:
            total = total + strength * control.log_prob(look)
        return total

    @property
    def asks(self) -> bool:
        """Whether there is anything to follow: a part with a strength, or with an automaton, which needs none."""
        return any(strength or part.automata is not None for strength, part in self.parts)

    @cached_property
    def joint(self) -> "Weighted":
        """log p of all of them together, were they independent: each counts once, whatever its strength."""
        return Weighted([(1.0, part) for _, part in self.parts])

    @cached_property
    def learned(self) -> "Weighted":
        """The parts without an automaton."""
        return Weighted([(strength, part) for strength, part in self.parts if part.automata is None])

    @cached_property
    def exact(self) -> Stacked | None:
        """The product of the automata of the other parts, one for each row; None where there are none.

        Raises:
            Refused: two targets of a row exclude each other.
        """
        known = [part.automata for _, part in self.parts if part.automata is not None]
        products = [reduce(and_, row) for row in zip(*known, strict=True)]
        for i, product in enumerate(products):
            if product.left[product.start].isinf():
                raise Refused(f"text {i + 1} of a chunk: no text of this model can meet what is asked of it")
        return Stacked.of(products) if known else None


class Steering(ABC):  # noqa: B024  each part may be left out
    """How one task steers guided diffusion.

    ends: whether its control moves END, so that nothing else fixes it.
    """

    ends: bool = False

    @classmethod
    def check(cls, task: ControlTask, corpus: Corpus) -> None:
        """Asked before anything is trained: whether this steering is applicable to the task.

        Raises:
            Refused: it is not, and why.
        """
        return None

    def control(self, targets: Sequence[Target]) -> Control | None:
        """The control that asks row i for targets[i], if guidance is to follow one."""
        return None

    def layouts(self, target: Target) -> Sequence[Layout]:
        """Ways to fix words at their places; none where nothing is fixed."""
        return ()

    def positions(self, target: Target) -> int | None:
        """How many positions a text that meets the target takes, START and END included; None where it is open."""
        return None

    def least(self, target: Target) -> int:
        """How many positions the control of a target reads at least, START and END included."""
        return self.positions(target) or 0

    def most(self, target: Target) -> int | None:
        """How many positions a text that meets the target takes at most; None where there is no such number."""
        return self.positions(target)

    def completed(self, words: Sequence[str], target: Target) -> list[str]:
        """The text that was written, with words put in that the target fixes and the network cannot write."""
        return list(words)


class ByTask(Steering):
    """Steering by what a task says of texts, whose numbers of positions are therefore the task's."""

    task: ControlTask

    def positions(self, target: Target) -> int | None:
        words = self.task.words(target)
        return None if words is None else words + 2  # START and END

    def least(self, target: Target) -> int:
        return self.task.least_words(target) + 2

    def most(self, target: Target) -> int | None:
        words = self.task.most_words(target)
        return None if words is None else words + 2
