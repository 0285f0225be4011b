"""The whole text is to have a property: a tone, family-friendliness, a band of prices, any label of a data set.

    target ["tone", "warning"]     "Sorrel is a shabby diner that sells greasy fare ."    strict 1, probability .98
                                   "Sorrel is a charming diner that sells fresh fare ."   strict 0, probability .01

*strict* and *released*: the judge holds the value to be the likeliest of its label's (the paper has no such task, but
FUDGE, PPLM and others are scored so). *probability*: what the judge gives the value. The judge (`judges/labels.py`) is
a classifier of another kind, trained on another half of the training texts than what guides; how often it is right on
held-out texts stands in results.json under `judges`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.judges.labels import Labels, likeliest
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask, Head, Mark, spelling

log = logging.getLogger(__name__)
RESTS = 1.0  # nats of log-odds that a word has to be worth to be marked
TINIEST = 1e-300  # of a probability, whose logarithm is to be finite


class Attribute(ControlTask):
    """Targets are [label, value]; an annotation lists all of a text. `label`: the only one to be asked for."""

    def __init__(self, data: Corpus, label: str | None = None):
        self.corpus, self.label = data, label

    @cached_property
    def labels(self) -> Labels:
        found = Labels(self.corpus.splits["train"])
        if not found and not found.alike:
            raise Refused("attribute: the data have no labels; set data.labels.<label>=<column> (data=table)")
        if self.label in found.alike or (not found and self.label is None):
            label = self.label or next(iter(found.alike))
            raise Refused(f"attribute: the label {label!r} is {found.alike[label]!r} in every training text that has "
                          "it, so there is nothing to tell apart")  # fmt: skip
        if self.label not in (None, *found.values):
            known = ", ".join(found.values or found.alike)
            raise Refused(f"attribute: task.attribute.label={self.label} is no label of the data; known are {known}")
        return found

    def annotate(self, example: Example) -> list[list[str]]:
        known = self.labels.numbers
        return [list(pair) for pair in example.labels.items() if pair in known]

    def targets(self, annotation: list[list[str]]) -> list[list[str]]:
        return [pair for pair in annotation if self.label in (None, pair[0])]

    def parse(self, target: Any) -> list[str]:
        """[label, value], or the text "label: value"."""
        parts = [part.strip() for part in target.split(":", 1)] if isinstance(target, str) else target
        if not isinstance(parts, list | tuple) or len(parts) != 2:
            raise Refused(f"attribute: {target!r} is not a target; write [label, value], as [tone, warning]")
        label, value = str(parts[0]), parts[1]
        if label not in self.labels.values:
            raise Refused(f"attribute: no label {label!r}; known are {', '.join(self.labels.values)}")
        value = spelling(value, self.labels.values[label])
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
        if unknown := sorted({": ".join(target) for _, probs, target in rows if target[1] not in probs}):
            what = "attribute: the judge knows no %s, as no text that it learned from has it; these count as missed"
            log.warning(what, ", ".join(unknown))
        right = [float(bool(words) and bool(probs) and likeliest(probs) == value) for words, probs, (_, value) in rows]
        probability = [probs.get(value, 0.0) if words else 0.0 for words, probs, (_, value) in rows]
        return {"strict": right, "released": right, "probability": probability}

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """The words that the judge's opinion rests on: those without which the log-odds of the target would be lower
        (met) or higher (not met) by RESTS or more. Each is replaced by UNK in turn, which the judge saw in training."""
        without = [[*words[:i], "UNK", *words[i + 1 :]] for words in texts for i in range(len(words))]
        if judges.get("labels") is None or not without:
            return [[] for _ in texts]
        said, left_out = judges["labels"].judge(texts), iter(judges["labels"].judge(without))
        found = []
        for words, whole, (label, value) in zip(texts, said, targets, strict=True):
            own = log_odds(whole.get(label, {}), value)
            drops = [own - log_odds(next(left_out).get(label, {}), value) for _ in words]
            signs = [(drop > 0) - (drop < 0) if abs(drop) >= RESTS else 0 for drop in drops]
            runs = [(sign, [i for i, _ in run]) for sign, run in groupby(enumerate(signs), key=itemgetter(1))]
            found.append([Mark(run[0], run[-1] + 1, sign > 0, label) for sign, run in runs if sign])
        return found


def log_odds(probs: Mapping[str, float], value: str) -> float:
    """log p(value) − log p(any other value), which unlike log p does not saturate where p is almost 1. Of a judge
    that says nothing it is 0."""
    others = sum(prob for other, prob in probs.items() if other != value)
    return math.log(max(probs.get(value, 0.0), TINIEST)) - math.log(max(others, TINIEST))


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
