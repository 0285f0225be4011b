"""Texts as they come: what a method has written so far is kept in the run's folder, so that a run that is stopped goes
on where it was when it is repeated in that folder (`hydra.run.dir=<folder>`)."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffcontrol.drafts import write_whole
from diffcontrol.method import Method, Texts, grouped
from diffcontrol.ranks import ALONE, Share
from diffcontrol.refused import Refused
from diffcontrol.task import Request

log = logging.getLogger(__name__)
WRITTEN = "written"  # the folder of texts as they come, in that of the run


class Written:
    """The texts of one method, row → words, where row i · n + j is sample j of request i; a line of the file for every
    chunk, below one that says what the texts were written by and for. A line that a kill cut short is dropped. Nothing
    is made before the first text is kept.

    Each process of a run has a file of its own, <name>.jsonl or <name>.rank<k>.jsonl, and reads those of the others.

    by: the method's config node as it enters an address (`Store.canonical`), so that a model or a data set which
    changed is another writer; n: samples of each request; share: of this process.

    Raises:
        Refused: the files hold texts that were written by or for something else; they are left as they are.
    """

    def __init__(self, folder: Path, name: str, by: Mapping[str, Any], requests: Sequence[Request], n: int,
                 share: Share = ALONE):  # fmt: skip
        self.folder, self.name, self.requests, self.n, self.share = folder, name, requests, n, share
        self.count = n * len(requests)
        self.file = folder / (f"{name}.rank{share.rank}.jsonl" if share.rank else f"{name}.jsonl")
        said = [by, [request.number for request in requests], n]
        self._head = {"digest": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}
        self._lines = self._read(self.file)
        self._begun = False
        self.look()

    @property
    def texts(self) -> dict[int, list[str]]:
        return {row: list(words) for line in (*self._others, *self._lines) for row, words in line["texts"]}

    @property
    def seconds(self) -> float:
        """What the texts have cost, over all processes and runs that wrote some of them."""
        return sum(line["seconds"] for line in (*self._others, *self._lines))

    @property
    def token_evaluations(self) -> int:
        """As `seconds`."""
        return sum(line["token_evaluations"] for line in (*self._others, *self._lines))

    def write(self, method: Method, title: str = "") -> None:
        """This process' share of the texts that are not there yet, and what they cost.

        title: of the progress bar; the method's name where it is empty.
        """
        first = not self.share.rank
        if first and self.texts:
            log.info("%s: %d texts are there already (%s)", self.name, len(self.texts), self.folder)
        since, before = time.perf_counter(), spent(method)

        def keep(texts: Texts) -> None:
            nonlocal since, before
            now, after = time.perf_counter(), spent(method)
            self.add(texts, now - since, after - before)
            since, before = time.perf_counter(), after

        method.texts(self.requests, self.n, (title or self.name) if first else "", self.texts, keep, self.share)

    def add(self, texts: Mapping[int, Sequence[str]], seconds: float, token_evaluations: int) -> None:
        """Keeps the texts of a chunk and what they cost; once this returns, a kill does not lose them."""
        line = {"texts": list(texts.items()), "seconds": seconds, "token_evaluations": token_evaluations}
        if not self._begun:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_lines(self.file, [self._head, *self._lines])  # a line that was cut short is gone
            self._begun = True
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(_dumped(line))
            opened.flush()
            os.fsync(opened.fileno())
        self._lines.append(line)

    def look(self) -> None:
        """Reads what the other processes have written by now."""
        files = {self.folder / f"{self.name}.jsonl", *self.folder.glob(f"{self.name}.rank*.jsonl")} - {self.file}
        self._others = [line for file in sorted(files) for line in self._read(file)]

    def all(self) -> list[list[list[str]]]:
        """[requests][n], once the other processes have written their shares. (Where one process of a run fails,
        Lightning or the scheduler ends the others.)"""
        while len(texts := self.texts) < self.count:
            time.sleep(0.2)
            self.look()
        return grouped(texts, self.n)

    def _read(self, file: Path) -> list[dict[str, Any]]:
        """The lines of a file below its first.

        Raises:
            Refused: the first one says that the others were written by or for something else.
        """
        lines = list(whole_lines(file))
        if len(lines) > 1 and lines[0] != self._head:
            raise Refused(
                f"{file}: these texts were written with other settings, models or targets; set another hydra.run.dir, "
                f"or remove the folder {file.parent}"
            )
        return lines[1:]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a run's folder, which is made where there is none. Where the run stops or fails, it says how to go on.

    Raises:
        Refused: another run is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(f"{folder}: another run is writing into this folder; hydra.run.dir=<another one> keeps them "
                         "apart") from None  # fmt: skip
    try:
        yield
    except Refused:
        raise
    except BaseException:
        if any((folder / WRITTEN).rglob("*.jsonl")):
            log.warning("what is written is kept: the same command with hydra.run.dir=%s goes on from it", folder)
        raise
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def spent(method: Method) -> int:
    """Token evaluations of its models so far."""
    return sum(getattr(model, "token_evaluations", 0) for model in method.models())


def whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, up to the first that is not whole; none where there is no file."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as opened:
        for line in opened:
            try:
                yield json.loads(line)
            except ValueError:
                return


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Makes such a file of these lines, whole or not at all."""
    whole = "".join(map(_dumped, lines)).encode()
    write_whole(file, lambda opened: opened.write(whole))


def _dumped(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
