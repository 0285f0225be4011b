"""Fine-tuned experts: language models that learned to write from the target, the paper's oracle (Li et al. 2022, §6.3).

    serialised target, separator, START words END

One causal LM a task, trained on every text with one of its own targets. As published, several targets are a product
of experts: next-word probabilities multiply and are normalised again. Unlike in the released code (LM/run_clm.py) only
the text bears the loss, not prompt and padding, and experts are trained from scratch as all models here.

B rows · P positions of the prompt · T of the text · V vocabulary
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel, LogitsProcessor

from diffcontrol.baselines.lm import BUCKET, NEVER_WRITTEN, continued, crop, gpt2, lengths
from diffcontrol.baselines.prompted import Prompted
from diffcontrol.data.corpus import Corpus
from diffcontrol.method import Method
from diffcontrol.task import ControlTask, Request, Target
from diffcontrol.text import PAD, START
from diffcontrol.training import Steps, seed_of


class Expert(Prompted):
    """p(text | target). Prompts are filled up with blanks to P positions, so that the i-th tag of a target always
    stands at the same distance from the i-th word of the text, and transformers can number positions by itself."""

    def __init__(self, data: Corpus, task: ControlTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, task, optim, model_seed)
        self.network = GPT2LMHeadModel(gpt2(
            model, len(self.ids) + 2, self.prompt_length + data.length,
            initializer_range=model["width"] ** -0.5,  # as the predictor's: prompts are to be matched with texts
        ))  # fmt: skip

    def steps(self, rank: int = 0, world: int = 1) -> Steps:
        """Texts that have a target."""
        train = self.corpus.ids["train"]
        return self._steps([self.asked.carriers], rank, world, lengths=lengths(train), bucket=BUCKET)

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Prompts [B P] of one of each text's own targets, texts [B T]."""
        generator = torch.Generator().manual_seed(seed_of(self.model_seed, *indices))
        targets = self.asked.pick(torch.tensor(indices), generator)
        return self.prompts([self.asked.words[i] for i in targets.tolist()]), crop(super().collate(indices))

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        prompts, texts = batch
        logits = self(prompts, texts[:, :-1]).transpose(1, 2)
        return {"nll": cross_entropy(logits, texts[:, 1:], ignore_index=PAD)}

    def prompts(self, serialised: Sequence[Sequence[str]]) -> Tensor:
        rows = super().prompts(serialised)
        return nn.functional.pad(rows, (0, self.prompt_length - rows.shape[1]), value=self.blank)

    def forward(self, prompts: Tensor, texts: Tensor) -> Tensor:
        """Logits of the word after each position of the text, prompts [B P], texts [B T] → [B T V+…]."""
        logits = self.network(torch.cat([prompts, texts], 1), use_cache=False).logits
        return logits[:, prompts.shape[1] :]

    def asks(self, targets: Sequence[Target]) -> Tensor:
        """Prompts of targets, [B P]."""
        return self.prompts([self.task.serialize(target) for target in targets]).to(self.device)


class ProductProcessor(LogitsProcessor):
    """Multiplies the writing expert's next-word probabilities by those of other experts, and forbids words that no text
    has. A row of prompts for each text that is asked for; its beams, if there are some, lie side by side."""

    def __init__(self, writer: Expert, others: Sequence[tuple[Expert, Tensor]]):
        self.prompt, self.words, self.others = writer.prompt_length, len(writer.corpus.vocabulary), others

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        texts, words = input_ids[:, self.prompt :], scores[:, : self.words].clone()
        words[:, list(NEVER_WRITTEN)] = -torch.inf
        words = words.log_softmax(-1)
        for expert, prompts in self.others:
            expert.token_evaluations += texts.numel()  # read anew at every word: beams change places
            prompts = prompts.repeat_interleave(len(texts) // len(prompts), 0)
            words = words + expert(prompts, texts)[:, -1, : self.words].log_softmax(-1)
        product = torch.full_like(scores, -torch.inf)
        product[:, : self.words] = words.log_softmax(-1)
        return product


class Finetuned(Method):
    """Samples from the product of the tasks' experts, or searches for its likeliest text with `beams` > 1."""

    def __init__(self, experts: Mapping[str, Expert], temperature: float = 1.0, beams: int = 1, chunk: int = 50,
                 seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.experts, self.temperature, self.beams = dict(experts), temperature, beams

    def models(self) -> list[nn.Module]:
        return list(self.experts.values())

    @torch.inference_mode()
    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        asked = [
            (expert, expert.asks([request.targets[name] for request in requests]))
            for name, expert in self.experts.items()
        ]
        (writer, prompts), others = asked[0], asked[1:]
        start = torch.cat([prompts, torch.full_like(prompts[:, :1], START)], 1)
        how: dict[str, Any] = {"temperature": self.temperature}
        if self.beams > 1:
            how = {"do_sample": False, "num_beams": self.beams, "top_k": None}
        length = writer.prompt_length + writer.corpus.length
        ids = continued(writer.network, start, length, generator, [ProductProcessor(writer, others)], **how)
        writer.token_evaluations += self.beams * ids.numel()
        yield [writer.corpus.vocabulary.decode(row) for row in ids[:, writer.prompt_length :].tolist()]
