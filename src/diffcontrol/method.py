"""Method: whatever writes texts that obey. Every baseline and guided diffusion fill this one interface."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from diffcontrol.data.corpus import Corpus
from diffcontrol.task import ControlTask, Request
from diffcontrol.training import seed_of


class Method(ABC):
    """Writes `n` texts for every request. All requests × samples form one stream cut into fixed chunks, each with
    its own seed, so that results do not depend on how chunks are shared out."""

    def __init__(self, chunk: int, seed: int):
        self.chunk, self.seed = chunk, seed

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """Asked before anything is trained: whether this method, with this config node, can serve the tasks.

        Raises:
            ValueError: it cannot, and why.
        """
        return None  # most can

    @staticmethod
    def check_node(node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        """`check` of the method that a config node describes."""
        get_object(node["_target_"]).check(node, tasks, corpus)

    @abstractmethod
    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        """One text for each request of a chunk: yields the fraction done now and then, at last the texts."""

    @abstractmethod
    def models(self) -> list[torch.nn.Module]:
        """The networks it runs while writing, for the count of token evaluations."""

    def opinion(self, requests: Sequence[Request], texts: Sequence[Sequence[str]]) -> Tensor:
        """How likely its own guide finds each finished text to obey, as log-probabilities [B].

        Raises:
            ValueError: it has no guide.
        """
        raise ValueError(f"{type(self).__name__} has no guide of its own to choose texts by")

    def generate(self, requests: Sequence[Request], n: int, title: str = "") -> list[list[list[str]]]:
        """Texts as words, [requests][n]."""
        rows = [request for request in requests for _ in range(n)]
        chunks = [rows[i : i + self.chunk] for i in range(0, len(rows), self.chunk)]
        texts: list[list[str]] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task(f"writing: {title}", total=len(rows))
            for number, chunk in enumerate(chunks):
                generator = torch.Generator().manual_seed(seed_of(self.seed, number))
                for news in self.write(chunk, generator):
                    if isinstance(news, list):
                        texts.extend(news)
                    else:
                        progress.update(bar, completed=int(len(texts) + news * len(chunk)))
                progress.update(bar, completed=len(texts))
        return [texts[i * n : (i + 1) * n] for i in range(len(requests))]
