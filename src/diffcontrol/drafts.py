"""Folders that are made once and whole: one process makes a folder as a draft, which gets its name when it is complete.

A killed run leaves a draft, and the next run that wants the folder goes on from it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def make_once(root: Path, address: str, make: Callable[[Path], None],
              other_ranks: Callable[[Path], None] | None = None) -> tuple[Path, bool]:  # fmt: skip
    """The finished folder root/address, and whether this call made it, by `make(draft)`.

    Rank 0 alone holds the lock and renames. The other ranks wait for it; where they have a share of the work, as they
    have in training, they first do it by `other_ranks(draft)`.
    """
    final, draft = root / address, root / ".drafts" / address
    draft.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("LOCAL_RANK", 0)):
        if other_ranks:
            other_ranks(draft)
        parent = os.getppid()
        while not final.is_dir():
            if os.getppid() != parent:
                raise SystemExit(f"{address}: rank 0 ended without it")
            time.sleep(0.2)
        return final, False
    with FileLock(root / ".drafts" / f"{address}.lock"):
        if final.is_dir():  # another process made it while this one waited
            return final, False
        draft.mkdir(exist_ok=True)
        make(draft)
        draft.rename(final)
    return final, True


class Stopwatch:
    """Keeps the seconds that a draft has taken in its file `seconds`, over all runs that worked on it."""

    def __init__(self, draft: Path):
        self.file, self.since = draft / "seconds", time.time()
        self.before = float(self.file.read_text()) if self.file.exists() else 0.0

    def write(self) -> None:
        self.file.write_text(f"{self.before + time.time() - self.since:.1f}")
