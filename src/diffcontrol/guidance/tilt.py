"""First-order tilt: the word probabilities are reweighed by a linear model of the control at x̂₀.

    log p(w | x_t, c)  ≈  log p(w | x_t)  +  strength · ⟨∂ log p(c | x̂₀) / ∂x̂₀, E_w − x̂₀⟩  +  const

The control is read once, at the prediction itself, with the network's hidden states held fixed: a step costs one
forward pass of the network and, beside it, a forward and a backward pass of the head alone. It carries the
first-order form of D-CBG (Schiff et al. 2024, 2412.10193, eq. 12, `use_approx` in the released code) from one-hot
words to word vectors. A control that does not read x̂₀ has no gradient here.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, number, whole
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.guidance.base import Guidance
from diffcontrol.steering.base import Look, Weighted


class Tilt(Guidance):
    """`inner` readings of the control, each at the x̂₀ that the one before has led to, each with 1/inner of the tilt.

    limit: how many nats a word's logit changes at most in one reading, so that a control that is sure of
    itself at high noise does not decide the words there and then.
    """

    allowed: ClassVar[Rules] = {"inner": whole(1), "limit": number(above=0)}

    def __init__(self, strength: Mapping[str, float] | None = None, inner: int = 1, limit: float = 20.0,
                 start: float = 1.0, stop: float = 0.0, stride: int = 1):  # fmt: skip
        super().__init__(strength, start, stop, stride)
        self.inner, self.limit = inner, limit

    def predict(self, denoiser: Denoiser, control: Weighted, x_t: Tensor, t: Tensor,
                previous: Prediction | None) -> Prediction:  # fmt: skip
        prediction, table = denoiser(x_t, t, previous), denoiser.table()
        for _ in range(self.inner):
            g = self.gradient(control, x_t, t, prediction)
            tilt = (g @ table.T - (g * prediction.x0).sum(-1, keepdim=True)) / self.inner
            prediction = prediction.reweighed(prediction.logits + tilt.clamp(-self.limit, self.limit), table)
        return prediction

    def gradient(self, control: Weighted, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        """∂/∂x̂₀ of Σ_k strength_k · log p(c_k | x̂₀), hidden states held fixed, [B L D]."""
        x0 = prediction.x0.detach().requires_grad_(True)
        with torch.enable_grad():
            seen = replace(prediction.detach(), x0=x0)
            gain = control.log_prob(Look(x_t, t, lambda: seen)).sum()
        if not gain.requires_grad:
            return torch.zeros_like(x0)
        (g,) = torch.autograd.grad(gain, x0, allow_unused=True)
        return torch.zeros_like(x0) if g is None else g
