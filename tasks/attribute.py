"""The whole text is to have a property: a tone, family-friendliness, a band of prices, any label of a data set.

    target ["tone", "warning"]     "Sorrel is a shabby diner that sells greasy fare ."    strict 1, probability .98
                                   "Sorrel is a charming diner that sells fresh fare ."   strict 0, probability .01

*strict* and *released*: the judge holds the value to be the likeliest of its label's (the paper has no such task, but
FUDGE, PPLM and others are scored so). *probability*: what the judge gives the value. The judge (`judges/labels.py`) is
a classifier of another kind, trained on another half of the training texts than what guides; how often it is right on
held-out texts stands in results.json under `judges`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.judges.labels import Labels, likeliest
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Head


class Attribute(ControlTask):
    """Targets are [label, value]; an annotation lists all of a text. `label`: the only one to be asked for."""

    def __init__(self, data: Corpus, label: str | None = None):
        self.corpus, self.label = data, label

    @cached_property
    def labels(self) -> Labels:
        found = Labels(self.corpus.splits["train"])
        if not found:
            raise Refused("attribute: the data have no labels; say data.labels.<label>=<column> (data=table)")
        if self.label not in (None, *found.values):
            known = ", ".join(found.values)
            raise Refused(f"attribute: task.attribute.label={self.label} is no label of the data; known are {known}")
        return found

    def annotate(self, example: Example) -> list[list[str]]:
        return [list(pair) for pair in example.labels.items() if pair in self.labels.numbers]

    def targets(self, annotation: list[list[str]]) -> list[list[str]]:
        return [pair for pair in annotation if self.label in (None, pair[0])]

    def parse(self, target: Any) -> list[str]:
        """[label, value], or the text "label: value"."""
        parts = [part.strip() for part in target.split(":", 1)] if isinstance(target, str) else target
        if not isinstance(parts, list | tuple) or len(parts) != 2:
            raise Refused(f"attribute: {target!r} is not a target; write [label, value]")
        label, value = map(str, parts)
        if label not in self.labels.values:
            raise Refused(f"attribute: no label {label!r}; known are {', '.join(self.labels.values)}")
        if value not in self.labels.values[label]:
            known = ", ".join(self.labels.values[label])
            raise Refused(f"attribute: {label} has no value {value!r}; known are {known}")
        return [label, value]

    def head(self, width: int) -> "LabelHead":
        return LabelHead(width, self.labels)

    def serialize(self, target: Sequence[str]) -> list[str]:
        return [*target[0].split(), ":", *target[1].split()]

    def classes(self) -> list[list[str]]:
        return [list(pair) for pair in self.labels.numbers if self.label in (None, pair[0])]

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        if judges.get("labels") is None:
            raise Refused("attribute: scoring needs the judge `labels` (conf/task/attribute.yaml)")
        said = [
            judged.get(label, {}) for judged, (label, _) in zip(judges["labels"].judge(texts), targets, strict=True)
        ]
        rows = list(zip(texts, said, targets, strict=True))
        right = [float(bool(words) and bool(probs) and likeliest(probs) == value) for words, probs, (_, value) in rows]
        probability = [probs.get(value, 0.0) if words else 0.0 for words, probs, (_, value) in rows]
        return {"strict": right, "released": right, "probability": probability}


class LabelHead(Head):
    """Σ over positions of scores, a softmax for each label: every word tells a little."""

    def __init__(self, width: int, labels: Labels):
        super().__init__()
        self.labels = labels
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(labels)))

    def _log_probs(self, hidden: Tensor) -> Tensor:
        return self.labels.log_probs(self.score(hidden).float().sum(1) / 4)  # else it starts out too sure of itself

    def loss(self, hidden: Tensor, annotations: Sequence[Sequence[Sequence[str]]]) -> Tensor:
        rows = [[(label, value) for label, value in annotation] for annotation in annotations]
        return self.labels.loss(self._log_probs(hidden), rows)

    def log_prob(self, hidden: Tensor, targets: Sequence[Sequence[str]]) -> Tensor:
        wanted = torch.tensor([self.labels.numbers[label, value] for label, value in targets], device=hidden.device)
        return self._log_probs(hidden).gather(1, wanted[:, None])[:, 0]
