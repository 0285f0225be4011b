"""Guided diffusion: a diffusion LM whose reverse steps obey the tasks."""

import random
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from diffcontrol.diffusion.denoiser import Anchored, Clamped, Denoiser, Tempered
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.layout import Layout, drawn, joint
from diffcontrol.method import Method
from diffcontrol.steering.anchor import known, within
from diffcontrol.steering.base import Steering, Weighted
from diffcontrol.task import Request


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
