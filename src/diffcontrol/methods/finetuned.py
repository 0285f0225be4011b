"""Fine-tuned experts: language models that learned to write from the target, the paper's oracle (Li et al. 2022, §6.3).

    serialised target, separator, START words END

One causal LM a task, trained on every text with one of its own targets. As published, several targets are a product
of experts: next-word probabilities multiply and are normalised again. Unlike in the released code (LM/run_clm.py) only
the text bears the loss, not prompt and padding, and experts are trained from scratch as all models here.

B rows · P positions of the prompt · T of the text · V vocabulary
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, Sampling, continued
from diffcontrol.autoregressive.expert import Expert
from diffcontrol.autoregressive.prompted import check_targets
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress
from diffcontrol.task import ControlTask, Request
from diffcontrol.text import START


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
            prompts = prompts.repeat_interleave(len(texts) // len(prompts), 0)
            expert.token_evaluations += prompts.numel() + texts.numel()  # read anew at every word: beams change places
            words = words + expert(prompts, texts)[:, -1, : self.words].log_softmax(-1)
        product = torch.full_like(scores, -torch.inf)
        product[:, : self.words] = words.log_softmax(-1)
        return product


class Finetuned(Method):
    """Samples from the product of the tasks' experts, or with `beams` > 1 searches for the text with the
    highest mean log-probability a word."""

    def __init__(self, experts: Mapping[str, Expert], temperature: float = 1.0, beams: int = 1, chunk: int = 50,
                 seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.experts, self.temperature, self.beams = dict(experts), temperature, beams

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        check_targets("finetuned", tasks, corpus)

    def models(self) -> list[nn.Module]:
        return list(self.experts.values())

    @torch.inference_mode()
    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        asked = [
            (expert, expert.asks([request.targets[name] for request in requests]))
            for name, expert in self.experts.items()
        ]
        (writer, prompts), others = asked[0], asked[1:]
        start = torch.cat([prompts, torch.full_like(prompts[:, :1], START)], 1)
        length = writer.prompt_length + writer.corpus.length
        processors: list[LogitsProcessor] = [ProductProcessor(writer, others)]
        if self.beams == 1:
            processors.append(Sampling(draws, self.temperature))
        ids = continued(writer.network, start, length, processors, num_beams=self.beams)
        writer.token_evaluations += self.beams * ids.numel()
        return [writer.corpus.vocabulary.decode(row) for row in ids[:, writer.prompt_length :].tolist()]
