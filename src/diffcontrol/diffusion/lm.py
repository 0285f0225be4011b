"""DiffusionLM: word vectors, denoising network and read-out as one LightningModule, itself a Denoiser."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcontrol.allowed import Rules
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.objective import Objective
from diffcontrol.diffusion.schedule import NoiseSchedule, stratified
from diffcontrol.diffusion.transformer import Transformer
from diffcontrol.shares import drawn, randn_like
from diffcontrol.text import PAD
from diffcontrol.training import SIZES, Trainable, sizes


class DiffusionLM(Trainable):
    """Diffusion over learned word vectors, START, END, UNK and PAD among them (paper §4).

    `model`: embedding (D), width (H), depth, heads, dropout. `window`: three of four steps read only texts that fit
    into that many positions, cropped to it; the fourth reads any text at full length, so that at full length the
    lengths are those of the data. 0 always reads all positions.
    """

    log_frequency: Tensor  # of the words in the training texts, [V]

    allowed: ClassVar[Rules] = {"model": sizes(*SIZES)}

    def __init__(self, data: Corpus, model: Mapping[str, Any], objective: Objective, schedule: NoiseSchedule,
                 optim: Mapping[str, Any], window: int = 0, model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.objective, self.schedule, self.window = objective, schedule, window
        inner = dict(model)
        D, words = inner.pop("embedding"), len(data.vocabulary)
        self.embedding = nn.Embedding(words, D)  # N(0, 1)
        conditioned = objective.self_conditioning > 0
        self.transformer = Transformer(D * (1 + objective.likelihood + conditioned), positions=data.length, **inner)
        self.readout = objective.readout(inner["width"], D, words)
        self.width, self.conditioned, self.length = inner["width"], conditioned, data.length
        self.inputs = D
        self.low = schedule.low(energy=D, choices=words)
        self.token_evaluations = 0
        counts = torch.bincount(data.ids["train"].flatten(), minlength=words) + 1.0
        self.register_buffer("log_frequency", (counts / counts.sum()).log(), persistent=False)

    def table(self) -> Tensor:
        """Word vectors [V D], of norm √D where the objective asks for it."""
        table = self.embedding.weight
        return F.normalize(table, dim=-1) * table.shape[1] ** 0.5 if self.objective.normalised else table

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t given x₀ [B L D] at t [B]."""
        alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * randn_like(x0)

    def noisy(self, ids: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t of word ids [B L] at t [B], [B L D]."""
        return self.noised(self.table()[ids], t)

    def log_likelihood(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log N(x_t; √ᾱ·E_w, 1−ᾱ) of every word up to a constant, for vectors of equal norm, [B L V]."""
        alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
        return (alpha_bar.sqrt() / (1 - alpha_bar).clamp(min=1e-4) * x_t) @ self.table().T  # ᾱ(0) is 1

    def forward(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        """x_t [B L D], t [B] → Prediction."""
        inputs, likelihood = self.channels(x_t, t, previous)
        self.token_evaluations += x_t.shape[0] * x_t.shape[1]
        return self.readout(self.transformer(inputs, t), likelihood, self.table())

    def channels(self, x_t: Tensor, t: Tensor, previous: Prediction | None) -> tuple[Tensor, Tensor | None]:
        """What the transformer reads at every position, vectors of width D side by side [B L …]: x_t; the word vector
        that is expected from x_t alone; x̂₀ of the step before. And the likelihood of every word [B L V], if used."""
        inputs, likelihood = [x_t], None
        if self.objective.likelihood:
            likelihood = self.log_likelihood(x_t, t)
            inputs.append((likelihood + self.log_frequency).softmax(-1) @ self.table())
        if self.conditioned:
            inputs.append(torch.zeros_like(x_t) if previous is None else previous.x0)
        return torch.cat(inputs, -1), likelihood

    def predict(self, x_t: Tensor, t: Tensor) -> Prediction:
        """What it says of x_t; with self-conditioning half of the time, as while it writes there is a step before."""
        prediction = self(x_t, t)
        if self.conditioned and torch.rand(()) < 0.5:
            prediction = self(x_t, t, prediction)
        return prediction

    def times(self, size: int) -> Tensor:
        """Stratified times [size] in [low, 1]."""
        return drawn(lambda n: stratified(n, self.low), size).to(self.device)

    def steps(self) -> Steps:
        return windowed(self)

    def hidden(self) -> list[Tensor]:
        return self.transformer.matrices()

    def collate(self, indices: list[int]) -> Tensor:
        return cropped(self.corpus.ids["train"][indices], self.window)

    def losses(self, ids: Tensor) -> dict[str, Tensor]:
        return self.objective.losses(self, ids, self.times(len(ids)))


def windowed(module: Any, texts: Tensor | None = None) -> Steps:
    """Steps whose texts fit into `module.window` three times out of four, where at least half of the texts fit: fewer
    would be learned by heart. texts: indices of those that may be read [N]; None: all of them."""
    train = module.corpus.ids["train"]
    everything = torch.arange(len(train)) if texts is None else texts
    fits = everything[(train[everything][:, module.window :] == PAD).all(-1)]
    saves = 0 < module.window < module.corpus.length and 2 * len(fits) >= len(everything)
    return module._steps([everything, fits, fits, fits] if saves else [everything])


def cropped(ids: Tensor, window: int) -> Tensor:
    """ids [B L] cut to the window where all of them fit into it."""
    return ids[:, :window] if window and (ids[:, window:] == PAD).all() else ids
