"""Shares: several processes take one step of a training together, and it is the step that one process would take.

Each of them has the whole batch, draws the noise of the whole batch from the same seed, and goes on with its own rows.
Its loss counts as much as its rows do, so that the mean over processes, which is what DDP makes of the gradients, is
the mean over the batch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_OURS: ContextVar[tuple[int, int, int] | None] = ContextVar("rank, world, rows of the whole batch", default=None)


def rows(batch: Any, rank: int, world: int) -> Any:
    """Every `world`-th row of all tensors and lists of a batch, from row `rank` on; single numbers stay as they are."""
    if isinstance(batch, Mapping) or hasattr(batch, "items"):  # transformers' BatchEncoding is no Mapping
        return {key: rows(value, rank, world) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(rows(value, rank, world) for value in batch)
    if isinstance(batch, list) or (isinstance(batch, Tensor) and batch.ndim):
        return batch[rank::world]
    return batch


def count(batch: Any) -> int:
    """Rows of a batch."""
    if isinstance(batch, Mapping) or hasattr(batch, "items"):
        return count(next(iter(batch.values())))
    return count(batch[0]) if isinstance(batch, tuple) else len(batch)


@contextmanager
def sharing(rank: int, world: int, whole: int) -> Iterator[None]:
    """Within it `drawn` draws for `whole` rows and returns those of this rank."""
    token = _OURS.set((rank, world, whole) if world > 1 else None)
    try:
        yield
    finally:
        _OURS.reset(token)


def drawn(draw: Callable[[int], Tensor], size: int) -> Tensor:
    """What `draw(rows)` draws for a batch of so many rows; where processes share one, the own rows of a draw for all of
    it. The noise of a training is drawn by this."""
    ours = _OURS.get()
    if ours is None:
        return draw(size)
    rank, world, whole = ours
    return draw(whole)[rank::world]


def randn_like(like: Tensor) -> Tensor:
    """`torch.randn_like` of a batch's rows [B …]."""
    return drawn(lambda n: torch.randn(n, *like.shape[1:], dtype=like.dtype, device=like.device), len(like))


def rand(like: Tensor) -> Tensor:
    """Numbers in [0, 1) in the shape of a batch's rows [B …]."""
    return drawn(lambda n: torch.rand(n, *like.shape[1:], device=like.device), len(like))
