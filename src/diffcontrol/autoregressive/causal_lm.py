"""An autoregressive language model on words: GPT-2's architecture trained from scratch on the task's data.

Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*; Diffusion-LM (Li et al. 2022) §6.3 puts the
plug-and-play baselines on it.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList

from diffcontrol.allowed import Rules
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.likelihood import LeftToRight
from diffcontrol.text import END, PAD, START, UNK
from diffcontrol.training import sizes

NEVER_WRITTEN = (START, UNK, PAD)


def gpt2(model: Mapping[str, Any], vocabulary: int, positions: int, **kwargs: Any) -> GPT2Config:
    """GPT-2 of `width`, `depth`, `heads`, `dropout`."""
    dropout = model["dropout"]
    return GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=model["width"], n_layer=model["depth"],
        n_head=model["heads"], resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        activation_function="gelu",  # GPT-2's tanh approximation of it takes three times as long on a CPU
        bos_token_id=START, eos_token_id=END, **kwargs,
    )  # fmt: skip


def matrices(network: GPT2LMHeadModel) -> list[Tensor]:
    """The weight matrices of its hidden layers, which Muon may train."""
    return [weight for weight in network.transformer.h.parameters() if weight.ndim == 2]


class Sampling(LogitsProcessor):
    """Leaves each row one next word, drawn from its own stream, where transformers would draw all from one. It is the
    last processor; `temperature` divides what the others made of the logits."""

    def __init__(self, draws: Draws, temperature: float = 1.0):
        self.draws, self.temperature = draws, temperature

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        words = self.draws.categorical(scores / self.temperature)
        return torch.full_like(scores, -torch.inf).scatter(1, words[:, None], 0.0)


SIZES_OF_GPT2 = sizes("width", "depth", "heads", "dropout")


class CausalLM(LeftToRight):
    """The language model of a `gpt2` network."""

    allowed: ClassVar[Rules] = {"model": SIZES_OF_GPT2}

    def __init__(self, data: Corpus, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.network = GPT2LMHeadModel(gpt2(model, len(data.vocabulary), data.length))

    def hidden(self) -> list[Tensor]:
        return matrices(self.network)

    def logits(self, ids: Tensor) -> Tensor:
        return self.network(ids, use_cache=False).logits  # causal, so PAD at the end is not seen

    @torch.inference_mode()
    def generate(self, draws: Draws, processors: Sequence[LogitsProcessor] = (), temperature: float = 1.0) -> Tensor:
        """Ids [R T] of START words END PAD…, sampled, as many texts as there are streams."""
        self.eval()
        start = torch.full((len(draws), 1), START, device=self.device)
        processors = [*processors, Sampling(draws, temperature)]
        ids = continued(self.network, start, self.corpus.length, processors)
        self.token_evaluations += len(draws) * (ids.shape[1] - 1)
        return ids


def continued(network: GPT2LMHeadModel, start: Tensor, length: int, processors: Sequence[LogitsProcessor] = (),
              seen: Tensor | None = None, num_beams: int = 1) -> Tensor:  # fmt: skip
    """`start` [B S] continued by transformers up to END or `length` positions, PAD after END, by the likeliest words
    that the processors leave: `Sampling`, as the last of them, leaves one. `seen` [B S] is 0 at padding."""
    config = GenerationConfig(
        do_sample=False, num_beams=num_beams, length_penalty=1.0, max_length=length,
        bos_token_id=START, eos_token_id=END, pad_token_id=PAD,
    )  # fmt: skip
    return network.generate(  # type: ignore[return-value]
        start, generation_config=config, attention_mask=torch.ones_like(start) if seen is None else seen,
        logits_processor=LogitsProcessorList(processors),
    )  # fmt: skip
