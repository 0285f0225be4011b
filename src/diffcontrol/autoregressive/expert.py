"""A fine-tuned expert: a language model that learned to write from the target, the paper's oracle.

Li et al. 2022, §6.3:

    serialised target, separator, START words END

One causal LM for each task, trained on every text with one of its own targets. Unlike in the released code
(LM/run_clm.py) only the text bears the loss, not prompt and padding, and experts are trained from scratch as all models
here.

B rows · P positions of the prompt · T of the text · V vocabulary
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel

from diffcontrol.allowed import Rules
from diffcontrol.autoregressive.causal_lm import SIZES_OF_GPT2, gpt2, matrices
from diffcontrol.autoregressive.prompted import Prompted
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.likelihood import BUCKET
from diffcontrol.task import ControlTask
from diffcontrol.text import PAD, crop, lengths


class Expert(Prompted):
    """p(text | target). All prompts take P positions, so that transformers can number positions by itself."""

    allowed: ClassVar[Rules] = {"model": SIZES_OF_GPT2}

    def __init__(self, data: Corpus, task: ControlTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, task, optim, model_seed)
        self.network = GPT2LMHeadModel(gpt2(
            model, len(self.ids) + 2, self.prompt_length + data.length,
            initializer_range=model["width"] ** -0.5,  # as the predictor's: prompts are to be matched with texts
        ))  # fmt: skip

    def hidden(self) -> list[Tensor]:
        return matrices(self.network)

    def steps(self) -> Steps:
        """Texts that have a target."""
        train = self.corpus.ids["train"]
        return self._steps([self.asked.carriers], lengths=lengths(train), bucket=BUCKET)

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Prompts [B P] of one of each text's own targets, texts [B T]."""
        return self.own(indices), crop(super().collate(indices))

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        prompts, texts = batch
        logits = self(prompts, texts[:, :-1]).transpose(1, 2)
        return {"nll": cross_entropy(logits, texts[:, 1:], ignore_index=PAD)}

    def weight(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (batch[1][:, 1:] != PAD).sum()

    def forward(self, prompts: Tensor, texts: Tensor) -> Tensor:
        """Logits of the word after each position of the text, prompts [B P], texts [B T] → [B T V+…]."""
        logits = self.network(torch.cat([prompts, texts], 1), use_cache=False).logits
        return logits[:, prompts.shape[1] :]
