"""Autoregressive infilling: a causal LM that has read both contexts writes the middle, or one that reads the left only.

Donahue et al. 2020, *Enabling Language Models to Fill in the Blanks*; Li et al. 2022 §6.4 train theirs on the sentences
before, after and between, in this order, and take "Left-only" from Qin et al. 2020.

B batch · T positions of the longest row
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GPT2LMHeadModel

from diffcontrol.baselines.lm import NEVER_WRITTEN, CausalLM, gpt2
from diffcontrol.data.corpus import Corpus
from diffcontrol.method import Method
from diffcontrol.task import ControlTask, GapTask, Request
from diffcontrol.text import END, PAD, START
from diffcontrol.training import Trainable, seed_of


class Infiller(Trainable):
    """Reads START, the serialised target, a separator, the middle, END; the loss is that of the middle and END.

    The words by which targets ask for a length follow the vocabulary, then the separator.
    """

    def __init__(self, data: Corpus, task: GapTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.task, self.token_evaluations = task, 0
        examples = data.splits["train"]
        self.targets = [task.targets(task.annotate(example)) for example in examples]
        self.carriers = torch.tensor([i for i, targets in enumerate(self.targets) if targets])
        if not len(self.carriers):
            raise ValueError(f"infill: {type(task).__name__} cuts nothing out of any training text")
        self.ids = dict(data.vocabulary.ids)
        known = {word for example in examples for word in example.words}  # rare words stay UNK
        for targets in self.targets:
            for target in targets:
                for word in task.serialize(target):
                    if word not in known:
                        self.ids.setdefault(word, len(self.ids))
        self.separator = len(self.ids)
        self.positions = 2 * data.length
        self.network = GPT2LMHeadModel(gpt2(model, self.separator + 1, self.positions))

    def steps(self, rank: int = 0, world: int = 1) -> Any:
        return self._steps([self.carriers], rank, world)

    def prompt(self, target: Any) -> list[int]:
        unknown = self.ids["UNK"]
        words = [self.ids.get(word, unknown) for word in self.task.serialize(target)]
        return [START, *words, self.separator]

    def collate(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Rows [B T] and which of their positions are to be written [B T]; which gap is drawn with the model seed."""
        generator = torch.Generator().manual_seed(seed_of(self.model_seed, *indices))
        rows, written = [], []
        for i in indices:
            target = self.targets[i][int(torch.randint(len(self.targets[i]), (), generator=generator))]
            left, right = self.task.gap(target)
            words = self.corpus.splits["train"][i].words
            middle = [self.ids.get(word, self.ids["UNK"]) for word in words[len(left) : len(words) - len(right)]]
            prompt = self.prompt(target)
            rows.append(torch.tensor([*prompt, *middle, END]))
            written.append(torch.tensor([False] * len(prompt) + [True] * (len(middle) + 1)))
        return pad_sequence(rows, batch_first=True, padding_value=PAD), pad_sequence(written, batch_first=True)

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        ids, written = batch
        logits = self.network(ids[:, :-1], use_cache=False).logits
        wanted = ids[:, 1:].masked_fill(~written[:, 1:], -100)
        return {"nll": cross_entropy(logits.transpose(1, 2), wanted)}


class Gaps(Method):
    """Writes what stands in the gap that the first of the tasks with gaps leaves; nothing else is asked of it."""

    def __init__(self, tasks: Mapping[str, ControlTask], chunk: int, seed: int):
        super().__init__(chunk, seed)
        self.name, self.task = next((name, task) for name, task in tasks.items() if isinstance(task, GapTask))

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        if not any(isinstance(task, GapTask) for task in tasks.values()):
            raise ValueError(
                f"{cls.__name__} writes between given words, which {' and '.join(tasks)} does not ask for; "
                "task=infilling does"
            )

    @abstractmethod
    def middles(self, targets: Sequence[Any], generator: torch.Generator) -> list[list[str]]:
        """Words for the gap of each target."""

    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        targets = [request.targets[self.name] for request in requests]
        texts = []
        for target, middle in zip(targets, self.middles(targets, generator), strict=True):
            left, right = self.task.gap(target)
            texts.append([*left, *middle, *right])
        yield texts


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
