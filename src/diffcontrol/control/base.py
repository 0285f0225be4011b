"""Control: the log-probability that a noisy text obeys, one target per row; weighted sums compose."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from diffcontrol.diffusion.denoiser import Prediction


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
