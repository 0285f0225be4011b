"""Language models that read texts from left to right, and how likely texts are under them: what such models share.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.text import PAD, crop, lengths
from diffcontrol.training import Trainable

BUCKET = 16  # batches sorted by length together


class LeftToRight(Trainable):
    """Reads START words END; the loss is the mean cross-entropy of words and END."""

    def __init__(self, data: Corpus, optim: Mapping[str, Any], model_seed: int = 0):
        super().__init__(data, optim, model_seed)
        self.token_evaluations = 0

    def logits(self, ids: Tensor) -> Tensor:
        """Of the word that follows each position, ids [B T] → [B T V]."""
        raise NotImplementedError

    def collate(self, indices: list[int]) -> Tensor:
        return crop(super().collate(indices))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"nll": self._negatives(batch).sum() / self.weight(batch)}

    def weight(self, batch: Tensor) -> Tensor:
        return (batch[:, 1:] != PAD).sum()

    def steps(self) -> Steps:
        train = self.corpus.ids["train"]
        return self._steps([torch.arange(len(train))], lengths=lengths(train), bucket=BUCKET)

    def _negatives(self, ids: Tensor) -> Tensor:
        """−log p of every word and END given what stands before it, 0 at PAD, [B T] → [B T−1]."""
        logits = self.logits(ids[:, :-1])
        return cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD, reduction="none")

    @torch.inference_mode()
    def nll(self, texts: Sequence[Sequence[str]], batch_size: int = 256) -> tuple[list[float], list[int]]:
        """Nats of each text, and the words and END they are the sum over.

        Unknown words count as UNK; an empty text is its END; a text is cut at the corpus' length, as in training.
        """
        self.eval()
        ids = torch.stack([self.corpus.vocabulary.encode(text, self.corpus.length) for text in texts])
        sums = torch.zeros(len(ids), dtype=torch.float64)
        for rows in lengths(ids).argsort(stable=True).split(batch_size):
            found = self._negatives(crop(ids[rows]).to(self.device))
            sums[rows] = found.double().sum(1).cpu()
            self.token_evaluations += found.numel()
        return sums.tolist(), (lengths(ids) - 1).tolist()
