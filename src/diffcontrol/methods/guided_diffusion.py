"""Guided diffusion: a diffusion language model whose reverse process is steered by the tasks (Li et al. 2022).

B batch · L positions · D embedding width
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus
from diffcontrol.diffusion.decoding import Decoding
from diffcontrol.diffusion.denoiser import Anchored, Denoiser, Prediction, known_words
from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.draws import Draws
from diffcontrol.guidance.base import Guidance, Unguided
from diffcontrol.layout import Layout
from diffcontrol.lengths import TrainingLengths
from diffcontrol.method import Progress
from diffcontrol.methods.steered import Steered
from diffcontrol.steering.anchor import known, within
from diffcontrol.steering.base import Look, Steering
from diffcontrol.task import ControlTask, Request


class GuidedDiffusion(Steered):
    """Writes with `lm`, guided by what `steering` makes of each task.

    scale: multiplies all strengths of the guidance. clean: words that are fixed at their places are shown to the
    network without noise, as released (infill.py).
    """

    def __init__(self, lm: DiffusionLM, sampler: Sampler, guidance: Guidance, decoding: Decoding,
                 steering: Mapping[str, Steering], scale: float = 1.0, clean: bool = False,
                 lengths: TrainingLengths | None = None, chunk: int = 50, seed: int = 0):  # fmt: skip
        super().__init__(steering, guidance.strength, scale, lengths, chunk, seed)
        self.lm, self.sampler, self.guidance, self.decoding, self.clean = lm, sampler, guidance, decoding, clean

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        super().check(node, tasks, corpus)
        get_object(node["guidance"]["_target_"]).check(node["guidance"])

    def models(self) -> list[nn.Module]:
        return [self.lm, *self.guides()]

    @torch.no_grad()
    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        layouts, predictions = self._started(requests, draws)
        for step, prediction in enumerate(predictions):  # noqa: B007
            progress(step / (self.sampler.steps + 1))
        return self.completed(requests, self._texts(prediction, layouts)[:: len(layouts) // len(requests)])

    @torch.no_grad()
    def denoising(self, request: Request, n: int) -> list[tuple[float, list[str]]]:
        layouts, predictions = self._started([request], self.draws([request], 1))
        times = self.sampler.times(self.lm.low).tolist()
        last = self.sampler.steps
        shown = {last - round(i * last / max(n - 1, 1)) for i in range(n)}
        steps = enumerate(zip(times, predictions, strict=True))
        return [(t, self._texts(prediction, layouts)[0]) for step, (t, prediction) in steps if step in shown]

    def _started(self, requests: Sequence[Request], draws: Draws) -> tuple[list[Layout], Iterator[Prediction]]:
        """What is fixed in each row, several rows a request where there are particles, and what the sampler yields."""
        # A guidance with nothing to follow would still narrow the noise of each step by its fluency term.
        guidance = self.guidance if self.control(requests[:1]).asks else Unguided()
        layouts = self.layouts(requests, draws, self.lm.length)
        requests = [request for request in requests for _ in range(guidance.particles)]
        layouts = [layout for layout in layouts for _ in range(guidance.particles)]
        draws = draws.children(guidance.particles)
        control, least = self.control(requests), self.least(requests)
        longest = self.longest(requests, layouts, self.lm.length) if self.sampler.crop else self.lm.length
        shape = (longest, self.lm.embedding.embedding_dim)
        x_t = draws.normal(*shape).to(self.lm.device)
        denoiser = self._anchored(layouts, shape, draws)
        guided, move = guidance.bind(denoiser, control, self.sampler.times(self.lm.low))
        decode = partial(self.decoding, table=self.lm.table())
        return layouts, self.sampler(guided, x_t, draws, decode, move, least)

    def _texts(self, prediction: Prediction, layouts: Sequence[Layout]) -> list[list[str]]:
        """The likeliest words of each row, UNK apart."""
        rows = zip(known_words(prediction.logits).argmax(-1).tolist(), layouts, strict=True)
        return [self.lm.corpus.vocabulary.decode(ids, layout.words) for ids, layout in rows]

    @torch.no_grad()
    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """The sum of the controls' log-probabilities, at the least noise, of the texts' own vectors."""
        lm = self.lm
        ids = torch.stack([lm.corpus.vocabulary.encode(text, lm.length) for text in texts]).to(lm.device)
        t = torch.full((len(ids),), lm.low, device=lm.device)
        x_t = lm.table()[ids] * lm.schedule.alpha_bar(t).sqrt()[:, None, None]  # the mean of what is seen at t
        return self.control(requests).joint.log_prob(Look(x_t, t, lambda: lm(x_t, t)))

    def _anchored(self, layouts: Sequence[Layout], shape: tuple[int, int], draws: Draws) -> Denoiser:
        """The language model, and around it the words that are known."""
        if not any(layout.words for layout in layouts):
            return self.lm
        noise = None if self.clean else draws.normal(*shape).to(self.lm.device)
        inner = within(layouts, self.lm.length).to(self.lm.device)
        return Anchored(self.lm, *known(layouts, self.lm), noise, inner)
