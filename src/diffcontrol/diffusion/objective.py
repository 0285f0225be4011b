"""What a diffusion language model is trained for, and which read-out belongs to it.

B batch · L positions · D embedding width · V vocabulary
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from diffcontrol.allowed import FLAG, Rules, number
from diffcontrol.diffusion.denoiser import Denoiser
from diffcontrol.diffusion.readout import Readout, Vectors, Words
from diffcontrol.shares import randn_like


class Noised(Denoiser, Protocol):
    """The model in training: a denoiser that makes its own x_t and owns a read-out."""

    readout: Readout

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t given x₀ [B L D] at t [B]."""
        ...


class Objective(ABC):
    """Terms of the loss by name, and the read-out that belongs to them."""

    normalised: bool  # word vectors have norm √D
    self_conditioning: float = 0.0  # how often it is used in training; 0: the network has no input for it
    likelihood: bool = False  # what x_t says of each word by itself is computed, not learned

    @abstractmethod
    def readout(self, width: int, embedding: int, words: int) -> Readout:
        """New output layers for hidden states of this width, vectors of width `embedding` and so many words."""

    @abstractmethod
    def losses(self, lm: Noised, ids: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Terms of the loss for word ids [B L] at times t [B]."""


class CrossEntropy(Objective):
    """Cross-entropy of the true word given x_t (as in CDCD, Dieleman et al. 2022).

    With `likelihood` the network also reads what x_t says of every position by itself: the expected vector, given the
    words' frequencies, beside x_t.
    """

    normalised = True

    allowed: ClassVar[Rules] = {"self_conditioning": number(0, 1), "likelihood": FLAG}

    def __init__(self, self_conditioning: float = 0.5, likelihood: bool = True):
        self.self_conditioning, self.likelihood = self_conditioning, likelihood

    def readout(self, width: int, embedding: int, words: int) -> Words:
        return Words(width, words)

    def losses(self, lm: Noised, ids: Tensor, t: Tensor) -> dict[str, Tensor]:
        x_t = lm.noised(lm.table()[ids], t)
        previous = None
        if torch.rand(()) < self.self_conditioning:
            with torch.no_grad():
                previous = lm(x_t, t).detach()
        logits = lm(x_t, t, previous).logits
        return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1), ids.flatten())}


class EndToEnd(Objective):
    """The paper's L_e2e-simple (§4.2) as released (training_losses_e2e): mse + rounding + L_T, unit weights.

    Means over positions and dimensions, PAD included; x₀ = Emb(w) + σ₀·n with σ₀ = √(1 − ᾱ at the first of 2,000 steps)
    = 0.121; at the first step the target is the clean embedding.
    """

    normalised = False
    first = 1 / 2000  # the time of the released step 0

    def readout(self, width: int, embedding: int, words: int) -> Vectors:
        return Vectors(width, embedding, words)

    def losses(self, lm: Noised, ids: Tensor, t: Tensor) -> dict[str, Tensor]:
        assert isinstance(lm.readout, Vectors)
        clean = lm.table()[ids]
        sigma_0 = (1 - lm.schedule.alpha_bar(torch.tensor(self.first))).sqrt()
        x0 = clean + sigma_0 * randn_like(clean)
        prediction = lm(lm.noised(x0, t), t)
        wanted = torch.where((t <= self.first)[:, None, None], clean, x0)
        last = lm.schedule.alpha_bar(torch.tensor(1.0))
        return {
            "mse": (wanted - prediction.x0).square().mean(),
            "rounding": F.cross_entropy(lm.readout.lm_head(x0, lm.table()).flatten(0, 1), ids.flatten()),
            "L_T": (last * x0.square()).mean(),
        }
