"""An LSTM language model, the judge of fluency: of an architecture that no method uses, so that none is judged by a
twin of its own.

Zaremba et al. 2014, *Recurrent Neural Network Regularization*: layers of LSTM with dropout on what goes up, none on
what goes on in time. Press & Wolf 2017, *Using the Output Embedding to Improve Language Models*: words have the same
vectors at the input and at the output. Jozefowicz et al. 2015: the forget gates start open.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from diffcontrol.data.corpus import Corpus
from diffcontrol.likelihood import BUCKET, cross_entropies, mean, summed
from diffcontrol.text import PAD, crop, lengths
from diffcontrol.training import Steps, Trainable


class Recurrent(nn.Module):
    """Word ids [B T] → logits of the word that follows each, [B T V]."""

    def __init__(self, vocabulary: int, width: int, depth: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, depth, batch_first=True, dropout=dropout if depth > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # as they are the output's weights, too
        for name, bias in self.lstm.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(bias)
            if name.startswith("bias_ih"):
                nn.init.ones_(bias[width : 2 * width])  # gates: input, forget, cell, output

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.dropout(self.embedding(ids)))
        return linear(self.dropout(states), self.embedding.weight, self.bias)


class LstmLM(Trainable):
    """Reads START words END; the loss is the mean cross-entropy of words and END."""

    def __init__(self, data: Corpus, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.network = Recurrent(len(data.vocabulary), model["width"], model["depth"], model["dropout"])

    def collate(self, indices: list[int]) -> Tensor:
        return crop(super().collate(indices))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"nll": mean(self._negatives(batch), batch)}

    def weight(self, batch: Tensor) -> Tensor:
        return (batch[:, 1:] != PAD).sum()

    def steps(self) -> Steps:
        train = self.corpus.ids["train"]
        return self._steps([torch.arange(len(train))], lengths=lengths(train), bucket=BUCKET)

    def _negatives(self, ids: Tensor) -> Tensor:
        """−log p of every word and END given what stands before it, 0 at PAD, [B T] → [B T−1]."""
        return cross_entropies(self.network(ids[:, :-1]), ids)

    @torch.inference_mode()
    def nll(self, texts: Sequence[Sequence[str]], batch_size: int = 256) -> tuple[list[float], list[int]]:
        """Nats of each text, and the words and END they are the sum over.

        Unknown words count as UNK; an empty text is its END; a text is cut at the corpus' length, as in training.
        """
        self.eval()
        nats, tokens, _ = summed(self._negatives, texts, self.corpus, self.device, batch_size)
        return nats, tokens
