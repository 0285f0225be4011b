"""Many runs in tables: each results.json below a folder, by what was asked and how, pooled over seeds and trainings."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffcontrol.report import pooling, published
from diffcontrol.report.grid import cell, number
from diffcontrol.report.layout import MEANS, REFERENCES, SHOWN, asked, order
from diffcontrol.sweeps import REFUSED

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


def load(folder: Path) -> tuple[list[tuple[Path, dict]], list[str]]:
    """Runs below the folder, newest first, and a sentence for each that cannot be read or was refused."""
    runs, problems = [], []
    files = sorted(folder.rglob("results.json"), key=lambda path: (-path.stat().st_mtime, path))
    for path in files:
        broken = path
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            add([], path, results)  # a run that does not fit the table is broken too
            broken = path.parent / pooling.SAMPLES
            pooling.read(path)
            runs.append((path, results))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"skipped {path.parent}: {broken.name} is not complete ({type(error).__name__}: {error})")
    done = {path.parent for path in files}
    for path in sorted(path for path in folder.rglob(REFUSED) if path.parent not in done):
        problems.append(f"{path.parent} was refused: {path.read_text(encoding='utf-8', errors='replace').strip()}")
    return runs, problems


def gather(runs: Sequence[tuple[Path, Mapping]], mix: bool = False) -> tuple[list[Row], list[str]]:
    """Rows of all runs, given newest first, and notes on runs that were set aside or do not quite match.

    mix: runs of several commits, experiments and sets of targets are put into one table, and pooled.
    """
    rows: list[Row] = []
    apart = _several_sets(runs)
    notes = [note for path, results in runs for note in add(rows, path, results, mix, apart)]
    differ = sorted(
        {f"{row.method} on {'+'.join(row.tasks)}" for row in rows if len(row.models) > 1 and len(row.trainings) < 2}
    )
    if differ:
        notes.append(f"Averaged over different trained models: {', '.join(differ)}.")
    notes += [said for row in rows if (said := _over_trainings(row))]
    if mix and len(mixed := {described(path, results, apart) for path, results in runs}) > 1:
        notes.append(f"Mixed: {'; '.join(sorted(mixed))}.")
    methods = order(dict.fromkeys(name for _, results in reversed(runs) for name in results["methods"]))
    rows.sort(
        key=lambda row: (
            row.title,
            row.data,
            row.tasks,
            (*row.tasks, "all").index(row.task),
            row.targets,
            methods.index(row.method),
            [(name, natural(value)) for name, value in sorted(row.setting.items())],
        )
    )
    return rows, list(dict.fromkeys(notes))


def _several_sets(runs: Sequence[tuple[Path, Mapping]]) -> set[tuple]:
    """The questions that were asked of several sets of targets with one description, as two files of one name are."""
    found: dict[tuple, set[str]] = {}
    for path, results in runs:
        found.setdefault(_question(results), set()).add(pooling.read(path).targets)
    return {question for question, sets in found.items() if len(sets - {""}) > 1}


def _question(results: Mapping) -> tuple:
    return (results["data"], tuple(results["tasks"]), _wanted(results))


def described(path: Path, results: Mapping, apart: Collection[tuple] = ()) -> str:
    """What runs must share to stand in one table: data, targets, experiment and commit. The set of targets is named
    for the questions in `apart`; the sets of different tasks always differ."""
    experiment = (results.get("settings") or {}).get("experiment")
    parts = [results["data"], f"targets from {_wanted(results)} samples"]
    parts += [pooling.read(path).targets] if _question(results) in apart else []
    parts += [f"experiment {experiment}" if experiment else "", f"commit {(results['commit'] or 'unknown')[:12]}"]
    return ", ".join(filter(None, parts))


def _wanted(results: Mapping) -> str:
    return f"{results['targets']['from']}, {results['targets']['n']} × {results['num_samples']}"


def trained_as(results: Mapping) -> str:
    """What the command line said of models' seeds, as `1` or `lm.model_seed=1`; empty if nothing."""
    said = {name: value for name, value in (results.get("settings") or {}).items() if _is_model_seed(name)}
    if set(said) == {"model_seed"}:
        return "" if said["model_seed"] == "0" else str(said["model_seed"])  # 0 is the default
    return ", ".join(f"{name}={value}" for name, value in sorted(said.items()))


def _is_model_seed(name: str) -> bool:
    return name.rpartition(".")[2] == "model_seed"


def add(rows: list[Row], path: Path, results: Mapping, mix: bool = False,
        apart: Collection[tuple] = ()) -> list[str]:  # fmt: skip
    """Puts a run's methods into the rows they belong to; of two runs with one seed only the first given counts."""
    notes, tasks = [], tuple(results["tasks"])
    kind, wanted = described(path, results, apart), _wanted(results)
    key = (results["seed"], trained_as(results), kind if mix else "")
    for method, found in results["methods"].items():
        setting = setting_of(results, method)
        for task in asked(results):
            same = ("" if mix else kind, results["data"], tasks, task, method, setting, "" if mix else wanted)
            row = next((r for r in rows if (r.title, r.data, r.tasks, r.task, r.method, r.setting, r.targets) == same),
                       None)  # fmt: skip
            if row is None:
                rows.append(row := Row(*same))
            values = measures_of(found, task)
            if key not in row.runs:
                for name in values.keys() - row.measures.keys():
                    row.measures[name] = [None] * len(row.runs)
                row.runs[key] = path
                row.models.add(json.dumps(found.get("models", {}), sort_keys=True))
                for name, known in row.measures.items():
                    known.append(values.get(name))
            elif not _repeats(row, key, values):
                kept = row.runs[key]
                notes.append(f"Two runs of seed {results['seed']} differ in {method}: kept {kept}, set aside {path}.")
    return notes


def _repeats(row: Row, key: Key, values: Mapping[str, Any]) -> bool:
    """Whether the row has these very scores for this seed already: sweeps repeat what the swept value leaves alone."""
    at = list(row.runs).index(key)
    had = [row.measures[name][at] if name in row.measures else None for name in ("strict", "nll")]
    return [mean_of(x) for x in had] == [mean_of(values.get(name)) for name in ("strict", "nll")]


def _over_trainings(row: Row) -> str:
    """How far the trainings of a row's models lie apart, which its interval over targets does not say."""
    parts = []
    for header, name, digits, scale in SHOWN_OF_RUNS:
        by_training: dict[str, list[float]] = {}
        for key, value in zip(row.runs, row.measures.get(name, []), strict=False):
            if value is not None:
                by_training.setdefault(key[1], []).append(mean_of(value) * scale)
        means = [sum(values) / len(values) for values in by_training.values()]
        if name in ("strict", "perplexity") and len(means) > 1 and min(means) < max(means):
            parts.append(f"{header} {number(min(means), digits)} to {number(max(means), digits)}")
    return f"{row.method} on {row.task}, {len(row.trainings)} trainings: {', '.join(parts)}." if parts else ""


def measures_of(found: Mapping, task: str) -> dict[str, Any]:
    values = {**found.get("success", {}).get(task, {}), **found.get("fluency", {}), **found.get("diversity", {})}
    values |= {name: found[name] for name in _OF_RUN if name in found}
    for value in values.values():
        cell(value)  # raises on anything that is neither a number nor a measure
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
    return {name: str(value) for name, value in {**said, **_leaves(strength, "strength")}.items()}


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
