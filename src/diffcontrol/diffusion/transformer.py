"""The network: a bidirectional transformer over noisy word vectors that knows the time.

B batch · L positions · H hidden width
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A window of neighbours, then a pre-norm transformer block whose norms are scaled, shifted and gated by time
    (adaLN, Peebles & Xie 2023; gates start at 1, so that every branch is open from the first step).

    The depthwise convolution over `kernel` positions is there because attention alone takes thousands of steps to find
    what stands next to a noisy word (docs/log.md).
    """

    def __init__(self, width: int, depth: int, heads: int, time_width: int, dropout: float, kernel: int):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.near = nn.Conv1d(width, width, kernel_size=kernel, padding=kernel // 2, groups=width)
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
    """Bidirectional transformer over noisy word vectors. `inputs` is the width of a position; sizes in conf/model."""

    def __init__(self, inputs: int, width: int, depth: int, heads: int, positions: int, dropout: float = 0.0,
                 kernel: int = 5):  # fmt: skip
        super().__init__()
        time_width = max(64, width // 4)
        # Positions as large as words, else a short training takes long to use them (docs/log.md).
        self.enter = nn.Conv1d(inputs, width, kernel_size=kernel, padding=kernel // 2)
        self.positions = nn.Parameter(0.5 * torch.randn(positions, width))
        self.time = nn.Sequential(nn.Linear(64, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, depth, heads, time_width, dropout, kernel) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def matrices(self) -> list[Tensor]:
        """The weight matrices of the hidden layers, which Muon may train."""
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B L inputs], t [B] in [0, 1] → hidden [B L H]."""
        frequencies = torch.exp(-math.log(1000) * torch.arange(32, device=t.device) / 32) * 1000
        angles = t[:, None] * frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        h = self.enter(x.transpose(1, 2)).transpose(1, 2) + self.positions[: x.shape[1]]
        for block in self.blocks:
            h = block(h, time)
        return self.norm(h)
