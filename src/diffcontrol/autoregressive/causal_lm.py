"""An autoregressive language model on words: GPT-2's architecture trained from scratch on the task's data.

Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*; Diffusion-LM (Li et al. 2022) §6.3 puts the
plug-and-play baselines on it. A model of the same kind, trained apart, judges fluency.

B batch · T positions of the longest text in it · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList

from diffcontrol.data.corpus import Corpus
from diffcontrol.text import END, PAD, START, UNK
from diffcontrol.training import Steps, Trainable

NEVER_WRITTEN = (START, UNK, PAD)
BUCKET = 16  # batches sorted by length together


def gpt2(model: Mapping[str, Any], vocabulary: int, positions: int, **kwargs: Any) -> GPT2Config:
    """GPT-2 of `width`, `depth`, `heads`, `dropout`."""
    dropout = model["dropout"]
    return GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=model["width"], n_layer=model["depth"],
        n_head=model["heads"], resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        activation_function="gelu",  # GPT-2's tanh approximation of it takes three times as long on a CPU
        bos_token_id=START, eos_token_id=END, **kwargs,
    )  # fmt: skip


def crop(ids: Tensor) -> Tensor:
    """Without the columns that are PAD in every row."""
    return ids[:, : int((ids != PAD).any(0).sum())]


def lengths(ids: Tensor) -> Tensor:
    """Positions of each text that are not PAD, [B L] → [B]."""
    return (ids != PAD).sum(1)


class CausalLM(Trainable):
    """Reads START words END; the loss is the mean cross-entropy of words and END."""

    def __init__(self, data: Corpus, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.network = GPT2LMHeadModel(gpt2(model, len(data.vocabulary), data.length))
        self.token_evaluations = 0

    def collate(self, indices: list[int]) -> Tensor:
        return crop(super().collate(indices))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"nll": self._negatives(batch).sum() / (batch[:, 1:] != PAD).sum()}

    def weight(self, batch: Tensor) -> Tensor:
        return (batch[:, 1:] != PAD).sum()

    def steps(self) -> Steps:
        train = self.corpus.ids["train"]
        return self._steps([torch.arange(len(train))], lengths=lengths(train), bucket=BUCKET)

    def _negatives(self, ids: Tensor) -> Tensor:
        """−log p of every word and END given what stands before it, 0 at PAD, [B T] → [B T−1]."""
        logits = self.network(ids[:, :-1], use_cache=False).logits  # [B T−1 V]; causal, so PAD at the end is not seen
        return cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD, reduction="none")

    @torch.inference_mode()
    def nll(self, texts: Sequence[Sequence[str]], batch_size: int = 256) -> tuple[list[float], list[int]]:
        """Nats of each text, and the words and END they are the sum over.

        Unknown words count as UNK; an empty text is its END; a text is cut at the corpus' length, as in training.
        """
        self.eval()
        ids = torch.stack([self.corpus.vocabulary.encode(text, self.corpus.length) for text in texts])
        order = lengths(ids).argsort(stable=True)
        sums = torch.zeros(len(ids), dtype=torch.float64)
        for rows in order.split(batch_size):
            batch = crop(ids[rows]).to(self.device)
            sums[rows] = self._negatives(batch).double().sum(1).cpu()
            self.token_evaluations += len(batch) * (batch.shape[1] - 1)
        return sums.tolist(), (lengths(ids) - 1).tolist()

    @torch.inference_mode()
    def generate(self, rows: int, generator: torch.Generator, processors: Sequence[LogitsProcessor] = (),
                 temperature: float = 1.0) -> Tensor:  # fmt: skip
        """Ids [rows T] of START words END PAD…, sampled."""
        self.eval()
        start = torch.full((rows, 1), START, device=self.device)
        ids = continued(self.network, start, self.corpus.length, generator, processors, temperature=temperature)
        self.token_evaluations += rows * (ids.shape[1] - 1)
        return ids


def continued(network: GPT2LMHeadModel, start: Tensor, length: int, generator: torch.Generator,
              processors: Sequence[LogitsProcessor] = (), **options: Any) -> Tensor:  # fmt: skip
    """`start` [B S] continued by transformers up to END or `length` positions, PAD after END; sampled unless `options`
    of a GenerationConfig say otherwise. transformers draws from torch's global generator."""
    config = GenerationConfig(
        **{"do_sample": True, "max_length": length, "bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD,
           "top_k": 0} | options  # transformers' own default is 50
    )  # fmt: skip
    with torch.random.fork_rng([start.device] if start.device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        return network.generate(  # type: ignore[return-value]
            start, generation_config=config, attention_mask=torch.ones_like(start),
            logits_processor=LogitsProcessorList(processors),
        )  # fmt: skip
