"""Read-outs: what the last hidden states say of the words. A read-out owns the output layers of a diffusion LM.

B batch · L positions · D embedding width · H hidden width · V vocabulary
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from diffcontrol.diffusion.denoiser import Prediction


class Readout(nn.Module):
    """hidden [B L H], what x_t alone says of each word (or None), word vectors [V D] → Prediction."""

    @abstractmethod
    def forward(self, hidden: Tensor, likelihood: Tensor | None, table: Tensor) -> Prediction: ...


class Words(Readout):
    """Logits of every word; x̂₀ is the expected word vector (as in CDCD, Dieleman et al. 2022).

    By Bayes p(w | x_t) ∝ p(w | the other positions) · N(x_t; √ᾱ·E_w, 1−ᾱ). The second factor is known exactly: with
    vectors of equal norm its logarithm is √ᾱ/(1−ᾱ)·⟨x_t, E_w⟩ up to a constant, the `likelihood` [B L V]. It is added
    to the logits, so that the network learns the first factor alone.
    """

    def __init__(self, width: int, words: int):
        super().__init__()
        self.layer = nn.Linear(width, words)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, hidden: Tensor, likelihood: Tensor | None, table: Tensor) -> Prediction:
        logits = self.layer(hidden).float()
        if likelihood is not None:
            logits = logits + likelihood
        return Prediction(logits.softmax(-1) @ table, logits, hidden)


class Vectors(Readout):
    """x̂₀ itself, from which lm_head reads the words: tied to the word vectors, with a bias of its own (released
    transformer_model2.py, logits_mode 1)."""

    def __init__(self, width: int, embedding: int, words: int):
        super().__init__()
        self.down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, embedding))
        self.bias = nn.Parameter(torch.zeros(words))  # a vector, so that weight decay leaves it alone

    def lm_head(self, x0: Tensor, table: Tensor) -> Tensor:
        """Logits of the words, x₀ [B L D] → [B L V]."""
        return x0 @ table.T + self.bias

    def forward(self, hidden: Tensor, likelihood: Tensor | None, table: Tensor) -> Prediction:
        x0 = self.down(hidden)
        return Prediction(x0, self.lm_head(x0, table), hidden)
