"""Guidance: one reverse step, from x_t to x_s, with or without regard to a control."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.sampler import Sampler, draw
from diffcontrol.steering.base import Control


class Guidance(ABC):
    @abstractmethod
    def step(self, sampler: Sampler, denoiser: Denoiser, control: Control, x_t: Tensor, t: Tensor, s: Tensor,
             previous: Prediction | None, generator: torch.Generator) -> tuple[Tensor, Prediction]:  # fmt: skip
        """x_t [B L D] at t [B] → x_s [B L D] at s [B], and what was predicted at t."""


class Unguided(Guidance):
    """A draw from the sampler's transition; the control is not looked at."""

    @torch.no_grad()
    def step(self, sampler: Sampler, denoiser: Denoiser, control: Control, x_t: Tensor, t: Tensor, s: Tensor,
             previous: Prediction | None, generator: torch.Generator) -> tuple[Tensor, Prediction]:  # fmt: skip
        prediction = denoiser(x_t, t, previous)
        return draw(sampler.transition(denoiser.schedule, x_t, t, s, prediction.x0), generator), prediction
