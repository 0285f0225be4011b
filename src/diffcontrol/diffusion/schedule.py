"""Noise schedules ᾱ(t) over continuous time t ∈ [0, 1], and the times at which to train and to sample.

x_t = √ᾱ(t) · x_0 + √(1 − ᾱ(t)) · ε. The paper's discrete step i of T is t = (i + 1)/T, so any number of steps
reads the same ᾱ and the same time input: the constant offset that the released code gets by rebuilding its
schedule with fewer steps does not arise.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, number, optional


def stratified(size: int, low: float) -> Tensor:
    """Random times [size] in [low, 1], one in each of as many equal parts, in random order."""
    t = (torch.randperm(size) + torch.rand(size)) / size
    return low + (1 - low) * t


class NoiseSchedule(ABC):
    """ᾱ(t), and the part [low, 1] of the times that is used.

    A word can be read off x_t alone once ‖E‖²·ᾱ/(1−ᾱ), the squared distance of two words in units of the noise,
    is far above 2 ln V: there nothing is left to decide. `margin` places `low` where the ratio of the two is `margin`;
    None uses all times, as the paper does.
    """

    floor = 2e-7  # ᾱ of the last step in the released code (its last β is clipped to 0.999)

    allowed: ClassVar[Rules] = {"margin": optional(number(above=0))}

    def __init__(self, margin: float | None = 1.5):
        self.margin = margin

    @abstractmethod
    def curve(self, t: Tensor) -> Tensor:
        """ᾱ(t) before it is kept within [floor, 1]."""

    def alpha_bar(self, t: Tensor) -> Tensor:
        """ᾱ at times t of any shape."""
        return self.curve(t).clamp(self.floor, 1.0)

    def low(self, energy: float, choices: int) -> float:
        """The least time in use, for embeddings of squared norm `energy` and `choices` words."""
        if self.margin is None:
            return 0.0
        ratio = self.margin * 2 * math.log(choices) / energy
        wanted = ratio / (1 + ratio)  # ᾱ at which energy·ᾱ/(1−ᾱ) = margin · 2 ln choices
        below, above = 0.0, 1.0
        for _ in range(50):  # ᾱ falls with t
            middle = (below + above) / 2
            below, above = (middle, above) if self.alpha_bar(torch.tensor(middle)) > wanted else (below, middle)
        return below


class Sqrt(NoiseSchedule):
    """ᾱ(t) = (1 − √(t + s)) / (1 − √s), s = 1e-4: paper App. A as released (gaussian_diffusion.py, "sqrt")."""

    def curve(self, t: Tensor) -> Tensor:
        return (1 - (t + 1e-4).sqrt()) / (1 - math.sqrt(1e-4))


class Cosine(NoiseSchedule):
    """ᾱ(t) = cos²(π/2 · (t + s)/(1 + s)) / cos²(π/2 · s/(1 + s)), s = 0.008 (Nichol & Dhariwal 2021, eq. 17)."""

    def curve(self, t: Tensor) -> Tensor:
        s = 0.008
        return (torch.cos((t + s) / (1 + s) * math.pi / 2) / math.cos(s / (1 + s) * math.pi / 2)) ** 2


class Linear(NoiseSchedule):
    """β rising linearly from 0.1 to 20 per unit of time (Ho et al. 2020, continuous limit)."""

    def curve(self, t: Tensor) -> Tensor:
        return torch.exp(-0.1 * t - 0.5 * (20 - 0.1) * t**2)
