"""Method: whatever writes texts that obey. Every baseline and guided diffusion fill this one interface."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from hydra.utils import get_object
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from diffcontrol.allowed import FLAG, Rules, number, whole
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws, seed_of
from diffcontrol.ranks import ALONE, Share
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Request

Progress = Callable[[float], None]  # told the share of a chunk that is written
Texts = Mapping[int, Sequence[str]]  # row i · n + j → the words of sample j of request i


def grouped(texts: Texts, n: int) -> list[list[list[str]]]:
    """Texts by row, all of them, as [requests][n]."""
    return [[list(texts[i + j]) for j in range(n)] for i in range(0, len(texts), n)]


def strengths(strength: Mapping[str, float], scale: float, tasks: Iterable[str]) -> dict[str, float]:
    """task → scale × its strength; `default` stands for tasks that have none."""
    return {task: scale * strength.get(task, strength.get("default", 0.0)) for task in tasks}


class Method(ABC):
    """Writes `n` texts for every request. Each text has random numbers of its own, so that it depends on the seed, its
    request and which sample it is: more samples or more requests add texts to a run. The chunk that it is written in
    changes a text only as far as positions are left out that no text of the chunk needs (docs/concepts.md, Draws)."""

    #: which values its arguments, those of a config node, may have (`diffcontrol.allowed`)
    allowed: ClassVar[Rules] = {
        "chunk": whole(1), "seed": whole(), "scale": number(0), "strength.*": number(),
        "clean": FLAG, "twist": FLAG,
        "temperature": number(above=0), "pre_top_k": whole(0), "post_top_k": whole(0), "top_k": whole(0),
        "k": whole(1), "beams": whole(1), "particles": whole(1), "threshold": number(0, 1), "weight": number(0),
        "step": number(0), "updates": whole(0), "kl": number(0), "fusion": number(0, 1), "share": number(0, 1),
    }  # fmt: skip

    def __init__(self, chunk: int, seed: int):
        self.chunk, self.seed = chunk, seed

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """Asked before anything is trained: whether this method, with this config node, is applicable to the tasks.

        Raises:
            Refused: it cannot, and why.
        """
        return None  # most can

    @staticmethod
    def check_node(node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """`check` of the method that a config node describes."""
        get_object(node["_target_"]).check(node, tasks, corpus)

    @abstractmethod
    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        """One text, as words, for each request of a chunk, by the numbers that its own row of `draws` gives; `progress`
        is told the share that is done now and then."""

    @abstractmethod
    def models(self) -> list[torch.nn.Module]:
        """The networks it runs while writing, for the count of token evaluations."""

    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """How likely its own guide finds each finished text to obey, as log-probabilities [B].

        Raises:
            Refused: it has no guide.
        """
        raise Refused(f"{type(self).__name__} has no guide of its own to choose texts by")

    @classmethod
    def has_opinion(cls, node: Mapping[str, Any]) -> bool:
        """Whether the method that a config node describes has a guide of its own."""
        return cls.opinion is not Method.opinion

    def denoising(self, request: Request, n: int) -> list[tuple[float, list[str]]]:
        """How the request's first text comes about, for reports: the time and the likeliest words at `n` of the steps,
        the last one included; nothing unless overridden, as most methods write word by word."""
        return []

    def positions(self, request: Request) -> int:
        """How many positions a text for this request takes, where that is known before it is written; else 0.
        Requests that take as many are written together, as a chunk costs what its longest text does."""
        return 0

    def draws(self, requests: Sequence[Request], n: int) -> Draws:
        """The random numbers of `n` texts for each request, [requests · n]. Equal requests get different ones."""
        seen: Counter[int] = Counter()
        seeds = []
        for request in requests:
            seeds += [seed_of(self.seed, request.number, seen[request.number], sample) for sample in range(n)]
            seen[request.number] += 1
        return Draws(seeds)

    def generate(self, requests: Sequence[Request], n: int, title: str = "") -> list[list[list[str]]]:
        """Texts as words, [requests][n]. A bar with the title shows how far it is; no title, no bar."""
        return grouped(self.texts(requests, n, title), n)

    def texts(
        self, requests: Sequence[Request], n: int, title: str = "", known: Texts = MappingProxyType({}),
        keep: Callable[[Texts], None] = lambda chunk: None, share: Share = ALONE,
    ) -> dict[int, list[str]]:  # fmt: skip
        """Row → words of the texts, or of this process' share of them: every `share.world`-th chunk.

        known: texts that are there already and are not written again; keep: is told the texts of each chunk once they
        are written.
        """
        rows, draws = [request for request in requests for _ in range(n)], self.draws(requests, n)
        order = sorted(range(len(rows)), key=lambda row: (self.positions(rows[row]), row))
        own = [row for first in range(share.rank * self.chunk, len(order), share.world * self.chunk)
               for row in order[first : first + self.chunk]]  # fmt: skip
        texts = {row: list(known[row]) for row in own if row in known}
        missing = [row for row in own if row not in texts]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, disable=not title) as bar:
            shown = bar.add_task(f"writing: {title}", total=len(own))

            def progress(done: float) -> None:
                bar.update(shown, completed=int(len(texts) + done * len(chunk)))

            for first in range(0, len(missing), self.chunk):
                chunk = missing[first : first + self.chunk]
                written = self.write([rows[row] for row in chunk], draws.select(chunk), progress)
                done = dict(zip(chunk, written, strict=True))
                texts |= done
                keep(done)
                bar.update(shown, completed=len(texts))
        return texts
