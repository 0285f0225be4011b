"""Reverse processes. A sampler owns the times and the transition x_t → x_s; what is guided is guidance's business."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal

from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffcontrol.guidance.base import Guidance
    from diffcontrol.steering.base import Control


class Sampler(ABC):
    """`steps` transitions from t = 1 to the least time in use, then one last look that decides the words.

    `noise` scales the spread of every transition, not its mean: below 1 the texts are likelier and less varied, and
    keep their length better than with a low temperature (docs/log.md). 1 is the sampler as published.
    """

    def __init__(self, steps: int, noise: float = 1.0):
        if steps < 1:
            raise ValueError(f"sampler.steps={steps}: at least 1 is needed")
        if noise < 0:
            raise ValueError(f"sampler.noise={noise}: a spread cannot be negative")
        self.steps, self.noise = steps, noise

    @abstractmethod
    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        """p(x_s | x_t, x̂₀) for s < t, t and s [B]."""

    def times(self, low: float) -> Tensor:
        """Falling times [steps + 1] from 1 to `low`."""
        return torch.linspace(1.0, low, self.steps + 1)

    def __call__(self, denoiser: Denoiser, guidance: "Guidance", control: "Control", x_t: Tensor,
                 generator: torch.Generator) -> Iterator[Prediction]:  # fmt: skip
        """Walks x_t [B L D] ~ N(0, I) down to words: yields what is predicted at every time, the last is the result."""
        prediction: Prediction | None = None
        times = self.times(denoiser.low).to(x_t.device)
        for t, s in pairwise(times):
            t, s = t.expand(len(x_t)), s.expand(len(x_t))
            x_t, prediction = guidance.step(self, denoiser, control, x_t, t, s, prediction, generator)
            yield prediction
        with torch.no_grad():
            yield denoiser(x_t, times[-1].expand(len(x_t)), prediction)


def draw(normal: Normal, generator: torch.Generator) -> Tensor:
    """A draw that depends on the generator alone, also on an accelerator."""
    noise = torch.randn(normal.mean.shape, generator=generator).to(normal.mean)
    return normal.mean + normal.stddev * noise


class DDPM(Sampler):
    """Ancestral sampling with the small variance β̃ (Ho et al. 2020, eqs. 6–7; released sigma_small=True)."""

    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        ab_t, ab_s = (schedule.alpha_bar(u)[:, None, None] for u in (t, s))
        alpha = ab_t / ab_s  # of the step from s to t
        mean = (ab_s.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - ab_s) * x_t) / (1 - ab_t)
        variance = (1 - alpha) * (1 - ab_s) / (1 - ab_t)
        return Normal(mean, self.noise * variance.sqrt().expand_as(mean), validate_args=False)


class DDIM(Sampler):
    """Song et al. 2021, eq. 12, with ε re-derived from x_t and x̂₀; η = 1 as in the released control runs."""

    def __init__(self, steps: int, eta: float = 1.0, noise: float = 1.0):
        super().__init__(steps, noise)
        self.eta = eta

    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        ab_t, ab_s = (schedule.alpha_bar(u)[:, None, None] for u in (t, s))
        epsilon = (x_t - ab_t.sqrt() * x0) / (1 - ab_t).sqrt()
        sigma = self.eta * ((1 - ab_s) / (1 - ab_t)).sqrt() * (1 - ab_t / ab_s).sqrt()
        mean = ab_s.sqrt() * x0 + (1 - ab_s - sigma**2).clamp(min=0).sqrt() * epsilon
        return Normal(mean, self.noise * sigma.expand_as(mean), validate_args=False)
