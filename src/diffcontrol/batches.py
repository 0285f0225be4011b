"""Which texts a step of a training reads: a function of seed and step alone, so that a resumed run reads the same."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffcontrol.draws import seed_of


class Steps(Sampler[list[int]]):
    """Which texts each step reads, as a function of (seed, step) alone.

    Step s draws from `pools[s % len(pools)]` without replacement until the pool is used up. `bucket` > 1 sorts that
    many batches' texts by `lengths` before cutting them, so that a batch holds texts of like length.
    An epoch of Lightning's is `per_epoch` steps, the distance between two checkpoints. It begins after the steps
    `taken` so far; Lightning's count of epochs is not looked at, in a resumed run it counts one too many.
    """

    taken: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(self, pools: Sequence[Tensor], batch_size: int, seed: int, steps: int, per_epoch: int,
                 lengths: Tensor | None = None, bucket: int = 1):  # fmt: skip
        self.pools, self.batch_size, self.seed, self.lengths, self.bucket = pools, batch_size, seed, lengths, bucket
        self.steps, self.per_epoch = steps, per_epoch
        self._kept, self._kept_for = torch.empty(0), (-1, -1)

    def __len__(self) -> int:
        return max(0, min(self.per_epoch, self.steps - self.taken()))

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(first := self.taken(), first + len(self)):
            yield self.indices(step)

    def indices(self, step: int) -> list[int]:
        """Indices of the texts of this step."""
        which, turn = step % len(self.pools), step // len(self.pools)
        group, place = divmod(turn, self.bucket)
        if self._kept_for != (which, group):  # steps walk through a group in order
            self._kept, self._kept_for = self._group(which, group), (which, group)
        return self._kept[place].tolist()

    def _group(self, which: int, group: int) -> Tensor:
        """The texts of `bucket` batches, [bucket batch_size]."""
        pool, size = self.pools[which], self.bucket * self.batch_size
        places = torch.arange(group * size, (group + 1) * size)
        drawn = torch.cat([
            pool[self._permutation(len(pool), which, int(turn))[places[places // len(pool) == turn] % len(pool)]]
            for turn in (places // len(pool)).unique()
        ])  # fmt: skip
        batches = drawn.view(self.bucket, self.batch_size)
        if self.bucket > 1:
            assert self.lengths is not None
            batches = drawn[self.lengths[drawn].argsort(stable=True)].view_as(batches)
            batches = batches[self._permutation(self.bucket, which, -1 - group)]
        return batches

    def _permutation(self, size: int, which: int, turn: int) -> Tensor:
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed_of(self.seed, which, turn)))


def loader(steps: Steps, collate: Callable[[list[int]], Any]) -> DataLoader:
    """The batches that `collate` makes of the texts of each step."""
    return DataLoader(Batches(collate), sampler=steps, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    """In place of PyTorch's conversion, which makes lists of tuples: a list is rows, a tuple parts of a batch."""
    return batch


class Batches(Dataset):
    """Indices of texts → the batch that is made of them."""

    def __init__(self, collate: Callable[[list[int]], Any]):
        self.collate = collate

    def __getitem__(self, indices: list[int]) -> Any:
        return self.collate(indices)
