"""Decoding: how the x̂₀ that the reverse step moves towards is made of what the network predicts.

The network's own prediction stays as it is: controls and self-conditioning read that one, as they were trained on it.

B batch · L positions · D embedding width · V vocabulary
"""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, number
from diffcontrol.diffusion.denoiser import Prediction, known_words


class Decoding(Protocol):
    """What conf/decoding makes."""

    def __call__(self, prediction: Prediction, t: Tensor, table: Tensor) -> Tensor:
        """x̂₀ [B L D] of a prediction at times t [B], given the word vectors [V D]."""
        ...


class Rounding:
    """x̂₀ moved as the expected word vector moves under softmax(logits / `temperature`), or the nearest word's vector.

    temperature: 1 keeps the network's own x̂₀, in which UNK may stand as released. At others x̂₀ is the expected vector
    itself, of all words but UNK, unless the network predicts x̂₀ apart from its words, or a guidance moved it: that
    difference stays. clamp: the time from which on x̂₀ is replaced
    by the nearest word vector, specials included (paper §4.4, "clamping trick"; released denoised_fn_round): 0 never, 1
    at all times as in the released control runs.
    """

    allowed: ClassVar[Rules] = {"temperature": number(above=0), "clamp": number(0, 1)}

    def __init__(self, temperature: float = 1.0, clamp: float = 0.0):
        self.temperature, self.clamp = temperature, clamp

    def __call__(self, prediction: Prediction, t: Tensor, table: Tensor) -> Tensor:
        """x̂₀ [B L D] of a prediction at times t [B], given the word vectors [V D]."""
        x0 = prediction.x0
        if self.temperature != 1:
            x0 = prediction.reweighed(known_words(prediction.logits / self.temperature), table).x0
        clamped = t <= self.clamp
        if self.clamp > 0 and clamped.any():
            nearest = table[torch.cdist(x0.flatten(0, 1), table).argmin(-1)].view_as(x0)
            x0 = torch.where(clamped[:, None, None], nearest, x0)
        return x0
