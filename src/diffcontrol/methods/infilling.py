"""Autoregressive infilling: a causal LM that has read both contexts writes the middle, or one that reads the left only.

Donahue et al. 2020, *Enabling Language Models to Fill in the Blanks*; Li et al. 2022 §6.4 train theirs on the sentences
before, after and between, in this order, and take "Left-only" from Qin et al. 2020.

B batch · T positions of the longest row
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GPT2LMHeadModel

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.autoregressive.infiller import Infiller
from diffcontrol.data.corpus import Corpus
from diffcontrol.method import Method, Progress
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, GapTask, Request
from diffcontrol.text import END, PAD, START


class Gaps(Method):
    """Writes what stands in the gap that the first of the tasks with gaps leaves; nothing else is asked of it."""

    def __init__(self, tasks: Mapping[str, ControlTask], chunk: int, seed: int):
        super().__init__(chunk, seed)
        self.name, self.task = next((name, task) for name, task in tasks.items() if isinstance(task, GapTask))

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        if not any(isinstance(task, GapTask) for task in tasks.values()):
            raise Refused(
                f"{cls.__name__} writes between given words, which {' and '.join(tasks)} does not ask for; "
                "task=infilling does"
            )

    @abstractmethod
    def middles(self, targets: Sequence[Any], generator: torch.Generator) -> list[list[str]]:
        """Words for the gap of each target."""

    def write(self, requests: Sequence[Request], generator: torch.Generator, progress: Progress) -> list[list[str]]:
        targets = [request.targets[self.name] for request in requests]
        texts = []
        for target, middle in zip(targets, self.middles(targets, generator), strict=True):
            left, right = self.task.gap(target)
            texts.append([*left, *middle, *right])
        return texts


class Infill(Gaps):
    """Reads both contexts, then writes."""

    def __init__(self, tasks: Mapping[str, ControlTask], infillers: Mapping[str, Infiller], chunk: int = 50,
                 seed: int = 0):  # fmt: skip
        super().__init__(tasks, chunk, seed)
        self.infiller = infillers[self.name]

    def models(self) -> list[nn.Module]:
        return [self.infiller]

    def middles(self, targets: Sequence[Any], generator: torch.Generator) -> list[list[str]]:
        infiller = self.infiller
        never = [*NEVER_WRITTEN, *range(len(infiller.corpus.vocabulary), infiller.separator + 1)]
        prompts = [infiller.prompt(target) for target in targets]
        rows, cost = continued(infiller.network, prompts, infiller.corpus.length, generator, never)
        infiller.token_evaluations += cost
        return [infiller.corpus.vocabulary.decode(row) for row in rows]


class LeftOnly(Gaps):
    """Goes on from the left context, and stops where the middle has the length asked for, or where the text ends."""

    def __init__(self, tasks: Mapping[str, ControlTask], lm: CausalLM, chunk: int = 50, seed: int = 0):
        super().__init__(tasks, chunk, seed)
        self.lm = lm

    def models(self) -> list[nn.Module]:
        return [self.lm]

    def middles(self, targets: Sequence[Any], generator: torch.Generator) -> list[list[str]]:
        vocabulary, most = self.lm.corpus.vocabulary, self.lm.corpus.length
        unknown = vocabulary.ids["UNK"]
        prompts = [[START, *(vocabulary.ids.get(word, unknown) for word in self.task.gap(t)[0])] for t in targets]
        room = most - max(map(len, prompts))
        rows, cost = continued(self.lm.network, prompts, max(1, room), generator, NEVER_WRITTEN)
        self.lm.token_evaluations += cost
        return [vocabulary.decode(row)[: self.task.longest(t)] for row, t in zip(rows, targets, strict=True)]


@torch.inference_mode()
def continued(network: GPT2LMHeadModel, prompts: Sequence[Sequence[int]], most: int, generator: torch.Generator,
              never: Sequence[int]) -> tuple[list[list[int]], int]:  # fmt: skip
    """What is sampled after each prompt, at most `most` ids, and how many token evaluations that took."""
    network.eval()
    device = network.device
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    options = GenerationConfig(
        do_sample=True, max_new_tokens=most, bos_token_id=START, eos_token_id=END, pad_token_id=PAD, top_k=0,
        suppress_tokens=list(never),
    )  # fmt: skip
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        found: Tensor = network.generate(ids, attention_mask=seen, generation_config=options)  # type: ignore[assignment]
    return found[:, longest:].tolist(), found.numel()
