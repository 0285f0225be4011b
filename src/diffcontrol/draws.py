"""Chance: a stream of random numbers for every text, so that no text depends on those that are written beside it.

R rows, one for each text in the making · V vocabulary
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

WHOLE = 16  # torch draws normal numbers in blocks of 16; shorter draws use another algorithm


def seed_of(*parts: int) -> int:
    """One seed of several numbers (seed, step, …), well spread."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
        mixed = ((mixed >> 29) ^ mixed) * 0x9E3779B97F4A7C15 % 2**63
    return mixed


class Draws:
    """One stream for each row. What a row draws is a function of its seed and of how often was drawn before, whatever
    the other rows are and on whatever device they are computed.

    A draw of fewer positions is the beginning of a draw of more. So positions that a batch does not compute change
    nothing at those that it does.
    """

    def __init__(self, seeds: Sequence[int]):
        self.seeds, self.drawn = list(seeds), 0
        self._generator = torch.Generator()

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, `shape` of them a row, [R *shape]."""
        size = prod(shape)
        found = torch.empty(len(self), -(-size // WHOLE) * WHOLE)
        for row, generator in zip(found, self._generators(), strict=True):
            row.normal_(generator=generator)
        return found[:, :size].reshape(len(self), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from [0, 1), in double precision, `shape` of them a row, [R *shape]."""
        found = torch.empty(len(self), prod(shape), dtype=torch.float64)
        for row, generator in zip(found, self._generators(), strict=True):
            row.uniform_(generator=generator)
        return found.reshape(len(self), *shape)

    def categorical(self, log_probs: Tensor) -> Tensor:
        """One class a row, by log-probabilities that need not be normalised, [R V] → [R].

        Raises:
            ValueError: a row leaves no class.
        """
        return chosen(log_probs, self.uniform().to(log_probs.device))

    def select(self, rows: Sequence[int]) -> "Draws":
        """Some of the rows, whose streams go on where they are."""
        found = Draws([self.seeds[row] for row in rows])
        found.drawn = self.drawn
        return found

    def children(self, n: int) -> "Draws":
        """`n` new streams of each row, side by side, [R·n]. More of them leave the first ones as they are."""
        found = Draws([seed_of(seed, self.drawn, child) for seed in self.seeds for child in range(n)])
        self.drawn += 1
        return found

    def _generators(self) -> Iterator[torch.Generator]:
        """A generator for the next draw of each row."""
        number, self.drawn = self.drawn, self.drawn + 1
        for seed in self.seeds:
            yield self._generator.manual_seed(seed_of(seed, number))


def chosen(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The class at which the cumulative probability exceeds a uniform number, [R V], [R] → [R].

    In double precision, as 32 bits make rare classes too rare (2409.02908).

    Raises:
        ValueError: a row leaves no class.
    """
    upto = log_probs.double().softmax(-1).cumsum(-1)
    if upto[:, -1].isnan().any():
        raise ValueError("a row of log-probabilities leaves no class to draw")
    return (upto <= uniform[:, None] * upto[:, -1:]).sum(-1).clamp(max=log_probs.shape[-1] - 1)
