"""Autoregressive infilling: a causal LM that has read both contexts writes the middle, or one that reads the left only.

Donahue et al. 2020, *Enabling Language Models to Fill in the Blanks*; Li et al. 2022 §6.4 train theirs on the sentences
before, after and between, in this order, and take "Left-only" from Qin et al. 2020.

B batch · T positions of the longest row
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GPT2LMHeadModel, SuppressTokensLogitsProcessor

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM, Sampling, continued
from diffcontrol.autoregressive.infiller import Infiller
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
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
    def middles(self, targets: Sequence[Any], draws: Draws) -> list[list[str]]:
        """Words for the gap of each target."""

    def room(self, target: Any, length: int) -> int:
        """How many words fit into the gap, a word at least, where a text has `length` positions, START and END
        included: a longer text would lose its right context wherever it is read."""
        left, right = self.task.gap(target)
        return max(1, length - 2 - len(left) - len(right))

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        targets = [request.targets[self.name] for request in requests]
        texts = []
        for target, middle in zip(targets, self.middles(targets, draws), strict=True):
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

    def middles(self, targets: Sequence[Any], draws: Draws) -> list[list[str]]:
        infiller = self.infiller
        never = [*NEVER_WRITTEN, *range(len(infiller.corpus.vocabulary), infiller.separator + 1)]
        prompts = [infiller.prompt(target) for target in targets]
        rooms = [self.room(target, infiller.corpus.length) for target in targets]
        rows, cost = gone_on(infiller.network, prompts, rooms, draws, never)
        infiller.token_evaluations += cost
        return [infiller.corpus.vocabulary.decode(row) for row in rows]


class LeftOnly(Gaps):
    """Goes on from the left context, and stops where the middle has the length asked for, or where the text ends."""

    def __init__(self, tasks: Mapping[str, ControlTask], lm: CausalLM, chunk: int = 50, seed: int = 0):
        super().__init__(tasks, chunk, seed)
        self.lm = lm

    def models(self) -> list[nn.Module]:
        return [self.lm]

    def middles(self, targets: Sequence[Any], draws: Draws) -> list[list[str]]:
        vocabulary = self.lm.corpus.vocabulary
        unknown = vocabulary.ids["UNK"]
        prompts = [[START, *(vocabulary.ids.get(word, unknown) for word in self.task.gap(t)[0])] for t in targets]
        rooms = [self.room(target, self.lm.corpus.length) for target in targets]
        rows, cost = gone_on(self.lm.network, prompts, rooms, draws, NEVER_WRITTEN)
        self.lm.token_evaluations += cost
        return [vocabulary.decode(row)[: self.task.longest(t)] for row, t in zip(rows, targets, strict=True)]


@torch.inference_mode()
def gone_on(network: GPT2LMHeadModel, prompts: Sequence[Sequence[int]], rooms: Sequence[int], draws: Draws,
            never: Sequence[int]) -> tuple[list[list[int]], int]:  # fmt: skip
    """What is sampled after each prompt, at most as many ids as it has room, and how many token evaluations that took.

    The network has as many positions as the longest prompt leaves; rows that have more room go on by themselves.
    """
    network.eval()
    texts: list[list[int]] = [[] for _ in prompts]
    running, cost = list(range(len(prompts))), 0
    while running:
        heads = [[*prompts[row], *texts[row]] for row in running]
        longest = max(map(len, heads))
        ids = torch.tensor([[PAD] * (longest - len(head)) + head for head in heads], device=network.device)
        seen = torch.tensor([[0] * (longest - len(head)) + [1] * len(head) for head in heads], device=network.device)
        most = max(rooms[row] - len(texts[row]) for row in running)
        length = longest + max(1, min(most, network.config.n_positions - longest))
        part = draws.select(running)
        processors = [SuppressTokensLogitsProcessor(list(never), device=str(network.device)), Sampling(part)]
        found = continued(network, ids, length, processors, seen)
        cost += found.numel()
        for row, more in zip(running, found[:, longest:].tolist(), strict=True):
            texts[row] = [*texts[row], *more][: rooms[row]]
        draws.drawn = part.drawn
        running = [row for row in running if END not in texts[row] and len(texts[row]) < rooms[row]]
    return texts, cost
