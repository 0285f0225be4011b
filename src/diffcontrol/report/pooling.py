"""Several runs as one: the scores of all their samples, by target, and measures that resample targets.

A target that several runs were given is one target: its samples of all runs stay together when targets are drawn.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffcontrol.metrics import interval

SAMPLES = "samples.jsonl"
Scores = Mapping[str, list[float]]  # target → scores of its samples
_OF_TEXT = ("nll", "nll_ngram", "grammatical", "length")  # the same whatever task is looked at


@dataclass
class Samples:
    """What samples.jsonl says: `scores` by (method, task, score's name), with the task "" where it is of the text
    alone; `targets` is a digest of the targets, empty if there is no such file."""

    targets: str = ""
    scores: dict[tuple[str, str, str], dict[str, list[float]]] = field(default_factory=dict)


def read(results: Path) -> Samples:
    """The samples beside a results.json. A file is read once, and anew when it changes."""
    path = Path(results).parent / SAMPLES
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else Samples()


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int) -> Samples:
    found = Samples()
    targets: dict[str, None] = {}
    with path.open(encoding="utf-8") as file:
        for line in filter(str.strip, file):
            sample = json.loads(line)
            target = json.dumps([sample["row"], sample["tasks"]], sort_keys=True)
            targets[target] = None
            of_text = {**sample, "length": len(sample["words"])}
            named = {("", name): of_text[name] for name in _OF_TEXT if name in of_text}
            named |= {(task, name): v for task, scores in sample["scores"].items() for name, v in scores.items()}
            for (task, name), value in named.items():
                scores = found.scores.setdefault((sample["method"], task, name), {})
                scores.setdefault(target, []).append(float(value))
    found.targets = f"set {hashlib.sha256(''.join(targets).encode()).hexdigest()[:6]}" if targets else ""
    return found


def pooled(paths: Sequence[Path], method: str, task: str, name: str) -> interval.Measure | None:
    """The measure of all samples of these runs; None if it is no mean over samples, or a run kept none."""
    wanted = name.replace("perplexity", "nll")
    together: dict[str, list[float]] = {}
    for path in paths:
        of_run: Any = read(path).scores.get((method, "" if wanted in _OF_TEXT else task, wanted))
        if of_run is None:
            return None
        for target, scores in of_run.items():
            together.setdefault(target, []).extend(scores)
    means = [sum(scores) / len(scores) for scores in together.values()]
    if name.startswith("perplexity"):
        return interval.perplexity(means) if wanted in _OF_TEXT else None
    return interval.measure(means, None if name in ("nll", "nll_ngram", "length") else interval.SHARE)
