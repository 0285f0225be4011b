"""A diffusion language model that reads the target, and classifier-free guidance with it.

    serialised target, separator | START words END PAD …
          without noise          |     noisy, x_t

Prompt and text are one sequence, of which only the text is noisy, predicted and scored (DiffuSeq, Gong et al. 2022,
2210.08933). In a share of the training rows the prompt is dropped, so that the same network also knows texts of any
target, and the two answers are combined while it writes (Ho & Salimans 2022, 2207.12598, eq. 6; for text CDCD, Dieleman
et al. 2022, 2211.15089, §4.3):

    x̂₀ = û + w (ĉ − û)        û without the prompt, ĉ with it

and so is it of ε, which is linear in x̂₀ at a given x_t. Several tasks, each with a network of its own, are a product:

    x̂₀ = mean_k û_k + Σ_k w_k (ĉ_k − û_k)

B batch · P positions of the prompt · L of the text · D embedding width · V vocabulary
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffcontrol import shares
from diffcontrol.allowed import Rules, number
from diffcontrol.autoregressive.prompted import Prompted
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import Denoiser, Prediction
from diffcontrol.diffusion.lm import DiffusionLM, cropped, windowed
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Target


class ConditionalLM(Prompted):
    """p(text | target), and p(text) where the prompt is dropped.

    It is `lm` trained further: transformer and read-out begin as the language model's, and the word vectors stay the
    language model's, so that the networks of several tasks see the same x_t. Words of prompts that no text has get
    vectors of their own. drop: share of the training rows whose prompt is blank.
    """

    allowed: ClassVar[Rules] = {"drop": number(0, below=1)}

    def __init__(self, data: Corpus, task: ControlTask, lm: DiffusionLM, optim: Mapping[str, Any], drop: float = 0.1,
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, task, optim, model_seed)
        if data.vocabulary.words != lm.corpus.vocabulary.words:
            raise Refused(f"conditional: the texts of {type(task).__name__} have other words than those that the "
                          "diffusion LM was trained on; both need the same data")  # fmt: skip
        self.lm, self.drop, self.window, self.length = lm, drop, lm.window, lm.length
        self.prompt_vectors = nn.Embedding(self.blank + 1 - len(data.vocabulary), lm.embedding.embedding_dim)
        self.transformer, self.readout = deepcopy(lm.transformer), deepcopy(lm.readout)
        # as positions of texts begin; drawn on the CPU, whose random numbers the store seeds
        before = 0.5 * torch.randn(self.prompt_length, lm.width).to(lm.device)
        self.transformer.positions = nn.Parameter(torch.cat([before, lm.transformer.positions.detach()]))
        for network in (self.transformer, self.readout):
            network.requires_grad_(True)  # the language model's own weights are frozen

    def hidden(self) -> list[Tensor]:
        return self.transformer.matrices()

    def running(self) -> list[nn.Module]:
        """Of the language model that it began as only the word vectors."""
        return [self.transformer, self.readout, self.prompt_vectors, self.lm.embedding]

    def steps(self) -> Steps:
        """Texts that have a target, in the language model's windows."""
        return windowed(self, self.asked.carriers)

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Prompts [B P] of one of each text's own targets, texts [B L]."""
        return self.own(indices), cropped(self.corpus.ids["train"][indices], self.window)

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Those of the language model's objective, of the text alone."""
        prompts, ids = batch
        dropped = shares.rand(prompts[:, :1]) < self.drop
        given = Given(self, torch.where(dropped, self.blank, prompts))
        return self.lm.objective.losses(given, ids, self.lm.times(len(ids)))

    def forward(self, prompts: Tensor, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        """Prompts [B P], x_t of the text [B L D], t [B] → Prediction of the text."""
        inputs, likelihood = self.lm.channels(x_t, t, previous)
        table = self.lm.table()
        vectors = torch.cat([table, self.prompt_vectors.weight])[prompts]
        shown = vectors.repeat(1, 1, inputs.shape[-1] // table.shape[1])  # known words, in whatever channel
        self.token_evaluations += prompts.numel() + x_t.shape[0] * x_t.shape[1]
        hidden = self.transformer(torch.cat([shown, inputs], 1), t)[:, prompts.shape[1] :]
        return self.readout(hidden, likelihood, table)

    def given(self, targets: Sequence[Target]) -> "Given":
        """The denoiser of texts of these targets, one for each row."""
        return Given(self, self.asks(targets))

    def free(self, rows: int) -> "Given":
        """The denoiser without prompts."""
        return Given(self, torch.full((rows, self.prompt_length), self.blank, device=self.device))


class Given:
    """The denoiser of texts that a conditional model is for given prompts [B P]."""

    def __init__(self, model: ConditionalLM, prompts: Tensor):
        self.model, self.prompts = model, prompts
        self.schedule, self.low, self.readout = model.lm.schedule, model.lm.low, model.readout

    def table(self) -> Tensor:
        return self.model.lm.table()

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """A draw of x_t given x₀ [B L D] of the text at t [B]."""
        return self.model.lm.noised(x0, t)

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        return self.model(self.prompts, x_t, t, previous)


@dataclass(frozen=True)
class Combined(Prediction):
    """A linear combination of predictions; `parts` are what each network said itself, for its self-conditioning."""

    parts: tuple[Prediction, ...] = ()

    def cropped(self, positions: int) -> "Combined":
        whole, parts = super().cropped(positions), tuple(part.cropped(positions) for part in self.parts)
        return Combined(whole.x0, whole.logits, whole.hidden, parts)


class Combination:
    """Σ_j a_j · x̂₀ of several denoisers of the same x_t, Σ_j a_j = 1, and of the logarithms of their probabilities
    likewise: a product of powers. Hidden states are those of the first.

    terms: (a_j, denoiser); those with a_j = 0 are not run.
    """

    def __init__(self, terms: Sequence[tuple[float, Denoiser]]):
        self.terms = [(factor, denoiser) for factor, denoiser in terms if abs(factor) > 1e-9]
        self.schedule, self.low = terms[0][1].schedule, terms[0][1].low

    def table(self) -> Tensor:
        return self.terms[0][1].table()

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        before = previous.parts if isinstance(previous, Combined) else [None] * len(self.terms)
        parts = tuple(denoiser(x_t, t, own) for (_, denoiser), own in zip(self.terms, before, strict=True))
        factors = [factor for factor, _ in self.terms]
        x0 = sum(a * part.x0 for a, part in zip(factors, parts, strict=True))
        logits = sum(a * part.logits.log_softmax(-1) for a, part in zip(factors, parts, strict=True))
        return Combined(x0, logits, parts[0].hidden, parts)  # type: ignore[arg-type]


def classifier_free(guided: Sequence[tuple[float, Denoiser, Denoiser]]) -> Combination:
    """mean_k û_k + Σ_k w_k (ĉ_k − û_k) for (w_k, ĉ_k, û_k): 0 is unconditional, of one task 1 is conditional."""
    return Combination([
        term
        for weight, given, free in guided
        for term in ((weight, given), (1 / len(guided) - weight, free))
    ])  # fmt: skip
