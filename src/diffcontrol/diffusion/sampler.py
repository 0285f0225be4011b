"""The reverse process: from noise to words.

    x_1 ~ N(0, I)
    for each time t and the next one s < t:
        what the network predicts at x_t          prediction
        x̂₀ as the decoding makes it               decode(prediction, t)
        x_s ~ p(x_s | x_t, x̂₀)                    transition, then a draw
        what a guidance does to the draw          move
    the words are the likeliest ones at the last look

A sampler owns the times and the transition. It knows nothing of controls: a guidance acts before the transition as a
denoiser around the denoiser, and after the draw as `move` (`diffcontrol.guidance`).

B batch · L positions · D embedding width
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal

from diffcontrol.allowed import FLAG, Rules, arguments, number, whole
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.schedule import NoiseSchedule
from diffcontrol.draws import Draws
from diffcontrol.text import PAD

Decode = Callable[[Prediction, Tensor], Tensor]  # (prediction, t) → x̂₀
Move = Callable[[Tensor, Normal, Tensor, Prediction], Tensor]  # (x_s, transition, s, prediction) → x_s
CERTAIN = 0.99  # of PAD: positions behind the text's end that are no longer computed


def stay(x_s: Tensor, step: Normal, s: Tensor, prediction: Prediction) -> Tensor:
    """What is done to a draw without guidance: nothing."""
    return x_s


def plain(prediction: Prediction, t: Tensor) -> Tensor:
    """The network's own x̂₀."""
    return prediction.x0


class Sampler(ABC):
    """`steps` transitions from t = 1 to the least time in use, then one last look that decides the words.

    `noise` scales the draw of every transition, neither its mean nor the spread that guidance is told: below 1 the
    texts are likelier and less varied, and keep their length better than with a low temperature (docs/log.md). 1 is the
    sampler as published.

    crop: whether positions behind the end of all texts are left out; false computes all of them at every step, as
    released.
    """

    allowed: ClassVar[Rules] = {"steps": whole(1), "noise": number(0), "crop": FLAG}

    def __init__(self, steps: int, noise: float = 1.0, crop: bool = True):
        arguments(self, steps=steps, noise=noise)
        self.steps, self.noise, self.crop = steps, noise, crop

    @abstractmethod
    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        """p(x_s | x_t, x̂₀) for s < t, t and s [B]."""

    def times(self, low: float) -> Tensor:
        """Falling times [steps + 1] from 1 to `low`."""
        return torch.linspace(1.0, low, self.steps + 1)

    def __call__(self, denoiser: Denoiser, x_t: Tensor, draws: Draws, decode: Decode = plain,
                 move: Move = stay, least: int = 0) -> Iterator[Prediction]:  # fmt: skip
        """Walks x_t [B L D] ~ N(0, I) down to words: yields what is predicted at every time, the last is the result.

        Positions behind the end of all texts are no longer computed (`crop`), but for the first `least`, which `move`
        reads.
        """
        prediction: Prediction | None = None
        times = self.times(denoiser.low).to(x_t.device)
        for t, s in pairwise(times):
            t, s = t.expand(len(x_t)), s.expand(len(x_t))
            prediction = denoiser(x_t, t, prediction)
            step = self.transition(denoiser.schedule, x_t, t, s, decode(prediction, t))
            x_t = move(self.draw(step, draws), step, s, prediction)
            yield prediction
            used = max(least, positions_in_use(prediction)) if self.crop else x_t.shape[1]
            x_t, prediction = x_t[:, :used], prediction.cropped(used)
        yield denoiser(x_t, times[-1].expand(len(x_t)), prediction)

    def draw(self, step: Normal, draws: Draws) -> Tensor:
        """A draw in every row, from its own stream."""
        noise = draws.normal(*step.mean.shape[1:]).to(step.mean)
        return step.mean + self.noise * step.stddev * noise


def positions_in_use(prediction: Prediction) -> int:
    """Positions up to the last one that, in some row, is not certainly PAD, and one more. The text ends before the
    rest, so nothing there can change it."""
    logits = prediction.logits
    padded = logits[..., PAD] - logits.logsumexp(-1) > math.log(CERTAIN)
    last = int((~padded).any(0).nonzero().max()) if not padded.all() else 0
    return min(last + 2, logits.shape[1])


class DDPM(Sampler):
    """Ancestral sampling with the small variance β̃ (Ho et al. 2020, eqs. 6–7; released sigma_small=True)."""

    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        ab_t, ab_s = (schedule.alpha_bar(u)[:, None, None] for u in (t, s))
        alpha = ab_t / ab_s  # of the step from s to t
        mean = (ab_s.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - ab_s) * x_t) / (1 - ab_t)
        variance = (1 - alpha) * (1 - ab_s) / (1 - ab_t)
        return Normal(mean, variance.sqrt().expand_as(mean), validate_args=False)


class DDIM(Sampler):
    """Song et al. 2021, eq. 12, with ε re-derived from x_t and x̂₀; η = 1 as in the released control runs."""

    allowed: ClassVar[Rules] = {"eta": number(0, 1)}

    def __init__(self, steps: int, eta: float = 1.0, noise: float = 1.0, crop: bool = True):
        super().__init__(steps, noise, crop)
        self.eta = eta

    def transition(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Normal:
        ab_t, ab_s = (schedule.alpha_bar(u)[:, None, None] for u in (t, s))
        epsilon = (x_t - ab_t.sqrt() * x0) / (1 - ab_t).sqrt()
        sigma = self.eta * ((1 - ab_s) / (1 - ab_t)).sqrt() * (1 - ab_t / ab_s).sqrt()
        mean = ab_s.sqrt() * x0 + (1 - ab_s - sigma**2).clamp(min=0).sqrt() * epsilon
        return Normal(mean, sigma.expand_as(mean), validate_args=False)
