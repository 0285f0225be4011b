"""The denoiser's interface, its transformer, and wrappers that are denoisers too.

B batch · L positions · D embedding width · H hidden width · V vocabulary
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcontrol.diffusion.schedule import NoiseSchedule
from diffcontrol.text import SPECIALS

IMPOSSIBLE = -1e4  # a logit


@dataclass(frozen=True)
class Prediction:
    """What one look at x_t gives: x̂₀ [B L D], logits of the words [B L V], hidden states [B L H]."""

    x0: Tensor
    logits: Tensor
    hidden: Tensor

    def detach(self) -> "Prediction":
        return Prediction(self.x0.detach(), self.logits.detach(), self.hidden.detach())


class Denoiser(Protocol):
    """(x_t [B L D], t [B], previous) → Prediction; `previous` carries self-conditioning."""

    schedule: NoiseSchedule
    low: float  # the least time in use

    def table(self) -> Tensor:
        """Word vectors [V D]."""
        ...

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction: ...


class Block(nn.Module):
    """A window of neighbours, then a pre-norm transformer block whose norms are scaled, shifted and gated by time
    (adaLN-zero, Peebles & Xie 2023).

    The depthwise convolution over five positions is there because attention alone takes thousands of steps to find
    what stands next to a noisy word (docs/log.md).
    """

    def __init__(self, width: int, depth: int, heads: int, time_width: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.near = nn.Conv1d(width, width, kernel_size=5, padding=2, groups=width)
        self.modulation = nn.Linear(time_width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.out, self.fall):  # residual branches start small, as in GPT-2
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * depth))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        B, L, H = h.shape
        h = h + self.near(F.layer_norm(h, (H,)).transpose(1, 2)).transpose(1, 2)
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(time)[:, None].chunk(6, -1)  # each [B 1 H]
        x = F.layer_norm(h, (H,)) * (1 + scale1) + shift1
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each [B heads L H/heads]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, H)
        h = h + (1 + gate1) * self._drop(self.out(mixed))
        x = F.layer_norm(h, (H,)) * (1 + scale2) + shift2
        return h + (1 + gate2) * self._drop(self.fall(F.gelu(self.rise(x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Transformer(nn.Module):
    """Bidirectional transformer over noisy word vectors. `embedding` is D; sizes in conf/model."""

    def __init__(self, inputs: int, width: int, depth: int, heads: int, positions: int, dropout: float = 0.0):
        super().__init__()
        time_width = max(64, width // 4)
        # Positions as large as words, else a short training takes long to use them (docs/log.md).
        self.enter = nn.Conv1d(inputs, width, kernel_size=5, padding=2)
        self.positions = nn.Parameter(0.5 * torch.randn(positions, width))
        self.time = nn.Sequential(nn.Linear(64, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, depth, heads, time_width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B L inputs], t [B] in [0, 1] → hidden [B L H]."""
        frequencies = torch.exp(-math.log(1000) * torch.arange(32, device=t.device) / 32) * 1000
        angles = t[:, None] * frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        h = self.enter(x.transpose(1, 2)).transpose(1, 2) + self.positions[: x.shape[1]]
        for block in self.blocks:
            h = block(h, time)
        return self.norm(h)


class _Wrapper:
    """A denoiser around a denoiser."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.schedule, self.low = denoiser, denoiser.schedule, denoiser.low

    def table(self) -> Tensor:
        return self.denoiser.table()


class Tempered(_Wrapper):
    """x̂₀ is the expected word vector under softmax(logits / temperature)."""

    def __init__(self, denoiser: Denoiser, temperature: float):
        super().__init__(denoiser)
        self.temperature = temperature

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        prediction = self.denoiser(x_t, t, previous)
        return replace(prediction, x0=(prediction.logits / self.temperature).softmax(-1) @ self.table())


class Clamped(_Wrapper):
    """x̂₀ is replaced by the nearest word vector, specials included (paper §4.4; released denoised_fn_round),
    at times up to `start` (the released code: always)."""

    def __init__(self, denoiser: Denoiser, start: float = 1.0):
        super().__init__(denoiser)
        self.start = start

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        prediction = self.denoiser(x_t, t, previous)
        table = self.table()
        nearest = table[torch.cdist(prediction.x0.flatten(0, 1), table).argmin(-1)].view_as(prediction.x0)
        return replace(prediction, x0=torch.where((t <= self.start)[:, None, None], nearest, prediction.x0))


class Anchored(_Wrapper):
    """Known words at known places: there x_t is the known word properly noised and x̂₀ its vector.

    known: ids [B L], mask: bool [B L] (True where known), noise [B L D]: one draw for the whole trajectory;
    within: bool [B L], places that hold a word, none of the specials. Without noise the known word stands among noisy
    ones as a clean vector (released infill.py), at a level that the network was not trained on.
    """

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor, noise: Tensor | None,
                 within: Tensor | None = None):  # fmt: skip
        super().__init__(denoiser)
        self.known, self.mask, self.noise, self.within = known, mask[..., None], noise, within

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        x0 = self.table()[self.known]
        shown = x0
        if self.noise is not None:
            alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
            shown = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * self.noise
        prediction = self.denoiser(torch.where(self.mask, shown, x_t), t, previous)
        logits = prediction.logits
        if self.within is not None:
            special = torch.arange(logits.shape[-1], device=logits.device) < len(SPECIALS)
            logits = logits.masked_fill(self.within[..., None] & special, IMPOSSIBLE)
        sure = torch.full_like(logits, IMPOSSIBLE).scatter(-1, self.known[..., None], 0.0)
        return replace(
            prediction,
            x0=torch.where(self.mask, x0, prediction.x0),
            logits=torch.where(self.mask, sure, logits),
        )
