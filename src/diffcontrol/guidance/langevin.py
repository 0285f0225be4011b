"""The paper's update (Li et al. 2022, §5.1; released infill_util.py), called after drawing x_s.

K inner steps of an optimiser on   Σ_k strength_k · log p(c_k | x_s)  −  fluency · ‖x_s − mean‖² / σ,
with mean and σ of the transition. Divided by σ, not 2σ², as released; per-row sums, where the released code mixes
batch means and sums, so that a strength does not depend on batch or length (about 1/λ of the paper at fluency 1).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.sampler import Sampler, draw
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.steering.base import Control


class Sign(torch.optim.Optimizer):
    """Every coordinate moves by lr. What the released code does by re-creating Adagrad at each inner step."""

    def __init__(self, params: Iterable[Tensor], lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


class Langevin(Guidance):
    """`inner` steps of `optimiser` (a constructor taking parameters and lr: Sign, torch.optim.Adagrad, …) of size `lr`.

    Guidance acts at times s with `stop` ≤ (s − low)/(1 − low) ≤ `start`: released code, stop = 0.05 (it skips the last
    10 of 200 steps). The Langevin noise has factor 0 in the released code and is left out.
    """

    def __init__(self, optimiser: Callable[..., torch.optim.Optimizer] = Sign, inner: int = 1, lr: float = 0.1,
                 fluency: float = 1.0, start: float = 1.0, stop: float = 0.0):  # fmt: skip
        self.optimiser, self.inner, self.lr, self.fluency = optimiser, inner, lr, fluency
        self.start, self.stop, self.unguided = start, stop, Unguided()

    def step(self, sampler: Sampler, denoiser: Denoiser, control: Control, x_t: Tensor, t: Tensor, s: Tensor,
             previous: Prediction | None, generator: torch.Generator) -> tuple[Tensor, Prediction]:  # fmt: skip
        part = (float(s[0]) - denoiser.low) / (1 - denoiser.low)
        if not self.stop - 1e-6 <= part <= self.start + 1e-6:  # times are rounded to 32 bits
            return self.unguided.step(sampler, denoiser, control, x_t, t, s, previous, generator)
        with torch.no_grad():
            prediction = denoiser(x_t, t, previous)
            transition = sampler.transition(denoiser.schedule, x_t, t, s, prediction.x0)
            x_s = draw(transition, generator)
        x_s.requires_grad_(True)
        optimiser = self.optimiser([x_s], lr=self.lr)
        spread = torch.where(transition.stddev > 0, transition.stddev, torch.ones_like(transition.stddev))
        for _ in range(self.inner):
            with torch.enable_grad():
                gain = control.log_prob(x_s, s, denoiser(x_s, s, prediction)).sum()
                cost = self.fluency * ((x_s - transition.mean) ** 2 / spread).sum()
                (x_s.grad,) = torch.autograd.grad(cost - gain, x_s)
            optimiser.step()
        return x_s.detach(), prediction
