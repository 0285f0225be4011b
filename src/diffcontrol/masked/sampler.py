"""Ancestral sampling of a masked diffusion model (MDLM, Sahoo et al. 2024, 2406.07524, §3.2.2 and §4.3).

    in a step from t to s < t every masked place is written with probability (t − s)/t (α_t = 1 − t),
    by a word drawn from what the network says of the text as it stands; what is written stays

So the time at which a place is written is uniform in [0, 1] and can be drawn beforehand. The network is asked only
about texts in which the step writes a place: as it reads no time, its answer would not differ from the one before
(their cache). The last step ends at 0 and writes all that is left, so that no last look is needed.

B texts · n of them in which a step writes · L positions · V vocabulary
"""

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from diffcontrol.allowed import Rules, arguments, number, optional, whole
from diffcontrol.diffusion.denoiser import known_words
from diffcontrol.draws import Draws
from diffcontrol.text import END, PAD

#: (ids [n L] with masks, places that are to be written [n L], which rows these are [n]) → logits of the words [n L V]
Predict = Callable[[Tensor, Tensor, list[int]], Tensor]


class Ancestral:
    """`steps` equal steps of time; null writes one place of each text at a time, in random order, which is exact
    whatever the network (Zheng et al. 2024, 2409.02908, first-hitting sampler). `temperature` and `top_p` are those of
    the draws of words: below 1 the texts are likelier and less varied."""

    allowed: ClassVar[Rules] = {
        "steps": optional(whole(1)),
        "temperature": number(above=0),
        "top_p": number(above=0, most=1),
    }

    def __init__(self, steps: int | None = 50, temperature: float = 1.0, top_p: float = 1.0):
        arguments(self, steps=steps, temperature=temperature, top_p=top_p)
        self.steps, self.temperature, self.top_p = steps, temperature, top_p

    def turns(self, masked: Tensor, draws: Draws) -> Tensor:
        """The number of the step that writes each masked place, [B L] → [B L]."""
        when = draws.uniform(masked.shape[1]).to(masked.device)
        if self.steps is not None:
            return (when * self.steps).long()
        return when.masked_fill(~masked, 2.0).argsort(1).argsort(1)

    def __call__(self, ids: Tensor, mask: int, predict: Predict, draws: Draws,
                 least: int = 0) -> Iterator[float]:  # fmt: skip
        """Writes the places of `ids` [B L] that hold `mask`, in place; yields the share of the steps that is done.

        Positions behind the end of all texts are no longer computed, but for the first `least`, which controls read.
        """
        turns = self.turns(ids == mask, draws)
        uniform = draws.uniform(ids.shape[1]).to(ids.device)  # each place is written once
        steps = int(turns.max()) + 1
        for step in range(steps):
            places = (turns == step) & (ids == mask)
            rows = places.any(1).nonzero()[:, 0]
            if len(rows):
                used = max(least, positions_in_use(ids[rows]))
                seen, written = ids[rows, :used], places[rows, :used]
                logits = known_words(predict(seen, written, rows.tolist()))
                words = self.draw(logits[written], uniform[rows, :used][written])
                ids[rows, :used] = ended(seen.masked_scatter(written, words), mask)
            yield (step + 1) / steps

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Words [N] from logits [N V] by uniform numbers [N], of 64 bits as fewer make rare words too rare
        (2409.02908)."""
        probabilities = (logits.double() / self.temperature).softmax(-1)
        if self.top_p < 1:
            ordered, words = probabilities.sort(-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # the likeliest always stays
            probabilities = torch.zeros_like(ordered).scatter(-1, words, ordered.masked_fill(beyond, 0.0))
        upto = probabilities.cumsum(-1)
        return (upto <= uniform[:, None] * upto[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)


def ended(ids: Tensor, mask: int) -> Tensor:
    """ids [n L] with PAD in the masked places behind the first END or PAD, as in every text of the data."""
    behind = ((ids == END) | (ids == PAD)).long().cumsum(1) > 0
    return ids.masked_fill(behind & (ids == mask), PAD)


def positions_in_use(ids: Tensor) -> int:
    """Positions up to the last one that, in some row, is not PAD, and one more."""
    used = (ids != PAD).any(0).nonzero()
    return min(int(used.max()) + 2, ids.shape[1]) if len(used) else 1
