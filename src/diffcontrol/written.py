"""Texts as they come: what a method has written so far is kept in the run's folder, so that a run that is stopped goes
on where it was when it is repeated in that folder (`hydra.run.dir=<folder>`)."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffcontrol.drafts import write_whole
from diffcontrol.refused import Refused
from diffcontrol.task import Request


class Written:
    """The texts of one method, row → words, where row i · n + j is sample j of request i; a line of the file for every
    chunk, below one that says what the texts were written by and for. What was written by or for anything else is
    dropped, and so is a line that a kill cut short.

    node: the method's resolved config node; n: samples of each request.
    seconds, token_evaluations: what the texts have cost, over all runs that wrote some of them.
    """

    def __init__(self, file: Path, node: Mapping[str, Any], requests: Sequence[Request], n: int):
        self.file, self.texts = file, dict[int, list[str]]()
        self.seconds, self.token_evaluations = 0.0, 0
        said = [node, [request.number for request in requests], n]
        head = {"digest": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}
        lines = list(_lines(file))
        if lines[:1] != [head]:
            lines = [head]
        for line in lines[1:]:
            self._take(line)
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = "".join(_dumped(line) for line in lines).encode()
        write_whole(file, lambda opened: opened.write(whole))  # a line that was cut short is gone

    def add(self, texts: Mapping[int, Sequence[str]], seconds: float, token_evaluations: int) -> None:
        """Keeps the texts of a chunk and what they cost; once this returns, a kill does not lose them."""
        line = {"texts": list(texts.items()), "seconds": seconds, "token_evaluations": token_evaluations}
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(_dumped(line))
            opened.flush()
            os.fsync(opened.fileno())
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        self.texts |= {row: list(words) for row, words in line["texts"]}
        self.seconds += line["seconds"]
        self.token_evaluations += line["token_evaluations"]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a run's folder, which is made where there is none.

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
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, up to the first that is not whole; none where there is no file."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as opened:
        for line in opened:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _dumped(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
