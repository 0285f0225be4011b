"""Weighed texts in the making: written word by word, resampled by weight, and one of them drawn in the end.

The bookkeeping of sequential Monte Carlo, whatever makes the weights (`diffcontrol.methods.smc`).

B requests · N particles of each · R particles still being written
"""

import math

import torch
from torch import Tensor

from diffcontrol.draws import Draws
from diffcontrol.text import END


class Particles:
    """The texts of B requests in the making, N each, in rows one request after another.

    Attributes: `words` of each; `weight`, log of the weight [B·N], 0 at first; `debt`, what of it is divided out in the
    end; `running`, the rows that have not ended; `last`, of requests whose particles all died: the words of the
    heaviest of those that lived longest.
    """

    def __init__(self, requests: int, particles: int):
        self.count = particles
        self.words: list[list[int]] = [[] for _ in range(requests * particles)]
        self.weight, self.debt = torch.zeros(requests * particles), torch.zeros(requests * particles)
        self.running = torch.arange(requests * particles)
        self.last: dict[int, list[int]] = {}

    def write(self, words: Tensor, gain: Tensor, debt: Tensor) -> None:
        """One more word of each running particle, [R]; a gain of −∞ is the end of it."""
        before = self.weight.view(-1, self.count).clone()
        self.weight[self.running] += gain
        self.debt[self.running] += torch.where(gain.isfinite(), debt, 0.0)
        died = self.weight.view_as(before).isneginf().all(1) & before.isfinite().any(1)
        for request in died.nonzero()[:, 0].tolist():
            self.last[request] = list(self.words[request * self.count + int(before[request].argmax())])
        for row, word in zip(self.running.tolist(), words.tolist(), strict=True):
            self.words[row].append(word)

    def proceed(self, threshold: float, uniform: Tensor) -> Tensor:
        """Resamples where the effective number of particles is at most `threshold` × N, each with its number of
        `uniform` [B] from [0, 1). Returns where each of those that now run stood among those that ran before, [R'] (so
        doubled ones stand there twice)."""
        place = torch.full((len(self.words),), -1)  # among those that ran
        place[self.running] = torch.arange(len(self.running))
        weights = self.weight.view(-1, self.count)
        runs = torch.zeros(len(self.words), dtype=torch.bool).index_fill(0, self.running, True).view_as(weights)
        for request in (runs.any(1) & weights.isfinite().any(1)).nonzero()[:, 0].tolist():
            shares = weights[request].softmax(0)
            if 1 / shares.square().sum() <= threshold * self.count:
                self._resample(request, systematic(shares, float(uniform[request])), place)
        ended = torch.tensor([bool(words) and words[-1] == END for words in self.words])
        self.running = ((place >= 0) & ~ended & self.weight.isfinite()).nonzero()[:, 0]
        return place[self.running]

    def _resample(self, request: int, chosen: Tensor, place: Tensor) -> None:
        own = slice(request * self.count, (request + 1) * self.count)
        rows = chosen + own.start
        self.weight[own] = self.weight[own].logsumexp(0) - math.log(self.count)  # the evidence so far is kept
        self.debt[own], place[own] = self.debt[rows], place[rows]
        self.words[own] = [list(self.words[row]) for row in rows.tolist()]

    def drawn(self, draws: Draws) -> list[list[int]]:
        """Of each request the words of one particle, by weight."""
        final = (self.weight - self.debt).view(-1, self.count)
        alive = final.isfinite().any(1)
        rows = draws.categorical(torch.where(alive[:, None], final, 0.0)).tolist()
        texts = []
        for request, row in enumerate(rows):
            if alive[request]:
                texts.append(self.words[request * self.count + row])
            else:
                texts.append(self.last.get(request, []))
        return texts


def systematic(shares: Tensor, uniform: float) -> Tensor:
    """N draws from N shares with one number from [0, 1) (Carpenter et al. 1999): each is drawn N × its share times,
    rounded up or down. [N] → [N]"""
    n = len(shares)
    points = (torch.arange(n) + uniform) / n
    return torch.searchsorted(shares.cumsum(0), points, right=True).clamp(max=int(shares.nonzero().max()))
