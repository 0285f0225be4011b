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
        fixed = [drawn(self._able(r), u) for r, u in zip(requests, draws.uniform().tolist(), strict=True)]
        if not self.lengths:
            return fixed
        uniforms = draws.uniform().tolist()  # used or not, so that what is drawn after them is the same
        if any(steering.ends for steering in self.steering.values()):
            return fixed
        rows = zip(fixed, requests, uniforms, strict=True)
        return [own if own.end else self._ended(self.lengths, own, request, u, length) for own, request, u in rows]

    def _able(self, request: Request) -> list[Layout]:
        """The layouts that all tasks agree on: where they fix END, those of a text as long as the tasks say that fix
        no words, and not shorter than these need."""
        choices = {task: steering.layouts(request.targets[task]) for task, steering in self.steering.items()}
        found = joint(list(choices.values()))
        others = [(s, request.targets[task]) for task, s in self.steering.items() if not choices[task]]
        said = {n for steering, target in others if (n := steering.positions(target))}
        least = max((steering.least(target) for steering, target in others), default=0)
        able = [own for own in found if own.end is None or (said <= {own.end + 1} and least <= own.end + 1)]
        return able or found

    def _ended(self, lengths: TrainingLengths, layout: Layout, request: Request, uniform: float, length: int) -> Layout:
        asked, positions = {task: request.targets[task] for task in self.steering}, self.positions(request)
        least, said = self.least([request]) - 2, positions - 2 if positions else None
        most = [n for task, s in self.steering.items() if (n := s.most(request.targets[task])) is not None]
        return lengths.end(layout, asked, least, uniform, length, said, min(most) - 2 if most else None)

    def completed(self, requests: Sequence[Request], texts: Sequence[list[str]]) -> list[list[str]]:
        """What was written, as the steerings complete it."""
        found = list(texts)
        for task, steering in self.steering.items():
            rows = zip(requests, found, strict=True)
            found = [steering.completed(words, request.targets[task]) for request, words in rows]
        return found

    @classmethod
    def has_opinion(cls, node: Mapping[str, Any]) -> bool:
        """Whether something guides; where all that is asked for is fixed at its place, nothing does."""
        kinds = [get_object(own["_target_"]) for own in node["steering"].values()]
        return super().has_opinion(node) and any(kind.control is not Steering.control for kind in kinds)

    def guides(self) -> list[nn.Module]:
        """The steerings that are networks."""
        return [steering for steering in self.steering.values() if isinstance(steering, nn.Module)]
