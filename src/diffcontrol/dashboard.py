"""What loggers show of controls: how well a classifier reads noisy texts, and how log p(c | x_t) goes while a text is
written.

B batch · L positions
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffcontrol.data.corpus import spaced
from diffcontrol.draws import seed_of
from diffcontrol.steering.base import Control, Look, Steering
from diffcontrol.steering.classifier import ControlClassifier
from diffcontrol.task import Request, Target

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the way from the least noise of the language model to the most
TEXTS = 200  # dev texts at most
Row = dict[str, Any]  # of a table


def classifiers(methods: Mapping[str, Any]) -> list[Row]:
    """Method, task, time t, accuracy and number of texts of every control classifier that steers one of the methods;
    where it steers several, the first of them."""
    found: dict[tuple[str, int], tuple[str, ControlClassifier]] = {}
    for name, method in methods.items():
        for task, steering in getattr(method, "steering", {}).items():
            if isinstance(steering, ControlClassifier):
                found.setdefault((task, id(steering)), (name, steering))
    return [
        {"method": name, **row} for (task, _), (name, classifier) in found.items() for row in accuracy(task, classifier)
    ]


@torch.no_grad()
def accuracy(task: str, classifier: ControlClassifier) -> list[Row]:
    """How often a classifier finds a target that a dev text meets likelier than one of another text's that it does not
    meet, at times at each of LEVELS: 1 if always, ½ by chance. Targets and noise are drawn with a seed of their own."""
    corpus, lm = classifier.corpus, classifier.lm
    pairs = _pairs(classifier, torch.Generator().manual_seed(seed_of(0)))
    if not pairs:
        return []
    places, own, other = (list(column) for column in zip(*pairs, strict=True))
    ids, device = corpus.ids["dev"][places], classifier.device
    rows = []
    for number, level in enumerate(LEVELS):
        time = round(lm.low + (1 - lm.low) * level, 2)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed_of(0, number))
            t = torch.full((len(ids),), time, device=device)
            hidden = classifier.read(lm.noisy(ids.to(device), t), t)
            right = classifier.head.log_prob(hidden, own) > classifier.head.log_prob(hidden, other)
        rows.append({"task": task, "t": time, "accuracy": right.float().mean().item(), "n": len(ids)})
    return rows


def _pairs(classifier: ControlClassifier, generator: torch.Generator) -> list[tuple[int, Target, Target]]:
    """Of dev texts: its place, a target it meets, and one of another text's that it does not meet."""
    task = classifier.task
    dev = classifier.corpus.splits["dev"]
    chosen = spaced(range(len(dev)), TEXTS)  # neighbours may say the same, as E2E's do
    targets = {place: task.targets(task.annotate(dev[place])) for place in chosen}
    able = [place for place, own in targets.items() if own]

    def pick(choices: Sequence[Any]) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    pairs = []
    for place in able:
        other = pick(targets[pick(able)])
        if other not in targets[place]:
            pairs.append((place, pick(targets[place]), other))
    return pairs


def trajectories(methods: Mapping[str, Any], requests: Sequence[Request]) -> list[Row]:
    """log p(target | x_t) at every step at which a guidance asks for it, while each method that is steered writes one
    text for each request. Where it asks several times at one t, the last answer stands; of several rows, their mean."""
    steered = {name: method for name, method in methods.items() if getattr(method, "steering", None)}
    rows = []
    for name, method in steered.items():
        for number, request in enumerate(requests):
            heard: dict[tuple[str, float], float] = {}
            recorded = copy.copy(method)
            recorded.steering = {task: Recorded(steering, task, heard) for task, steering in method.steering.items()}
            recorded.denoising(request, 1)
            rows += [
                {"method": name, "row": number, "task": task, "target": str(request.targets[task]), "t": t,
                 "log_prob": value}
                for (task, t), value in heard.items()
            ]  # fmt: skip
    return rows


class Recorded(Steering):
    """A steering whose control writes down what it answers: (task, t) → log p."""

    def __init__(self, steering: Steering, task: str, heard: dict[tuple[str, float], float]):
        self.steering, self.task, self.heard, self.ends = steering, task, heard, steering.ends

        self.layouts, self.positions = steering.layouts, steering.positions  # type: ignore[method-assign]
        self.least, self.most = steering.least, steering.most  # type: ignore[method-assign]
        self.completed = steering.completed  # type: ignore[method-assign]

    def control(self, targets: Sequence[Target]) -> Control | None:
        control = self.steering.control(targets)
        return control and RecordedControl(control, self.task, self.heard)


class RecordedControl(Control):
    def __init__(self, control: Control, task: str, heard: dict[tuple[str, float], float]):
        self.inner, self.task, self.heard = control, task, heard

    def log_prob(self, look: Look) -> Tensor:
        found = self.inner.log_prob(look)
        self.heard[self.task, round(float(look.t[0]), 4)] = found.detach().mean().item()
        return found

    @property
    def automata(self) -> Any:
        return self.inner.automata
