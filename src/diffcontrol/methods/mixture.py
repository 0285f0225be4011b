"""Mixture: a share of the texts by one setting of a method, the others by another one.

Mean NLL and mean success then lie between those of the two, so every point on the line between two settings is one that
the method reaches (`diffcontrol.frontier` compares methods there).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from diffcontrol.data.corpus import Corpus
from diffcontrol.method import Method
from diffcontrol.task import ControlTask, Request


class Mixture(Method):
    """Each text by `other` with probability `share`, else by `one`."""

    def __init__(self, one: Method, other: Method, share: float, chunk: int = 50, seed: int = 0):
        super().__init__(chunk, seed)
        self.one, self.other, self.share = one, other, share

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        Method.check_node(node["one"], tasks, corpus)

    def models(self) -> list[torch.nn.Module]:
        return list({id(model): model for model in [*self.one.models(), *self.other.models()]}.values())

    def write(self, requests: Sequence[Request], generator: torch.Generator) -> Iterator[float | list[list[str]]]:
        drawn = (torch.rand(len(requests), generator=generator) < self.share).tolist()
        texts: dict[int, list[str]] = {}
        for method, wanted in ((self.one, False), (self.other, True)):
            rows = [row for row, other in enumerate(drawn) if other is wanted]
            for news in method.write([requests[row] for row in rows], generator) if rows else ():
                if isinstance(news, list):
                    texts |= zip(rows, news, strict=True)
                else:
                    yield (len(texts) + news * len(rows)) / len(requests)
        yield [texts[row] for row in range(len(requests))]
