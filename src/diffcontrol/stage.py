"""Stage: something made once in parts and kept by the store, as annotated data is; and what makes it safe to be killed.

A part is made in a draft folder, from which a killed run goes on, and renamed into place when it is complete.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from filelock import FileLock


class Shared(ABC):  # noqa: B024  a mark
    """Built once a run for all whose recipes name it."""


class Content(Shared):
    """What enters an address by what it holds: a digest in place of the arguments that say where it lies."""

    lies_in: ClassVar[Sequence[str]] = ()  # arguments that say where it lies

    @property
    @abstractmethod
    def digest(self) -> str:
        """Short hash of the content."""


class Stage(Shared):
    """Made by `make`, part after part, each when it is first asked for. Its recipe, not its content, is its address.

    An argument that has the name of a part bears on that part alone. Those named in `late` are needed only to make a
    part and arrive as functions, so that nothing is trained or loaded for what is made already.
    """

    late: ClassVar[Sequence[str]] = ()
    parts: ClassVar[Sequence[str]] = ()
    #: part → its finished folder; given by the store, which makes what is missing
    folder: Callable[[str], Path]

    @abstractmethod
    def make(self, part: str, draft: Path) -> None:
        """Writes the part's files into `draft`, where some may already be if an earlier run was killed."""


def once(root: Path, address: str, make: Callable[[Path], None],
         others: Callable[[Path], None] | None = None) -> tuple[Path, bool]:  # fmt: skip
    """The finished folder of this address, and whether this call made it: `make(draft)` under a lock, then renamed.

    Rank 0 alone holds the lock and renames. The other ranks wait for it, after doing their share of the work (`others`)
    if it has one for them, as training has.
    """
    final, draft = root / address, root / ".drafts" / address
    draft.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("LOCAL_RANK", 0)):
        if others:
            others(draft)
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


class Clock:
    """Keeps the seconds that a draft has taken in its file `seconds`, over all runs that worked on it."""

    def __init__(self, draft: Path):
        self.file, self.since = draft / "seconds", time.time()
        self.before = float(self.file.read_text()) if self.file.exists() else 0.0

    def write(self) -> None:
        self.file.write_text(f"{self.before + time.time() - self.since:.1f}")
