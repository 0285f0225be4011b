"""Masked diffusion (MDLM) guided by the tasks' heads (D-CBG): parallel denoising without continuous latents.

It is what guided diffusion is compared with to tell the two apart: the same transformer, data, training budget and
heads, on words and masks in place of noisy word vectors. References: `diffcontrol.masked`.

B batch · L positions
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffcontrol.allowed import BY_TASK, Rules
from diffcontrol.draws import Draws
from diffcontrol.lengths import TrainingLengths
from diffcontrol.masked.guidance import MaskedGuidance, Questions, Unguided
from diffcontrol.masked.lm import MaskedLM
from diffcontrol.masked.sampler import Ancestral
from diffcontrol.method import Progress
from diffcontrol.methods.steered import Steered
from diffcontrol.steering.anchor import known, within
from diffcontrol.steering.base import Steering, Weighted
from diffcontrol.task import Request


class MaskedDiffusion(Steered):
    """Writes with `lm`, guided by what `steering` makes of each task. Words fixed at their places are never masked."""

    allowed: ClassVar[Rules] = {"strength": BY_TASK}

    def __init__(self, lm: MaskedLM, sampler: Ancestral, guidance: MaskedGuidance, steering: Mapping[str, Steering],
                 strength: Mapping[str, float], scale: float = 1.0, lengths: TrainingLengths | None = None,
                 chunk: int = 50, seed: int = 0):  # fmt: skip
        super().__init__(steering, strength, scale, lengths, chunk, seed)
        self.lm, self.sampler, self.guidance = lm, sampler, guidance

    def models(self) -> list[nn.Module]:
        return [self.lm, *self.guides()]

    @torch.no_grad()
    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        lm, layouts = self.lm, self.layouts(requests, draws, self.lm.length)
        length = self.longest(requests, layouts, lm.length)
        fixed, mask = known(layouts, lm)
        ids = torch.where(mask, fixed, lm.mask)[:, :length].contiguous()
        asked = Questions(lm, lambda rows: self.control([requests[row] for row in rows]),
                      within(layouts, length).to(lm.device))  # fmt: skip
        # A guidance with nothing to follow has nothing to differentiate.
        guidance = self.guidance if self.control(requests).asks else Unguided()
        predict = partial(guidance.predict, asked)
        for share in self.sampler(ids, lm.mask, predict, draws, self.least(requests)):
            progress(share)
        rows = zip(ids.tolist(), layouts, strict=True)
        return self.completed(requests, [lm.corpus.vocabulary.decode(row, layout.words) for row, layout in rows])

    @torch.no_grad()
    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """The sum of the controls' log-probabilities of the texts themselves, none of their words masked."""
        lm = self.lm
        ids = torch.stack([lm.corpus.vocabulary.encode(text, lm.length) for text in texts]).to(lm.device)
        asked = Questions(lm, lambda rows: Weighted([]), torch.zeros_like(ids, dtype=torch.bool))
        return self.control(requests).joint.log_prob(asked.look(lm.one_hot(ids)))
