"""What methods share that a task steers through a head or through words fixed at their places."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object
from torch import nn

from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.layout import Layout, drawn, joint, taken
from diffcontrol.lengths import TrainingLengths
from diffcontrol.method import Method, strengths
from diffcontrol.steering.base import Steering, Weighted
from diffcontrol.task import ControlTask, Request


class Steered(Method):
    """strength: task → weight of its log-probability, all multiplied by `scale`; `default` stands for tasks that have
    no number of their own.

    lengths: how long a text is where its targets leave that open. END is fixed there, and where a target says the
    length, unless a control moves END itself; without it the language model decides.
    """

    def __init__(self, steering: Mapping[str, Steering], strength: Mapping[str, float], scale: float,
                 lengths: TrainingLengths | None, chunk: int, seed: int):  # fmt: skip
        super().__init__(chunk, seed)
        self.steering, self.lengths = dict(steering), lengths
        self.strength = strengths(strength, scale, steering)

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        for name, own in node["steering"].items():
            get_object(own["_target_"]).check(tasks[name], corpus)

    def positions(self, request: Request) -> int:
        needed = [steering.positions(request.targets[task]) for task, steering in self.steering.items()]
        return max((n for n in needed if n), default=0)

    def longest(self, requests: Sequence[Request], layouts: Sequence[Layout], length: int) -> int:
        """How many positions have to be written for all of them at once: `length`, where one leaves it open."""
        sizes = [self.positions(request) for request in requests]
        fixed = taken(layouts) or (max(sizes) if all(sizes) else None)
        return max(fixed, self.least(requests)) if fixed else length

    def least(self, requests: Sequence[Request]) -> int:
        """How many positions their controls read at least."""
        return max((s.least(r.targets[task]) for r in requests for task, s in self.steering.items()), default=0)

    def control(self, requests: Sequence[Request]) -> Weighted:
        """The weighted sum of the tasks' controls; of none where all that is asked for is fixed at its place."""
        parts = [
            (self.strength[task], steering.control([request.targets[task] for request in requests]))
            for task, steering in self.steering.items()
        ]
        return Weighted([(strength, part) for strength, part in parts if part])

    def layouts(self, requests: Sequence[Request], draws: Draws, length: int) -> list[Layout]:
        """What is fixed in each row of `length` positions, drawn where a target allows several ways."""
        choices = [[s.layouts(r.targets[task]) for task, s in self.steering.items()] for r in requests]
        fixed = [drawn(joint(options), u) for options, u in zip(choices, draws.uniform().tolist(), strict=True)]
        if not self.lengths or any(steering.ends for steering in self.steering.values()):
            return fixed
        rows = zip(fixed, requests, draws.uniform().tolist(), strict=True)
        return [own if own.end else self._ended(self.lengths, own, request, u, length) for own, request, u in rows]

    def _ended(self, lengths: TrainingLengths, layout: Layout, request: Request, uniform: float, length: int) -> Layout:
        asked, positions = {task: request.targets[task] for task in self.steering}, self.positions(request)
        least, said = self.least([request]) - 2, positions - 2 if positions else None
        return lengths.end(layout, asked, least, uniform, length, said)

    def guides(self) -> list[nn.Module]:
        """The steerings that are networks."""
        return [steering for steering in self.steering.values() if isinstance(steering, nn.Module)]
