"""What a diffusion language model is trained for, and how its network's output is read.

B batch · L positions · D embedding width · H hidden width · V vocabulary
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcontrol.diffusion.denoiser import Prediction

if TYPE_CHECKING:
    from diffcontrol.diffusion.lm import DiffusionLM


class Objective(ABC):
    """Loss terms by name, and the read-out hidden → Prediction that belongs to them."""

    normalised: bool  # word vectors have norm √D
    self_conditioning: float = 0.0  # probability of it in training; 0: the network has no input for it
    likelihood: bool = False  # what x_t says of each word by itself is computed, not learned

    @abstractmethod
    def output(self, width: int, embedding: int, words: int) -> nn.Module:
        """The layers after the last hidden state."""

    @abstractmethod
    def read(self, lm: "DiffusionLM", hidden: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        """hidden [B L H], x_t [B L D], t [B] → Prediction."""

    @abstractmethod
    def losses(self, lm: "DiffusionLM", ids: Tensor, t: Tensor) -> dict[str, Tensor]:
        """Terms of the loss for word ids [B L] at times t [B]."""


class CrossEntropy(Objective):
    """Cross-entropy of the true word given x_t; x̂₀ is the expected word vector (as in CDCD, Dieleman et al. 2022).

    By Bayes p(w | x_t) ∝ p(w | the other positions) · N(x_t; √ᾱ·E_w, 1−ᾱ). The second factor is known exactly: with
    vectors of equal norm its logarithm is √ᾱ/(1−ᾱ)·⟨x_t, E_w⟩ up to a constant. With `likelihood` it is added to the
    logits, so that the network learns the first factor alone, and the network reads what it makes of every position by
    itself (the expected vector, given the words' frequencies) beside x_t.
    """

    normalised = True

    def __init__(self, self_conditioning: float = 0.5, likelihood: bool = True):
        self.self_conditioning, self.likelihood = self_conditioning, likelihood

    def output(self, width: int, embedding: int, words: int) -> nn.Module:
        layer = nn.Linear(width, words)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer

    def read(self, lm: "DiffusionLM", hidden: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        logits = lm.output(hidden).float()
        if self.likelihood:
            logits = logits + lm.log_likelihood(x_t, t)
        return Prediction(logits.softmax(-1) @ lm.table(), logits, hidden)

    def losses(self, lm: "DiffusionLM", ids: Tensor, t: Tensor) -> dict[str, Tensor]:
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

    def output(self, width: int, embedding: int, words: int) -> nn.Module:
        down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, embedding))
        return nn.ModuleDict({"down": down, "bias": nn.Embedding(1, words)})  # lm_head is tied, with its own bias

    def read(self, lm: "DiffusionLM", hidden: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
        x0 = lm.output["down"](hidden)  # type: ignore[index]
        return Prediction(x0, self._lm_head(lm, x0), hidden)

    def _lm_head(self, lm: "DiffusionLM", x0: Tensor) -> Tensor:
        return x0 @ lm.table().T + lm.output["bias"].weight[0]  # type: ignore[index]

    def losses(self, lm: "DiffusionLM", ids: Tensor, t: Tensor) -> dict[str, Tensor]:
        clean = lm.table()[ids]
        sigma_0 = (1 - lm.schedule.alpha_bar(torch.tensor(self.first))).sqrt()
        x0 = clean + sigma_0 * torch.randn_like(clean)
        prediction = lm(lm.noised(x0, t), t)
        wanted = torch.where((t <= self.first)[:, None, None], clean, x0)
        last = lm.schedule.alpha_bar(torch.tensor(1.0))
        return {
            "mse": (wanted - prediction.x0).square().mean(),
            "rounding": F.cross_entropy(self._lm_head(lm, x0).flatten(0, 1), ids.flatten()),
            "L_T": (last * x0.square()).mean(),
        }
