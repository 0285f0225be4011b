"""Balanced Langevin steps, for several controls at once.

In the paper's update the sign of a *summed* gradient moves each coordinate, so that the control with the larger
gradient has its way everywhere. Here every control's gradient is brought to the same size in each row first, and a
control that is met already lets go:

    Σ_k strength_k · (1 − p_k) · g_k / RMS(g_k)        g_k = ∂ log p(c_k | x_s) / ∂x_s,  p_k = p(c_k | x_s)

The weights 1 − p_k have the part that multipliers have in MuCoLa (Kumar et al. 2022, 2205.12558, eq. 5), which grow
while a constraint is violated; a gradient step of log p has the factor already, the normalised one needs it again.
"""

import torch
from torch import Tensor

from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.steering.base import Look, Weighted


class Balanced(Langevin):
    """A strength says how large a control's gradient is beside that of the fluency term, which is about 2."""

    def gradient(self, denoiser: Denoiser, control: Weighted, x_s: Tensor, s: Tensor, spread: Tensor,
                 previous: Prediction) -> Tensor:  # fmt: skip
        total = torch.zeros_like(x_s)
        with torch.enable_grad():
            look = Look(x_s, s, lambda: denoiser(x_s, s, previous), spread)
            log_probs = [(strength, part.log_prob(look)) for strength, part in control.parts]
        for strength, log_p in log_probs:
            if not log_p.requires_grad:
                continue
            (g,) = torch.autograd.grad(log_p, x_s, torch.ones_like(log_p), retain_graph=True)
            size = g.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-12)
            unmet = -torch.expm1(log_p.detach().clamp(max=0.0))[:, None, None]
            total = total + strength * unmet * g / size
        return total
