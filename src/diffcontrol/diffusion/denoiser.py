"""The denoiser's interface, and known words as a denoiser around a denoiser.

B batch · L positions · D embedding width · H hidden width · V vocabulary
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from diffcontrol.diffusion.schedule import NoiseSchedule
from diffcontrol.text import SPECIALS, UNK

IMPOSSIBLE = -1e4  # a logit


def known_words(logits: Tensor) -> Tensor:
    """The same logits [… V], but for UNK, which no method writes."""
    unknown = torch.arange(logits.shape[-1], device=logits.device) == UNK
    return logits.masked_fill(unknown, IMPOSSIBLE)


def words_within(logits: Tensor, within: Tensor) -> Tensor:
    """Logits [B L V] by which the places `within`, bool [B L], hold words, none of the specials."""
    special = torch.arange(logits.shape[-1], device=logits.device) < len(SPECIALS)
    return logits.masked_fill(within[..., None] & special, IMPOSSIBLE)


@dataclass(frozen=True)
class Prediction:
    """What the network says of one x_t, before any decoding.

    Fields: `x0`, its estimate x̂₀ [B L D]; `logits` of the words [B L V]; `hidden` states [B L H].
    """

    x0: Tensor
    logits: Tensor
    hidden: Tensor

    def detach(self) -> "Prediction":
        return Prediction(self.x0.detach(), self.logits.detach(), self.hidden.detach())

    def reweighed(self, logits: Tensor, table: Tensor) -> "Prediction":
        """The same with other logits of the words, given their vectors [V D]: x̂₀ moves as the expected vector does, so
        that a network which predicts x̂₀ itself keeps what is its own."""
        moved = (logits.softmax(-1) - self.logits.softmax(-1)) @ table
        return replace(self, logits=logits, x0=self.x0 + moved)

    def cropped(self, positions: int) -> "Prediction":
        """The same of the first `positions` alone."""
        return Prediction(self.x0[:, :positions], self.logits[:, :positions], self.hidden[:, :positions])


class Denoiser(Protocol):
    """(x_t [B L D], t [B], previous) → Prediction.

    `previous` is the prediction of the step before, for self-conditioning.
    """

    schedule: NoiseSchedule
    low: float  # the least time that the network is trained on, and so the last one of sampling

    def table(self) -> Tensor:
        """Word vectors [V D]."""
        ...

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction: ...


class Wrapper:
    """Base of denoisers around a denoiser."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.schedule, self.low = denoiser, denoiser.schedule, denoiser.low

    def table(self) -> Tensor:
        return self.denoiser.table()


class Anchored(Wrapper):
    """Known words at known places: there x_t is the known word properly noised and x̂₀ its vector.

    known: ids [B L]. mask: bool [B L], True where a word is known. noise [B L D]: one draw for the whole trajectory;
    without it the known word stands among noisy ones as a clean vector (released infill.py), at a noise level that the
    network was not trained on. within: bool [B L], places that hold a word, none of the specials. Of a shorter x_t the
    first positions count.
    """

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor, noise: Tensor | None,
                 within: Tensor | None = None):  # fmt: skip
        super().__init__(denoiser)
        self.known, self.mask, self.noise, self.within = known, mask[..., None], noise, within

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        length = x_t.shape[1]
        known, mask = self.known[:, :length], self.mask[:, :length]
        x0 = self.table()[known]
        shown = x0
        if self.noise is not None:
            alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
            shown = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * self.noise[:, :length]
        prediction = self.denoiser(torch.where(mask, shown, x_t), t, previous)
        logits = prediction.logits
        if self.within is not None:
            logits = words_within(logits, self.within[:, :length])
            prediction = prediction.reweighed(logits, self.table())  # x̂₀ holds no special either
        certain = torch.full_like(logits, IMPOSSIBLE).scatter(-1, known[..., None], 0.0)
        return replace(
            prediction,
            x0=torch.where(mask, x0, prediction.x0),
            logits=torch.where(mask, certain, logits),
        )
