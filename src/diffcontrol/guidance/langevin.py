"""The paper's update (Li et al. 2022, §5.1; released infill_util.py), after x_s is drawn.

K inner steps of an optimiser on   Σ_k strength_k · log p(c_k | x_s)  −  fluency · ‖x_s − mean‖² / σ,
with mean and σ of the transition. Divided by σ, not 2σ², as released; per-row sums, where the released code mixes
batch means and sums, so that a strength does not depend on batch or length (about 1/λ of the paper at fluency 1).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal

from diffcontrol.allowed import Rules, number, whole
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.guidance.base import Guidance
from diffcontrol.steering.base import Look, Weighted


class Sign(torch.optim.Optimizer):
    """Every coordinate moves by lr. What the released code does by re-creating Adagrad at each inner step."""

    def __init__(self, params: Iterable[Tensor], lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


def spread_of(step: Normal) -> Tensor:
    """σ of a transition, 1 where it is 0, as released: what the fluency term is divided by."""
    return torch.where(step.stddev > 0, step.stddev, torch.ones_like(step.stddev))


class Langevin(Guidance):
    """`inner` steps of `optimiser` (a constructor taking parameters and lr: Sign, torch.optim.Adagrad, …) of size `lr`.

    In the released code `stop` is 0.05: it skips the last 10 of 200 steps. The Langevin noise has factor 0 in the
    released code and is left out.
    """

    allowed: ClassVar[Rules] = {"inner": whole(1), "lr": number(above=0), "fluency": number(0)}

    def __init__(self, strength: Mapping[str, float] | None = None,
                 optimiser: Callable[..., torch.optim.Optimizer] = Sign, inner: int = 1, lr: float = 0.1,
                 fluency: float = 1.0, start: float = 1.0, stop: float = 0.0, stride: int = 1):  # fmt: skip
        super().__init__(strength, start, stop, stride)
        self.optimiser, self.inner, self.lr, self.fluency = optimiser, inner, lr, fluency

    def move(self, denoiser: Denoiser, control: Weighted, x_s: Tensor, step: Normal, s: Tensor,
             prediction: Prediction) -> Tensor:  # fmt: skip
        x_s = x_s.detach().requires_grad_(True)
        optimiser = self.optimiser([x_s], lr=self.lr)
        spread = spread_of(step)
        for _ in range(self.inner):
            with torch.no_grad():
                away = 2 * self.fluency * (x_s - step.mean) / spread
            x_s.grad = away - self.gradient(denoiser, control, x_s, s, spread, prediction)
            optimiser.step()
        return x_s.detach()

    def gradient(self, denoiser: Denoiser, control: Weighted, x_s: Tensor, s: Tensor, spread: Tensor,
                 previous: Prediction) -> Tensor:  # fmt: skip
        """∂/∂x_s of Σ_k strength_k · log p(c_k | x_s), [B L D]."""
        with torch.enable_grad():
            gain = control.log_prob(Look(x_s, s, lambda: denoiser(x_s, s, previous), spread)).sum()
        return torch.autograd.grad(gain, x_s)[0] if gain.requires_grad else torch.zeros_like(x_s)
