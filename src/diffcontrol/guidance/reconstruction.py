"""Reconstruction guidance: the gradient of the control at x̂₀(x_t), through the network, moves x̂₀.

    x̂₀'  =  x̂₀  +  strength · (1 − ᾱ_t)/√ᾱ_t · ∂ log p(c | x̂₀(x_t)) / ∂x_t

By Tweedie's formula x̂₀ = (x_t + (1 − ᾱ_t)·∇ log p(x_t)) / √ᾱ_t, so adding ∇ log p(c | x_t) to the score moves x̂₀ by
just that: strength 1 is Bayes' rule, as far as p(c | x_t) ≈ p(c | x̂₀(x_t)) (Dhariwal & Nichol 2021; Ho et al. 2022,
"video diffusion", §3.1; Chung et al. 2023, "DPS", eq. 16). One forward and one backward pass of
the network a step. The logits of the words are tilted towards the moved x̂₀, by ⟨x̂₀' − x̂₀, E_w⟩.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, number
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.guidance.base import Guidance
from diffcontrol.steering.base import Look, Weighted


class Reconstruction(Guidance):
    """limit: the root mean square of a row's move, in the units of word vectors, at most."""

    allowed: ClassVar[Rules] = {"limit": number(above=0)}

    def __init__(self, strength: Mapping[str, float] | None = None, limit: float = 1.0, start: float = 1.0,
                 stop: float = 0.0, stride: int = 1):  # fmt: skip
        super().__init__(strength, start, stop, stride)
        self.limit = limit

    def predict(self, denoiser: Denoiser, control: Weighted, x_t: Tensor, t: Tensor,
                previous: Prediction | None) -> Prediction:  # fmt: skip
        x_t = x_t.detach().requires_grad_(True)
        with torch.enable_grad():
            prediction = denoiser(x_t, t, previous)
            gain = control.log_prob(Look(x_t, t, lambda: prediction)).sum()
        prediction = prediction.detach()
        if not gain.requires_grad:
            return prediction
        (g,) = torch.autograd.grad(gain, x_t)
        alpha_bar = denoiser.schedule.alpha_bar(t)[:, None, None]
        move = (1 - alpha_bar) / alpha_bar.sqrt() * g
        size = move.square().mean((1, 2), keepdim=True).sqrt()
        move = move * (self.limit / size.clamp(min=1e-12)).clamp(max=1.0)
        return replace(prediction, x0=prediction.x0 + move, logits=prediction.logits + move @ denoiser.table().T)
