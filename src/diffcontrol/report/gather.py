"""Many runs in tables: each results.json below a folder, by what was asked and how, pooled over seeds and trainings."""

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from diffcontrol.report import pooling, published
from diffcontrol.report.layout import (
    MEANS,
    MISSING,
    REFERENCES,
    SHOWN,
    WHERE_MEASURED,
    Cell,
    Grid,
    asked,
    cell,
    markdown_table,
    number,
    order,
)

PAPER = ("paper, E2E: control %", "paper, E2E: lm")
_SHOWN: tuple[tuple[str, str, int, float], ...] = (  # header, measure, digits, scale
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
    """Runs below the folder, newest first, and a sentence for each results.json that cannot be read."""
    runs, problems = [], []
    files = sorted(folder.rglob("results.json"), key=lambda path: (-path.stat().st_mtime, path))
    for path in files:
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            add([], path, results)  # a run that does not fit the table is broken too
            runs.append((path, results))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"skipped {path}: not a complete results.json ({type(error).__name__}: {error})")
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
    return [_mean(x) for x in had] == [_mean(values.get(name)) for name in ("strict", "nll")]


def _over_trainings(row: Row) -> str:
    """How far the trainings of a row's models lie apart, which its interval over targets does not say."""
    parts = []
    for header, name, digits, scale in _SHOWN:
        by_training: dict[str, list[float]] = {}
        for key, value in zip(row.runs, row.measures.get(name, []), strict=False):
            if value is not None:
                by_training.setdefault(key[1], []).append(_mean(value) * scale)
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
    """What else tells runs apart: settings (not for gold, which nothing changes) and the method's own strengths; of
    runs that do not tell whose a strength is, all of them (not for unguided)."""
    own = results["methods"][method].get("strength")
    strength = own if own is not None else results.get("strength") if method not in REFERENCES else None
    said = {} if method == "gold" else _leaves(results.get("settings"), "settings")
    shared = {f"settings.{name}" for name in ("experiment", "model_seed")}  # the table's title, and what is pooled
    said = {name: value for name, value in said.items() if name not in shared and not _is_model_seed(name)}
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


def _mean(value: Any) -> Any:  # None where a run lacks the number
    return value["mean"] if isinstance(value, Mapping) else value


def mean(row: Row, name: str) -> float | None:
    """Of a measure over runs; None where no run has it."""
    if (found := pooled(row, name)) is not None:
        return _mean(found)
    values = [_mean(value) for value in row.measures.get(name, []) if value is not None]
    return sum(values) / len(values) if values else None


def pooled(row: Row, name: str) -> Any:
    """A measure of all runs: of one its own; of several that of all their samples, where those were kept; else None."""
    if len(values := row.measures.get(name, [])) == 1:
        return values[0]
    return pooling.pooled(list(row.runs.values()), row.method, row.task, name)


def _shown(row: Row, name: str, digits: int, scale: float) -> Cell:
    """The interval over targets, in [ ]. Of several runs whose samples were not kept the mean and range, in ( )."""
    if (found := pooled(row, name)) is not None:
        return cell(found, digits, scale)
    means = [_mean(value) * scale for value in row.measures.get(name, []) if value is not None]
    if not means:
        return Cell()
    low, high = number(min(means), digits), number(max(means), digits)
    return Cell(number(sum(means) / len(means), digits), f"({low}–{high})" if low != high else "")


