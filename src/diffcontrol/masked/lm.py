"""A masked (absorbing-state) diffusion language model: MDLM, Sahoo et al. 2024, 2406.07524.

Every word of a text x is masked by time t with probability 1 − α_t and then stays masked; here α_t = 1 − t (their
log-linear schedule). The network says which word stands in each masked place (their parameterisation SUBS: no
probability for the mask, and a word that shows keeps its place), and the negative ELBO in continuous time (eq. 10) is

    −log p(x)  ≤  E_{t ~ U(0, 1)} E_{z_t}  1/t · Σ over masked places of −log p(x_l | z_t)

so the model is a mean of masked language models over all shares of masked words. PAD and END are words of the data, as
for the continuous model. The network reads no time: how much is masked stands in its input.

B batch · L positions · D embedding width · V vocabulary; the mask is the word V
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcontrol.allowed import Rules
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import IMPOSSIBLE, Prediction
from diffcontrol.diffusion.lm import cropped, windowed
from diffcontrol.diffusion.readout import Words
from diffcontrol.diffusion.schedule import stratified
from diffcontrol.diffusion.transformer import Transformer
from diffcontrol.shares import drawn, rand
from diffcontrol.text import PAD
from diffcontrol.training import SIZES, Trainable, sizes


class MaskedLM(Trainable):
    """The transformer of the continuous model on word vectors, one of them the mask's.

    `model` and `window` are those of `DiffusionLM`. A noisy text is a tensor of weights [B L V+1] of the words and the
    mask, one-hot unless someone differentiates with respect to it.
    """

    low = 1e-3  # the least time of training, as the weight 1/t has no bound (released sampling_eps)

    allowed: ClassVar[Rules] = {"model": sizes(*SIZES)}

    def __init__(self, data: Corpus, model: Mapping[str, Any], optim: Mapping[str, Any], window: int = 0,
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        inner = dict(model)
        D, words = inner.pop("embedding"), len(data.vocabulary)
        self.embedding = nn.Embedding(words + 1, D)
        self.transformer = Transformer(D, positions=data.length, **inner)
        self.readout = Words(inner["width"], words)
        self.width, self.length, self.window, self.mask = inner["width"], data.length, window, words
        self.inputs = words + 1
        self.token_evaluations = 0

    def table(self) -> Tensor:
        """Word vectors [V D], without the mask's."""
        return self.embedding.weight[:-1]

    def one_hot(self, ids: Tensor) -> Tensor:
        """ids [B L] of words and the mask → [B L V+1]."""
        return F.one_hot(ids, self.mask + 1).to(self.embedding.weight.dtype)

    def hidden(self) -> list[Tensor]:
        return self.transformer.matrices()

    def times(self, size: int) -> Tensor:
        """Stratified times [size] in [low, 1], so that the loss of a batch varies little."""
        return drawn(lambda n: stratified(n, self.low), size).to(self.device)

    def noisy(self, ids: Tensor, t: Tensor) -> Tensor:
        """A draw of the masked texts z_t [B L V+1] of word ids [B L] at t [B]."""
        return self.masked(ids, rand(ids) < t[:, None])

    def masked(self, ids: Tensor, masked: Tensor) -> Tensor:
        """Word ids [B L] with some of them masked, [B L V+1]."""
        return self.one_hot(ids.masked_fill(masked, self.mask))

    def forward(self, z: Tensor) -> Prediction:
        """z [B L V+1] → Prediction, in which a word that shows is certain and x̂₀ is its vector.

        x̂₀ is linear in the weights of a place as far as that place's own input goes, so that its gradient at a mask
        compares each word's vector with the vector expected there.
        """
        self.token_evaluations += z.shape[0] * z.shape[1]
        untimed = z.new_zeros(len(z))
        hidden = self.transformer(z @ self.embedding.weight, untimed)
        prediction = self.readout(hidden, None, self.table())
        shown, masked = z[..., :-1], z[..., -1:]
        return replace(
            prediction,
            x0=shown @ self.table() + masked * prediction.x0,
            logits=torch.where(masked > 0.5, prediction.logits, (1 - shown) * IMPOSSIBLE),
        )

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """What it says of a noisy text; the time is not read."""
        return self(x_t)

    def surprise(self, ids: Tensor, z: Tensor) -> Tensor:
        """−log p of the words of ids [B L] that are masked in z, summed, [B]. A word that shows costs nothing."""
        return F.cross_entropy(self(z).logits.transpose(1, 2), ids, reduction="none").sum(1)

    def losses(self, ids: Tensor) -> dict[str, Tensor]:
        """The bound in nats for each position."""
        t = self.times(len(ids))
        return {"nelbo": (self.surprise(ids, self.noisy(ids, t)) / t).mean() / ids.shape[1]}

    @torch.no_grad()
    def bound(self, texts: Sequence[Sequence[str]], draws: int = 64, seed: int = 0) -> tuple[list[float], list[int]]:
        """An upper bound of each text's −log p in nats, and the words and END that it is the sum over, as
        `CausalLM.nll` counts them: nats a word are the quotient. PAD adds what it costs to know where a text ends.

        Integrated over t the bound is the mean, over the number n of masked places, of L/n times the surprise at n
        random ones; its draws vary far less than those at random times.
        """
        self.eval()
        ids = torch.stack([self.corpus.vocabulary.encode(text, self.corpus.length) for text in texts]).to(self.device)
        L, generator = ids.shape[1], torch.Generator().manual_seed(seed)
        total = torch.zeros(len(ids), dtype=torch.float64, device=self.device)
        for draw in range(draws):
            n = 1 + (L * (draw + torch.rand(len(ids), 1, generator=generator)) / draws).long().clamp(max=L - 1)
            masked = (torch.rand(ids.shape, generator=generator).argsort(1).argsort(1) < n).to(self.device)
            total += L / n[:, 0].to(self.device) * self.surprise(ids, self.masked(ids, masked)).double()
        return (total / draws).tolist(), ((ids != PAD).sum(1) - 1).tolist()

    def steps(self) -> Steps:
        return windowed(self)

    def collate(self, indices: list[int]) -> Tensor:
        return cropped(self.corpus.ids["train"][indices], self.window)
