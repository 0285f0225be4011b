"""Processes that train the toy: killed at random moments, several at once, and with a disk that is full.

They are forked, as importing torch takes longer than all that they do.
"""

import logging
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from diffcontrol.cli import DISK
from diffcontrol.refused import Refused
from diffcontrol.store import Store, weights
from tests.faults.outcome import LOST, SILENT, SURVIVED, TRACEBACK, Outcome
from tests.toys import Faults, toy

TRAINER = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}
FORK = multiprocessing.get_context("fork")
LONG = toy(steps=200, checkpoint=5, ema=0.9)


def store(root: Path) -> Store:
    return Store(root, trainer=TRAINER)


def _train(root: Path, recipe: dict, seconds: float, file_size: int, ended: Any) -> None:
    logging.basicConfig(filename=root.with_suffix(".log"), level=logging.INFO, force=True)
    Faults.sleep = seconds
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    own = store(root)
    try:
        own.fit(recipe)
        ended.put(("trained", own.trained))
    except Refused as refused:
        ended.put(("refused", str(refused)))
    except OSError as error:
        ended.put(("refused" if error.errno in DISK else "raised", str(error)))
    except BaseException as error:
        ended.put(("raised", f"{type(error).__name__}: {error}"))


class Training:
    """A process that trains a recipe in a store, so many seconds a step; no file may be larger than `file_size`."""

    def __init__(self, root: Path, recipe: dict = LONG, seconds: float = 0.002, file_size: int = 0):
        self.ended = FORK.Queue()
        self.process = FORK.Process(target=_train, args=(root, recipe, seconds, file_size, self.ended))
        self.process.start()

    def result(self) -> tuple[str, Any]:
        """How it ended (trained, refused, raised, or killed) and what it said."""
        self.process.join(300)
        return self.ended.get() if self.process.exitcode == 0 else ("killed", str(self.process.exitcode))


def same(one: Path, other: Path, recipe: dict = LONG) -> bool:
    """Whether two stores hold the same weights to the last bit."""
    name = store(one).address(recipe)
    return (one / name / weights.FILE).read_bytes() == (other / name / weights.FILE).read_bytes()


def kills(folder: Path, count: int, seed: int = 0) -> Iterator[Outcome]:
    """So many SIGKILLs at random moments of trainings, each of which is run again until it ends."""
    drawn = random.Random(seed)
    Training(folder / "calm").result()
    began = time.monotonic()
    Training(folder / "timed").result()
    whole, done, turn = time.monotonic() - began, 0, 0
    while done < count:
        root, moments = folder / f"killed{turn}", []
        turn += 1
        while done + len(moments) < count and len(moments) < 5:
            training, moment = Training(root), drawn.uniform(0, 0.7) * whole
            training.process.join(moment)
            if training.process.exitcode is not None:
                break  # it had ended before
            training.process.kill()
            training.process.join()
            moments.append(moment)
        how, said = Training(root).result()
        fine = how == "trained" and same(root, folder / "calm")
        tidy = [path.name for path in (root / ".drafts").iterdir()] == []
        verdict = SURVIVED if fine and tidy else TRACEBACK if how == "raised" else LOST
        yield from (Outcome("SIGKILL", f"after {moment:.2f} s", verdict, str(said)) for moment in moments)
        done += len(moments)


def parallel(folder: Path, count: int) -> Iterator[Outcome]:
    """So many processes that want the same model at once: one trains it, the others wait and say for what."""
    root = folder / "parallel"
    results = [each.result() for each in [Training(root, toy(), seconds=0.05) for _ in range(count)]]
    trained = sum(len(said) for how, said in results if how == "trained")
    waited = root.with_suffix(".log").read_text().count("waiting for another process")
    for number, (how, said) in enumerate(results):
        verdict = TRACEBACK if how == "raised" else LOST if how != "trained" or trained != 1 else SURVIVED
        if verdict == SURVIVED and count > 1 and not waited:
            verdict = SILENT
        yield Outcome("parallel", f"process {number}", verdict, str(said))


def full_disk(folder: Path, sizes: tuple[int, ...] = (10, 2000, 4000)) -> Iterator[Outcome]:
    """No file may be larger than so many bytes, at first; then it may, and the same command goes on."""
    Training(folder / "roomy").result()
    for size in sizes:
        root = folder / f"full{size}"
        how, said = Training(root, file_size=size).result()
        again, _ = Training(root).result()
        verdict = TRACEBACK if how == "raised" else SILENT if how == "trained" else SURVIVED
        if again != "trained" or not same(root, folder / "roomy"):
            verdict = LOST
        yield Outcome("full disk", f"{size} bytes a file", verdict, str(said))


torch.set_num_threads(1)  # a fork keeps no threads
