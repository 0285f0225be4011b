"""Many runs in one table: every results.json below a folder, grouped by what was asked and how, averaged over seeds."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from diffcontrol.report import published
from diffcontrol.report.layout import MISSING, SHOWN, Cell, asked, cell, grid, look_up, markdown_table, number, order

PAPER = ("paper, E2E: control %", "paper, E2E: lm")
_SHOWN: tuple[tuple[str, str, int, float], ...] = (  # header, measure, digits, scale
    ("strict %", "strict", 1, 100.0),
    ("released %", "released", 1, 100.0),
    ("met and grammatical %", "met_and_grammatical", 1, 100.0),
    ("perplexity", "perplexity", 2, 1.0),
    ("grammatical %", "grammatical", 1, 100.0),
    ("length", "length", 1, 1.0),
    *((header, key, 2, 1.0) for key, header in SHOWN.items()),
    ("seconds a sample", "seconds_per_sample", 3, 1.0),
)
_WHERE_MEASURED = ("met_and_grammatical", "grammatical")  # shown where some row has them


@dataclass
class Row:
    """One method on one task of one kind of run, over seeds; `measures` holds one number or measure a seed."""

    data: str
    tasks: tuple[str, ...]
    task: str
    method: str
    setting: dict[str, str]
    targets: str
    seeds: dict[int, Path] = field(default_factory=dict)
    measures: dict[str, list[Any]] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)

    @property
    def paper(self) -> published.Published | None:
        return published.of(self.method, self.tasks) if self.task in self.tasks else None


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


def gather(runs: Sequence[tuple[Path, Mapping]]) -> tuple[list[Row], list[str]]:
    """Rows of all runs, given newest first, and notes on runs that were set aside or do not quite match."""
    rows: list[Row] = []
    notes = [note for path, results in runs for note in add(rows, path, results)]
    mixed = sorted({f"{row.method} on {'+'.join(row.tasks)}" for row in rows if len(row.models) > 1})
    if mixed:
        notes.append(f"Averaged over different trained models: {', '.join(mixed)}.")
    methods = order(dict.fromkeys(name for _, results in reversed(runs) for name in results["methods"]))
    rows.sort(
        key=lambda row: (
            row.data,
            row.tasks,
            (*row.tasks, "all").index(row.task),
            row.targets,
            methods.index(row.method),
            [(name, _natural(value)) for name, value in sorted(row.setting.items())],
        )
    )
    return rows, list(dict.fromkeys(notes))


def add(rows: list[Row], path: Path, results: Mapping) -> list[str]:
    """Puts a run's methods into the rows they belong to; of two runs with one seed only the first given counts."""
    notes, tasks, targets = [], tuple(results["tasks"]), results["targets"]
    wanted = f"{targets['from']}, {targets['n']} × {results['num_samples']}"
    for method, found in results["methods"].items():
        setting = _setting(results, method)
        for task in asked(results):
            same = (results["data"], tasks, task, method, setting, wanted)
            row = next((r for r in rows if (r.data, r.tasks, r.task, r.method, r.setting, r.targets) == same), None)
            if row is None:
                rows.append(row := Row(*same))
            values = _measures(found, task)
            if results["seed"] not in row.seeds:
                row.seeds[results["seed"]] = path
                row.models.add(json.dumps(found.get("models", {}), sort_keys=True))
                for name, value in values.items():
                    row.measures.setdefault(name, []).append(value)
            elif not _repeats(row, results["seed"], values):
                kept = row.seeds[results["seed"]]
                notes.append(f"Two runs of seed {results['seed']} differ in {method}: kept {kept}, set aside {path}.")
    return notes


def _repeats(row: Row, seed: int, values: Mapping[str, Any]) -> bool:
    """Whether the row has these very scores for this seed already: sweeps repeat what the swept value leaves alone."""
    at = list(row.seeds).index(seed)
    had = [row.measures[name][at] if at < len(row.measures.get(name, ())) else None for name in ("strict", "nll")]
    return [_mean(x) for x in had] == [_mean(values.get(name)) for name in ("strict", "nll")]


def _measures(found: Mapping, task: str) -> dict[str, Any]:
    values = {**found.get("success", {}).get(task, {}), **found.get("fluency", {}), **found.get("diversity", {})}
    values |= {name: found[name] for name in ("seconds_per_sample", "token_evaluations_per_sample") if name in found}
    for value in values.values():
        cell(value)  # raises on anything that is neither a number nor a measure
    return values


def _setting(results: Mapping, method: str) -> dict[str, str]:
    """What else tells runs apart: settings (not for gold, which nothing changes), strengths (only where guided)."""
    keys = {"gold": (), "unguided": ("settings",)}.get(method, ("settings", "strength"))
    return {name: str(value) for key in keys for name, value in _leaves(results.get(key), key).items()}


