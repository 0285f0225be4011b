"""Langevin steps that cost no forward pass of their own.

The paper's update asks the control about x_s, the draw, and so runs the network on it a second time. Here the control
is asked about x_t, at the look that the step needs anyway, and the draw is moved along that gradient:

    x_s  +=  lr · sign( Σ_k strength_k · ∂ log p(c_k | x_t)/∂x_t  −  2 · fluency · (x_s − mean) / σ )
    lr    =  distance · stride / steps

From one step to the next the gradient hardly turns, and only its signs are used. A step costs one forward and one
backward pass in place of two forward passes and a backward one. The paper's lr is of one step, so that more steps move
a text further, and 200 of them broke ours; here they all share one distance (docs/log.md).

B batch · L positions · D embedding width
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal

from diffcontrol.allowed import Rules, number
from diffcontrol.diffusion.denoiser import Denoiser, Prediction, Wrapper
from diffcontrol.diffusion.sampler import Move
from diffcontrol.guidance.base import Guidance
from diffcontrol.guidance.langevin import spread_of
from diffcontrol.steering.base import Look, Weighted


class OnePass(Guidance):
    """distance: how far a coordinate moves at most over the whole process, however many steps there are, up to the
    rounding of steps to strides; less where `start` and `stop` leave steps out. fluency: the weight of the pull towards
    the transition's mean."""

    allowed: ClassVar[Rules] = {"distance": number(above=0), "fluency": number(0)}

    def __init__(self, strength: Mapping[str, float] | None = None, distance: float = 3.125, fluency: float = 1.0,
                 start: float = 1.0, stop: float = 0.0, stride: int = 1):  # fmt: skip
        super().__init__(strength, start, stop, stride)
        self.distance, self.fluency = distance, fluency

    def bind(self, denoiser: Denoiser, control: Weighted, times: Tensor) -> tuple[Denoiser, Move]:
        acting = {t for t, _ in self.acting(times.tolist(), denoiser.low)}
        looking = _Differentiated(denoiser, control, acting)
        lr = self.distance * self.stride / (len(times) - 1)

        def move(x_s: Tensor, step: Normal, s: Tensor, prediction: Prediction) -> Tensor:
            looking.spread = spread = spread_of(step)
            if looking.gradient is None:
                return x_s
            pull = 2 * self.fluency * (x_s - step.mean) / spread
            return x_s + lr * (looking.gradient - pull).sign()

        return looking, move


class _Differentiated(Wrapper):
    """A denoiser that keeps the control's gradient at its last look: [B L D], None at times without guidance.

    spread: σ [B L D] of the transition that the next x_t is drawn from; None at first, as x_1 is drawn with σ = 1.
    """

    def __init__(self, denoiser: Denoiser, control: Weighted, times: set[float]):
        super().__init__(denoiser)
        self.control, self.times = control, times
        self.gradient: Tensor | None = None
        self.spread: Tensor | None = None

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        self.gradient = None
        if float(t[0]) not in self.times:
            return self.denoiser(x_t, t, previous)
        x_t = x_t.detach().requires_grad_(True)
        with torch.enable_grad():
            prediction = self.denoiser(x_t, t, previous)
            spread = None if self.spread is None else self.spread[:, : x_t.shape[1]]  # positions may be cropped since
            gain = self.control.log_prob(Look(x_t, t, lambda: prediction, spread)).sum()
        self.gradient = torch.autograd.grad(gain, x_t)[0] if gain.requires_grad else torch.zeros_like(x_t)
        return prediction.detach()
