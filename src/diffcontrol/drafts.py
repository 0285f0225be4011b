"""Folders that are made once and whole: one process makes a folder as a draft, which gets its name when it is complete.

A killed run leaves a draft, and the next run that wants the folder goes on from it.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from diffcontrol import ranks

log = logging.getLogger(__name__)
DRAFTS = ".drafts"  # the folder, within a store, of what is not finished


def make_once(root: Path, address: str, make: Callable[[Path], None],
              other_ranks: Callable[[Path], None] | None = None) -> tuple[Path, bool]:  # fmt: skip
    """The finished folder root/address, and whether this call made it, by `make(draft)`.

    Only the first process of a run takes the lock and renames the draft. The others wait. If they share the work, as in
    training, they start `other_ranks(draft)` once a file says that the first process has begun. If another run makes
    the folder, all of them only wait.
    """
    final, draft = root / address, root / DRAFTS / address
    begun = root / DRAFTS / f"{address}.begun"
    draft.mkdir(parents=True, exist_ok=True)
    if not ranks.is_first():
        _wait(final, begun, lambda: other_ranks(draft) if other_ranks else None)
        return final, False
    file, made = _lock(root, address), False
    with _locked(file, address):
        try:
            made = not final.is_dir()  # another process may have made it while this one waited
            if made:
                draft.mkdir(exist_ok=True)
                begun.write_text(ranks.sign())
                make(draft)
                draft.rename(final)
            else:
                with suppress(OSError):  # of this call alone if it is empty
                    draft.rmdir()
            file.unlink(missing_ok=True)  # whoever locks it from now on finds the folder, so a lock of two cannot hurt
        finally:
            if made:
                begun.unlink(missing_ok=True)
    return final, made


def discard(root: Path, address: str) -> bool:
    """Removes the draft of a folder; whether no other process is working on it, so that it could be removed."""
    try:
        with FileLock(_lock(root, address), timeout=0):
            shutil.rmtree(root / DRAFTS / address)
    except Timeout:
        return False
    return True


def _lock(root: Path, address: str) -> Path:
    """The file that whoever works on the draft has locked."""
    return root / DRAFTS / f"{address}.lock"


def _wait(final: Path, begun: Path, help_out: Callable[[], None]) -> None:
    """Until there is the folder `final`. Helps once the first process of this run has begun to make it.

    Raises:
        SystemExit: the first process ended without it.
    """
    parent, helped = os.getppid(), False
    while not final.is_dir():
        if not helped and is_ours(begun):
            helped = True
            help_out()
        elif os.getppid() != parent:
            raise SystemExit(f"{final.name}: the first process of this run ended without it")
        else:
            time.sleep(0.05)


@contextmanager
def _locked(file: Path, address: str) -> Iterator[None]:
    """Holds the lock of an address; says so if another process has it first."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: waiting for another process, which is making it (and holds %s)", address, file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_ours(begun: Path) -> bool:
    """Whether the first process of this run says in this file that it has begun."""
    try:
        return ranks.is_sign_of_ours(begun.read_text())
    except OSError:
        return False


def write_whole(file: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file so that a kill or a full disk leaves the old one: under another name in the same folder, then
    renamed."""
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as opened:
            write(opened)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_json(file: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file, or none in it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, lambda opened: opened.write(json.dumps(content, indent=1, ensure_ascii=False).encode()))


class Stopwatch:
    """Keeps the seconds that a draft has taken in its file `seconds`, over all runs that worked on it."""

    FILE = "seconds"

    def __init__(self, draft: Path):
        self.file, self.since, self.before = draft / self.FILE, time.time(), 0.0
        with suppress(OSError, ValueError):  # it is not there, or was cut short
            self.before = float(self.file.read_text())

    def write(self) -> float:
        """Keeps the seconds so far and returns them."""
        seconds = self.before + time.time() - self.since
        write_whole(self.file, lambda opened: opened.write(f"{seconds:.1f}".encode()))
        return seconds