def _leaves(tree: Any, path: str) -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {name: leaf for key, value in tree.items() for name, leaf in _leaves(value, f"{path}.{key}").items()}
    return {} if tree is None else {path: tree}


def _natural(value: str) -> tuple[float, str]:
    """Sorts 0.5, 2, 10 as numbers and words after them."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _mean(value: Any) -> Any:  # None where a run lacks the number
    return value["mean"] if isinstance(value, Mapping) else value


def mean(row: Row, name: str) -> float | None:
    """Of a measure over seeds; None where no run has it."""
    values = [_mean(value) for value in row.measures.get(name, []) if value is not None]
    return sum(values) / len(values) if values else None


def _over_seeds(row: Row, name: str, digits: int, scale: float) -> Cell:
    """One seed: its interval over targets, in [ ]. Several: mean over seeds and their range, in ( )."""
    values = row.measures.get(name, [])
    if len(values) < 2:
        return cell(values[0] if values else None, digits, scale)
    means = [_mean(value) * scale for value in values]
    low, high = number(min(means), digits), number(max(means), digits)
    return Cell(number(sum(means) / len(means), digits), f"({low}–{high})")


def lay_out(rows: Sequence[Row]) -> tuple[list[str], list[str], list[tuple[list[str], list[Cell]]]]:
    """Label headers, number headers and rows; settings and targets are shown only where they tell rows apart."""
    varied = _varied(rows)
    several = len({row.targets for row in rows}) > 1
    papers = any(row.paper for row in rows)
    shown = [c for c in _SHOWN if c[1] not in _WHERE_MEASURED or any(c[1] in row.measures for row in rows)]
    body = []
    for row in rows:
        beside = [task for task in row.tasks if task != row.task]
        names = [row.data, row.task + (f" (with {', '.join(beside)})" if beside else ""), row.method]
        if varied:
            settings = [f"{k.partition('.')[2] or k}={v}" for k, v in row.setting.items() if k in varied]
            names.append(", ".join(settings) or MISSING)
        cells = [Cell(str(len(row.seeds))), *(_over_seeds(row, c[1], c[2], c[3]) for c in shown)]
        if papers:
            paper = row.paper
            cells += [Cell(f"{paper.control[row.task]:.1f}"), Cell(f"{paper.lm:.2f}")] if paper else [Cell(), Cell()]
        body.append(([*names, row.targets] if several else names, cells))
    labels = ["data", "task", "method", *(["setting"] if varied else []), *(["targets"] if several else [])]
    return labels, ["seeds", *(header for header, *_ in shown), *(PAPER if papers else ())], body


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
    lines = ["One seed: [95 % interval over targets]. Several: mean over seeds (lowest–highest)."]
    if len(targets := {row.targets for row in rows}) == 1:
        lines.insert(0, f"Targets from {targets.pop()} samples.")
    return lines + ([published.SOURCE] if any(row.paper for row in rows) else []) + list(notes)


def table(rows: Sequence[Row], notes: Sequence[str]) -> Table:
    """All rows for the terminal, a section for each question asked."""
    labels, headers, body = lay_out(rows)
    sections: dict[tuple, list] = {}
    for row, shown in zip(rows, body, strict=True):
        sections.setdefault((row.data, row.tasks, row.task), []).append(shown)
    return grid("all runs", labels, headers, sections.values(), lines(rows, notes))


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    labels, headers, body = lay_out(rows)
    whole = [[*names, *map(str, cells)] for names, cells in body]
    return markdown_table(labels, headers, whole, lines(rows, notes))


def comma_separated(rows: Sequence[Row]) -> str:
    """Every measure, unrounded: mean over seeds, lowest and highest seed, and the interval where there is one seed."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        line: dict[str, Any] = {
            "data": row.data,
            "tasks": "+".join(row.tasks),
            "task": row.task,
            "method": row.method,
            "setting": ", ".join(f"{k}={v}" for k, v in row.setting.items()),
            "targets": row.targets,
            "seeds": " ".join(sorted(map(str, row.seeds))),
        }
        for name, values in row.measures.items():
            means = [_mean(value) for value in values]
            line |= {name: sum(means) / len(means), f"{name}_min": min(means), f"{name}_max": max(means)}
            if len(values) == 1 and isinstance(values[0], Mapping):
                line[f"{name}_low"], line[f"{name}_high"] = look_up(values[0], ("ci95",))
        if row.paper:
            line |= {"published_e2e_control": row.paper.control[row.task], "published_e2e_lm": row.paper.lm}
        lines.append(line)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
