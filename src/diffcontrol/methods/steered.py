"""What methods share that a task steers through a head or through words fixed at their places."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object
from torch import nn

from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import Draws
from diffcontrol.layout import Layout, drawn, joint
from diffcontrol.method import Method, strengths
from diffcontrol.steering.base import Steering, Weighted
from diffcontrol.task import ControlTask, Request


class Steered(Method):
    """strength: task → weight of its log-probability, all multiplied by `scale`; `default` stands for tasks that have
    no number of their own."""

    def __init__(self, steering: Mapping[str, Steering], strength: Mapping[str, float], scale: float, chunk: int,
                 seed: int):  # fmt: skip
        super().__init__(chunk, seed)
        self.steering = dict(steering)
        self.strength = strengths(strength, scale, steering)

    @classmethod
    def check(cls, node: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
        for name, own in node["steering"].items():
            get_object(own["_target_"]).check(tasks[name], corpus)

    def positions(self, request: Request) -> int:
        needed = [steering.positions(request.targets[task]) for task, steering in self.steering.items()]
        return max((n for n in needed if n), default=0)

    def longest(self, requests: Sequence[Request], length: int) -> int:
        """How many positions have to be written for all of them at once: `length`, where one leaves it open."""
        sizes = [self.positions(request) for request in requests]
        return max(*sizes, self.least(requests)) if all(sizes) else length

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

    def layouts(self, requests: Sequence[Request], draws: Draws) -> list[Layout]:
        """What is fixed in each row, drawn where a target allows several ways."""
        choices = [[s.layouts(r.targets[task]) for task, s in self.steering.items()] for r in requests]
        return [drawn(joint(options), u) for options, u in zip(choices, draws.uniform().tolist(), strict=True)]

    def guides(self) -> list[nn.Module]:
        """The steerings that are networks."""
        return [steering for steering in self.steering.values() if isinstance(steering, nn.Module)]
