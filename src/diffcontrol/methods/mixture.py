"""Mixture: a share of the texts by one setting of a method, the others by another one.

Mean NLL and mean success then lie between those of the two, so every point on the line between two settings is one that
the method reaches (`diffcontrol.frontier` compares methods there).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.method import Method, Progress
from diffcontrol.task import ControlTask, Request


class Mixture(Method):
    """Each text by `other` with probability `share`, else by `one`, in chunks that fit both."""

    def __init__(self, one: Method, other: Method, share: float, seed: int = 0):
        super().__init__(min(one.chunk, other.chunk), seed)
        self.one, self.other, self.share = one, other, share

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        Method.check_node(node["one"], tasks, corpus)

    def models(self) -> list[torch.nn.Module]:
        return list({id(model): model for model in [*self.one.models(), *self.other.models()]}.values())

    def positions(self, request: Request) -> int:
        return self.one.positions(request)

    def write(self, requests: Sequence[Request], draws: Draws, progress: Progress) -> list[list[str]]:
        drawn = (draws.uniform() < self.share).tolist()
        texts: dict[int, list[str]] = {}
        for method, wanted in ((self.one, False), (self.other, True)):
            rows = [row for row, other in enumerate(drawn) if other is wanted]
            if not rows:
                continue
            done = len(texts)

            def part(share: float, done: int = done, own: int = len(rows)) -> None:
                progress((done + share * own) / len(requests))

            found = method.write([requests[row] for row in rows], draws.select(rows), part)
            texts |= zip(rows, found, strict=True)
        return [texts[row] for row in range(len(requests))]