def tables(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each table: those that stand on the same data, targets, experiment and commit."""
    return [[row for row in rows if row.title == title] for title in dict.fromkeys(row.title for row in rows)]


def lay_out(rows: Sequence[Row]) -> tuple[list[str], list[str], list[tuple[list[str], list[Cell]]]]:
    """Label headers, number headers and rows of one table; what all rows share has no column."""
    varied = _varied(rows)
    several = len({row.data for row in rows}) > 1
    papers = any(row.paper for row in rows)
    runs = "trainings × seeds" if any(len(row.trainings) > 1 for row in rows) else "seeds"
    shown = [c for c in _SHOWN if c[1] not in WHERE_MEASURED or any(c[1] in row.measures for row in rows)]
    body = []
    for row in rows:
        beside = [task for task in row.tasks if task != row.task]
        names = [row.task + (f" (with {', '.join(beside)})" if beside else ""), row.method]
        if varied:
            settings = [f"{k.partition('.')[2] or k}={v}" for k, v in row.setting.items() if k in varied]
            names.append(", ".join(settings) or MISSING)
        cells = [Cell(str(len(row.runs))), *(_shown(row, c[1], c[2], c[3]) for c in shown)]
        if papers:
            paper = row.paper
            cells += [Cell(f"{paper.control[row.task]:.1f}"), Cell(f"{paper.lm:.2f}")] if paper else [Cell(), Cell()]
        body.append(([row.data, *names] if several else names, cells))
    labels = [*(["data"] if several else []), "task", "method", *(["setting"] if varied else [])]
    return labels, [runs, *(header for header, *_ in shown), *(PAPER if papers else ())], body


def _varied(rows: Sequence[Row]) -> set[str]:
    """Settings in which rows of one method on one question differ."""
    alike: dict[tuple, list[dict[str, str]]] = {}
    for row in rows:
        alike.setdefault((row.data, row.tasks, row.method), []).append(row.setting)
    return {
        name
        for settings in alike.values()
        for name in set().union(*settings)
        if len({setting.get(name) for setting in settings}) > 1
    }


def lines(rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    lines = ["[95 % interval over targets; of several runs, all samples of a target together]."]
    if any(len(row.runs) > 1 and pooled(row, name) is None for row in rows for name in ("strict", "self_bleu")):
        lines.append("(Lowest–highest) run: a number that is no mean over samples, or runs whose samples are gone.")
    return lines + ([published.SOURCE] if any(row.paper for row in rows) else []) + list(notes)


def table(rows: Sequence[Row], notes: Sequence[str]) -> Group:
    """All rows for the terminal, a table for each kind of run and a section for each question asked."""
    made: list[RenderableType] = []
    for part in tables(rows):
        labels, headers, body = lay_out(part)
        sections: dict[tuple, list] = {}
        for row, shown in zip(part, body, strict=True):
            sections.setdefault((row.data, row.tasks, row.task), []).append(shown)
        made.append(Grid(part[0].title or "all runs, mixed", labels, headers, sections.values(), []))
    return Group(*made, Text("\n".join(lines(rows, notes)), "italic dim"))


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    made = []
    for part in tables(rows):
        labels, headers, body = lay_out(part)
        whole = [[*names, *map(str, cells)] for names, cells in body]
        made.append(markdown_table(labels, headers, whole, filter(None, [part[0].title])))
    return "\n".join([*made, "\n\n".join(lines(rows, notes)) + "\n"])


def comma_separated(rows: Sequence[Row]) -> str:
    """Every measure, unrounded: mean over runs, lowest and highest run, and the interval where there is one."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        line: dict[str, Any] = {
            "runs of": row.title,
            "data": row.data,
            "tasks": "+".join(row.tasks),
            "task": row.task,
            "method": row.method,
            "setting": ", ".join(f"{k}={v}" for k, v in row.setting.items()),
            "targets": row.targets,
            "seeds": " ".join(row.seeds),
            "model_seeds": " ".join(row.trainings),
        }
        for name, values in row.measures.items():
            means = [_mean(value) for value in values if value is not None]
            line |= {name: sum(means) / len(means), f"{name}_min": min(means), f"{name}_max": max(means)}
            if isinstance(found := pooled(row, name), Mapping):
                line[name] = found["mean"]
                if found["n"] > 1:
                    line[f"{name}_low"], line[f"{name}_high"] = found["ci95"]
        if row.paper:
            line |= {"published_e2e_control": row.paper.control[row.task], "published_e2e_lm": row.paper.lm}
        lines.append(line)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
