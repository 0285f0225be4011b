"""Method: whatever writes texts that obey. Every baseline and guided diffusion fill this one interface."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffcontrol.control.anchor import known, within
from diffcontrol.control.base import Steering, Weighted
from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.denoiser import Anchored, Clamped, Denoiser, Tempered
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.layout import Layout, drawn, joint
from diffcontrol.task import ControlTask, Request
from diffcontrol.training import seed_of


class Method(ABC):
    """Writes `n` texts for every request. All requests × samples form one stream cut into fixed chunks, each with
    its own seed, so that results do not depend on how chunks are shared out."""

    def __init__(self, chunk: int, seed: int):
        self.chunk, self.seed = chunk, seed

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """Asked before anything is trained: whether this method, with this config node, can serve the tasks.

        Raises:
            ValueError: it cannot, and why.
        """
        return None  # most can

    @staticmethod
    def check_node(node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """`check` of the method that a config node describes."""
        get_object(node["_target_"]).check(node, tasks, corpus)

    @abstractmethod
    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        """One text for each request of a chunk: yields the fraction done now and then, at last the texts."""

    @abstractmethod
    def models(self) -> list[torch.nn.Module]:
        """The networks it runs while writing, for the count of token evaluations."""

    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """How likely its own guide finds each finished text to obey, as log-probabilities [B].

        Raises:
            ValueError: it has no guide.
        """
        raise ValueError(f"{type(self).__name__} has no guide of its own to choose texts by")

    def generate(self, requests: Sequence[Request], n: int, title: str = "") -> list[list[list[str]]]:
        """Texts as words, [requests][n]."""
        rows = [request for request in requests for _ in range(n)]
        chunks = [rows[i : i + self.chunk] for i in range(0, len(rows), self.chunk)]
        texts: list[list[str]] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task(f"writing: {title}", total=len(rows))
            for number, chunk in enumerate(chunks):
                generator = torch.Generator().manual_seed(seed_of(self.seed, number))
                for news in self.write(chunk, generator):
                    if isinstance(news, list):
                        texts.extend(news)
                    else:
                        progress.update(bar, completed=int(len(texts) + news * len(chunk)))
                progress.update(bar, completed=len(texts))
        return [texts[i * n : (i + 1) * n] for i in range(len(requests))]


class GuidedDiffusion(Method):
    """A diffusion LM whose reverse steps are guided by the tasks' classifiers, or by what else steers it.

    strength: task → weight of its log-probability, all multiplied by `scale`; temperature: of the rounding softmax that
    makes x̂₀; clamp: the time from which on x̂₀ is clamped to the nearest word (0: never, 1: always); clean: words that
    are fixed at their places are shown to the network without noise, as released.
    """

    def __init__(self, lm: DiffusionLM, sampler: Sampler, guidance: Guidance,
                 classifiers: Mapping[str, Steering], strength: Mapping[str, float], scale: float = 1.0,
                 temperature: float = 1.0, clamp: float = 0.0, clean: bool = False, chunk: int = 50,
                 seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lm, self.sampler, self.guidance, self.classifiers = lm, sampler, guidance, classifiers
        self.strength = {task: scale * strength[task] for task in classifiers}
        self.temperature, self.clamp, self.clean = temperature, clamp, clean

    def models(self) -> list[torch.nn.Module]:
        return [self.lm, *(c for c in self.classifiers.values() if isinstance(c, torch.nn.Module))]

    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        control = self.control(requests)
        guidance = self.guidance if control.parts else Unguided()  # fluency alone would narrow the noise of each step
        shape = (len(requests), self.lm.length, self.lm.embedding.embedding_dim)
        x_t = torch.randn(shape, generator=generator).to(self.lm.device)
        layouts = self._layouts(requests, random.Random(generator.initial_seed()))
        predictions = self.sampler(self._denoiser(layouts, generator), guidance, control, x_t, generator)
        for step, prediction in enumerate(predictions):  # noqa: B007 (the last one is the result)
            yield step / (self.sampler.steps + 1)
        rows = zip(prediction.logits.argmax(-1).tolist(), layouts, strict=True)
        yield [self.lm.corpus.vocabulary.decode(ids, layout.words) for ids, layout in rows]

    def control(self, requests: Sequence[Request]) -> Weighted:
        """The weighted sum of the tasks' controls; of none where all that is asked for is fixed at its place."""
        parts = [
            (self.strength[task], steering.control([request.targets[task] for request in requests]))
            for task, steering in self.classifiers.items()
        ]
        return Weighted([(strength, part) for strength, part in parts if part])

    @torch.no_grad()
    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """The weighted sum of the classifiers' log-probabilities, at the least noise, of the texts' own vectors."""
        lm = self.lm
        ids = torch.stack([lm.corpus.vocabulary.encode(text, lm.length) for text in texts]).to(lm.device)
        t = torch.full((len(ids),), lm.low, device=lm.device)
        x_t = lm.table()[ids] * lm.schedule.alpha_bar(t).sqrt()[:, None, None]  # the mean of what is seen at t
        return self.control(requests).log_prob(x_t, t, lm(x_t, t))

    def _layouts(self, requests: Sequence[Request], rng: random.Random) -> list[Layout]:
        """What is fixed in each row."""
        choices = [[s.layouts(r.targets[task]) for task, s in self.classifiers.items()] for r in requests]
        return [drawn(joint(options), rng) for options in choices]

    def _denoiser(self, layouts: Sequence[Layout], generator: torch.Generator) -> Denoiser:
        """The language model, then what is known, then how x̂₀ is made of the logits."""
        denoiser: Denoiser = self.lm
        if any(layout.words for layout in layouts):
            shape = (len(layouts), self.lm.length, self.lm.embedding.embedding_dim)
            noise = None if self.clean else torch.randn(shape, generator=generator).to(self.lm.device)
            inner = within(layouts, self.lm.length).to(self.lm.device)
            denoiser = Anchored(denoiser, *known(layouts, self.lm), noise, inner)
        if self.temperature != 1:
            denoiser = Tempered(denoiser, self.temperature)
        return Clamped(denoiser, self.clamp) if self.clamp > 0 else denoiser
