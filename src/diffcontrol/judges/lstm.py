"""An LSTM language model, the judge of fluency: of an architecture that no method uses, so that none is judged by a
twin of its own.

Zaremba et al. 2014, *Recurrent Neural Network Regularization*: layers of LSTM with dropout on what goes up, none on
what goes on in time. Press & Wolf 2017, *Using the Output Embedding to Improve Language Models*: words have the same
vectors at the input and at the output. Jozefowicz et al. 2015: the forget gates start open.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from diffcontrol.allowed import Rules
from diffcontrol.data.corpus import Corpus
from diffcontrol.likelihood import LeftToRight
from diffcontrol.training import sizes


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


class LstmLM(LeftToRight):
    """The language model of a `Recurrent` network."""

    allowed: ClassVar[Rules] = {"model": sizes("width", "depth", "dropout")}

    def __init__(self, data: Corpus, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.network = Recurrent(len(data.vocabulary), model["width"], model["depth"], model["dropout"])

    def logits(self, ids: Tensor) -> Tensor:
        return self.network(ids)
