"""A row of the table of many runs, and what the results.json of a run says of itself: question, setting, training."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffcontrol.report import pooling, published
from diffcontrol.report.grid import cell
from diffcontrol.report.layout import MEANS, REFERENCES, SHOWN

SHOWN_OF_RUNS: tuple[tuple[str, str, int, float], ...] = (  # header, measure, digits, scale
    ("strict %", "strict", 1, 100.0),
    ("released %", "released", 1, 100.0),
    ("met and grammatical %", "met_and_grammatical", 1, 100.0),
    ("perplexity", "perplexity", 2, 1.0),
    ("n-gram perplexity", "perplexity_ngram", 2, 1.0),
    ("grammatical %", "grammatical", 1, 100.0),
    ("length", "length", 1, 1.0),
    *((header, key, 2, 1.0) for key, header in SHOWN.items()),
    ("seconds per sample", "seconds_per_sample", 3, 1.0),
    *MEANS,
)
_OF_RUN = ("seconds_per_sample", "token_evaluations_per_sample", "parameters", "training_seconds")
Key = tuple[int, str, str]  # seed, training ("" unless it has a model_seed), and what is mixed


@dataclass
class Row:
    """One method on one task of one kind of run; `runs` and `measures` hold one entry a run, by seed and training.

    title: on what the runs stand, for the head of their table; empty where runs of several kinds are mixed.
    """

    title: str
    data: str
    tasks: tuple[str, ...]
    task: str
    method: str
    setting: dict[str, str]
    targets: str
    runs: dict[Key, Path] = field(default_factory=dict)
    measures: dict[str, list[Any]] = field(default_factory=dict)  # None where a run lacks the number
    models: set[str] = field(default_factory=set)

    @property
    def seeds(self) -> list[str]:
        return sorted({str(key[0]) for key in self.runs}, key=natural)

    @property
    def trainings(self) -> list[str]:
        return sorted({key[1] for key in self.runs}, key=natural)

    @property
    def paper(self) -> published.Published | None:
        return published.of(self.method, self.tasks) if self.data == "e2e" and self.task in self.tasks else None


def question(results: Mapping) -> tuple:
    """Data, tasks and targets, as a run describes them."""
    return (results["data"], tuple(results["tasks"]), wanted_of(results))


def described(path: Path, results: Mapping, apart: Collection[tuple] = ()) -> str:
    """What runs must share to stand in one table: data, targets, experiment and commit. The set of targets is named
    for the questions in `apart`; the sets of different tasks always differ."""
    experiment = (results.get("settings") or {}).get("experiment")
    parts = [results["data"], f"targets from {wanted_of(results)} samples"]
    parts += [pooling.read(path).targets] if question(results) in apart else []
    parts += [f"experiment {experiment}" if experiment else "", f"commit {results['commit'] or 'unknown'}"]
    return ", ".join(filter(None, parts))


def wanted_of(results: Mapping) -> str:
    """Where the targets are from, and how many texts were written."""
    return f"{results['targets']['from']}, {results['targets']['n']} × {results['num_samples']}"


def trained_as(results: Mapping) -> str:
    """What the command line said of models' seeds, as `1` or `lm.model_seed=1`; empty if nothing."""
    said = {name: value for name, value in (results.get("settings") or {}).items() if _is_model_seed(name)}
    if set(said) == {"model_seed"}:
        return "" if said["model_seed"] == "0" else str(said["model_seed"])  # 0 is the default
    return ", ".join(f"{name}={value}" for name, value in sorted(said.items()))


def _is_model_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "model_seed"


def measures_of(found: Mapping, task: str) -> dict[str, Any]:
    """Of what results.json holds of a method: success on the task, fluency, diversity, and costs.

    Raises:
        TypeError: one is neither a number nor a measure.
    """
    values = {**found.get("success", {}).get(task, {}), **found.get("fluency", {}), **found.get("diversity", {})}
    values |= {name: found[name] for name in _OF_RUN if name in found}
    for value in values.values():
        cell(value)  # which raises
    return values


def setting_of(results: Mapping, method: str) -> dict[str, str]:
    """What else tells runs apart: settings (not for gold, which nothing changes, nor those of another method) and the
    method's own strengths; of runs that do not tell whose a strength is, all of them (not for unguided)."""
    own = results["methods"][method].get("strength")
    strength = own if own is not None else results.get("strength") if method not in REFERENCES else None
    said = {} if method == "gold" else _leaves(results.get("settings"), "settings")
    shared = {f"settings.{name}" for name in ("experiment", "model_seed")}  # the table's title, and what is pooled
    others = tuple(f"settings.method.{other}." for other in results["methods"] if other != method)
    said = {
        name: value
        for name, value in said.items()
        if name not in shared and not _is_model_seed(name) and not name.startswith(others)
    }
    return {name: _written(value) for name, value in {**said, **_leaves(strength, "strength")}.items()}


def _written(value: Any) -> str:
    """A setting as the table shows it; 1 and 1.0 are the same one."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.12g}" if plain else str(value)


def _leaves(tree: Any, path: str) -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {name: leaf for key, value in tree.items() for name, leaf in _leaves(value, f"{path}.{key}").items()}
    return {} if tree is None else {path: tree}


def natural(value: str) -> tuple[float, str]:
    """Sorts 0.5, 2, 10 as numbers and words after them."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def mean_of(value: Any) -> Any:
    """The mean of a measure; a plain number itself, None where a run lacks the number."""
    return value["mean"] if isinstance(value, Mapping) else value


def mean(row: Row, name: str) -> float | None:
    """Of a measure over runs; None where no run has it."""
    if (found := pooled(row, name)) is not None:
        return mean_of(found)
    values = [mean_of(value) for value in row.measures.get(name, []) if value is not None]
    return sum(values) / len(values) if values else None


def pooled(row: Row, name: str) -> Any:
    """A measure of all runs: of one its own; of several that of all their samples, where those were kept; else None."""
    if len(values := row.measures.get(name, [])) == 1:
        return values[0]
    return pooling.pooled(list(row.runs.values()), row.method, row.task, name)
