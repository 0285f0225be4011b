"""Guided diffusion: a diffusion language model whose reverse process is steered by the tasks (Li et al. 2022).

B batch · L positions · D embedding width
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Anchored, Denoiser
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.layout import Layout, drawn, joint
from diffcontrol.method import Method, Progress
from diffcontrol.steering.anchor import known, within
from diffcontrol.steering.base import Look, Steering, Weighted
from diffcontrol.task import Request


class GuidedDiffusion(Method):
    """Writes with `lm`, guided by what `steering` makes of each task.

    scale: multiplies all strengths of the guidance. clean: words that are fixed at their places are shown to the
    network without noise, as released (infill.py).
    """

    def __init__(self, lm: DiffusionLM, sampler: Sampler, guidance: Guidance, decoding: Rounding,
                 steering: Mapping[str, Steering], scale: float = 1.0, clean: bool = False, chunk: int = 50,
                 seed: int = 0):  # fmt: skip
        super().__init__(chunk, seed)
        self.lm, self.sampler, self.guidance, self.decoding = lm, sampler, guidance, decoding
        self.steering, self.clean = dict(steering), clean
        self.scale = scale

    def models(self) -> list[nn.Module]:
        return [self.lm, *(s for s in self.steering.values() if isinstance(s, nn.Module))]

    def positions(self, request: Request) -> int:
        needed = [steering.positions(request.targets[task]) for task, steering in self.steering.items()]
        return max((n for n in needed if n), default=0)

    @torch.no_grad()
    def write(self, requests: Sequence[Request], generator: torch.Generator, progress: Progress) -> list[list[str]]:
        # A guidance with nothing to follow would still narrow the noise of each step by its fluency term.
        guidance = self.guidance if self.control(requests[:1]).parts else Unguided()
        layouts = self._layouts(requests, random.Random(generator.initial_seed()))
        requests = [request for request in requests for _ in range(guidance.particles)]
        layouts = [layout for layout in layouts for _ in range(guidance.particles)]
        control = self.control(requests)
        sizes = [self.positions(request) for request in requests]
        least = max((s.least(r.targets[task]) for r in requests for task, s in self.steering.items()), default=0)
        length = max(*sizes, least) if all(sizes) else self.lm.length
        shape = (len(requests), length, self.lm.embedding.embedding_dim)
        x_t = torch.randn(shape, generator=generator).to(self.lm.device)
        denoiser = self._anchored(layouts, shape, generator)
        guided, move = guidance.bind(denoiser, control, self.sampler.times(self.lm.low))
        decode = partial(self.decoding, table=self.lm.table())
        for step, prediction in enumerate(self.sampler(guided, x_t, generator, decode, move, least)):  # noqa: B007
            progress(step / (self.sampler.steps + 1))
        rows = zip(prediction.logits.argmax(-1).tolist(), layouts, strict=True)
        texts = [self.lm.corpus.vocabulary.decode(ids, layout.words) for ids, layout in rows]
        return texts[:: guidance.particles]

    def control(self, requests: Sequence[Request]) -> Weighted:
        """The weighted sum of the tasks' controls; of none where all that is asked for is fixed at its place."""
        parts = [
            (self.scale * self.guidance.weight(task), steering.control([request.targets[task] for request in requests]))
            for task, steering in self.steering.items()
        ]
        return Weighted([(strength, part) for strength, part in parts if part])

    @torch.no_grad()
    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """The weighted sum of the controls' log-probabilities, at the least noise, of the texts' own vectors."""
        lm = self.lm
        ids = torch.stack([lm.corpus.vocabulary.encode(text, lm.length) for text in texts]).to(lm.device)
        t = torch.full((len(ids),), lm.low, device=lm.device)
        x_t = lm.table()[ids] * lm.schedule.alpha_bar(t).sqrt()[:, None, None]  # the mean of what is seen at t
        return self.control(requests).log_prob(Look(x_t, t, lambda: lm(x_t, t)))

    def _layouts(self, requests: Sequence[Request], rng: random.Random) -> list[Layout]:
        """What is fixed in each row."""
        choices = [[s.layouts(r.targets[task]) for task, s in self.steering.items()] for r in requests]
        return [drawn(joint(options), rng) for options in choices]

    def _anchored(self, layouts: Sequence[Layout], shape: tuple[int, int, int], generator: torch.Generator) -> Denoiser:
        """The language model, and around it the words that are known."""
        if not any(layout.words for layout in layouts):
            return self.lm
        noise = None if self.clean else torch.randn(shape, generator=generator).to(self.lm.device)
        inner = within(layouts, self.lm.length).to(self.lm.device)
        return Anchored(self.lm, *known(layouts, self.lm), noise, inner)
