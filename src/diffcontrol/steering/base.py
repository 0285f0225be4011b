"""Control: the log-probability that a noisy text obeys, one target per row; weighted sums compose.

Steering is what makes guided diffusion obey one task: a control, words fixed at their places, or both.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.layout import Layout
from diffcontrol.task import Target


class Control(ABC):
    """log p(c | x_t) of a batch, a target per row."""

    @abstractmethod
    def log_prob(self, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        """x_t [B L D], t [B] → [B], differentiable in x_t."""


class Weighted(Control):
    """Σ_k strength_k · log p(c_k | x_t); of nothing it is 0."""

    def __init__(self, parts: Sequence[tuple[float, Control]]):
        self.parts = parts

    def log_prob(self, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        total = x_t.new_zeros(len(x_t))
        for strength, control in self.parts:
            total = total + strength * control.log_prob(x_t, t, prediction)
        return total


class Steering(ABC):  # noqa: B024  each part may be left out
    """How one task steers guided diffusion."""

    def control(self, targets: Sequence[Target]) -> Control | None:
        """The control that asks row i for targets[i], if guidance is to follow one."""
        return None

    def layouts(self, target: Target) -> Sequence[Layout]:
        """Ways to fix words at their places; none where nothing is fixed."""
        return ()
