"""Many runs in tables: each results.json below a folder, by what was asked and how, pooled over seeds and trainings."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcontrol.report import pooling
from diffcontrol.report.grid import number
from diffcontrol.report.layout import asked, order
from diffcontrol.report.rows import (
    SHOWN_OF_RUNS,
    Key,
    Row,
    described,
    mean_of,
    measures_of,
    natural,
    question,
    setting_of,
    trained_as,
    wanted_of,
)
from diffcontrol.sweeps import REFUSED


def load(folder: Path) -> tuple[list[tuple[Path, dict]], list[str]]:
    """Runs below the folder, newest first, and a sentence for each that cannot be read or was refused."""
    runs, problems = [], []
    files = sorted(folder.rglob("results.json"), key=lambda path: (-path.stat().st_mtime, path))
    for path in files:
        broken = path
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            if not results["methods"]:
                raise ValueError("it has no methods")
            add([], path, results)  # a run that does not fit the table is broken too
            broken = path.parent / pooling.SAMPLES
            pooling.read(path)
            runs.append((path, results))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{broken.name} is not complete ({type(error).__name__}: {error})"
            problems.append(printable(f"skipped {path.parent}: {why}"))
    done = {path.parent for path in files}
    for path in sorted(path for path in folder.rglob(REFUSED) if path.parent not in done):
        why = path.read_text(encoding="utf-8", errors="replace").strip()
        problems.append(printable(f"{path.parent} was refused: {why}"))
    return runs, problems


def printable(text: str) -> str:
    """The text with the bytes of paths that are not UTF-8 as \\x.. in it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
    notes += _several_judges(runs) + [said for row in rows if (said := _over_trainings(row))]
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


def _several_judges(runs: Sequence[tuple[Path, Mapping]]) -> list[str]:
    """A note for each kind of data on which several models measured perplexity."""
    judges: dict[str, set[str]] = {}
    for _, results in runs:
        judges.setdefault(results["data"], set()).add(results.get("teacher") or "")
    return [
        f"The perplexities on {data} are by different judges, {', '.join(sorted(found))}: compare those of one alone "
        "(rows of gold are over all of them)."
        for data, several in judges.items()
        if len(found := several - {""}) > 1
    ]


def _several_sets(runs: Sequence[tuple[Path, Mapping]]) -> set[tuple]:
    """The questions that were asked of several sets of targets with one description, as two files of one name are."""
    found: dict[tuple, set[str]] = {}
    for path, results in runs:
        found.setdefault(question(results), set()).add(pooling.read(path).targets)
    return {question for question, sets in found.items() if len(sets - {""}) > 1}


def add(rows: list[Row], path: Path, results: Mapping, mix: bool = False,
        apart: Collection[tuple] = ()) -> list[str]:  # fmt: skip
    """Puts a run's methods into the rows they belong to; of two runs with one seed only the first given counts."""
    notes, tasks = [], tuple(results["tasks"])
    kind, wanted = described(path, results, apart), wanted_of(results)
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
                which = printable(f"kept {kept}, set aside {path}")
                notes.append(f"Two runs of seed {results['seed']} differ in {method}: {which}.")
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
