"""The tables of many runs, for the terminal, as markdown and as CSV: what sweeps and `diffcontrol.report` show."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from diffcontrol.report import published, tuning
from diffcontrol.report.grid import MISSING, Cell, Grid, cell, markdown_table, number
from diffcontrol.report.layout import WHERE_MEASURED
from diffcontrol.report.rows import SHOWN_OF_RUNS, Row, mean_of, pooled

PAPER = ("paper, E2E: control %", "paper, E2E: lm")


def apart(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each table: those that stand on the same data, targets, experiment and commit."""
    return [[row for row in rows if row.title == title] for title in dict.fromkeys(row.title for row in rows)]


def lay_out(rows: Sequence[Row]) -> tuple[list[str], list[str], list[tuple[list[str], list[Cell]]]]:
    """Label headers, number headers and rows of one table; what all rows share has no column."""
    varied = _varied(rows)
    several = len({row.data for row in rows}) > 1
    papers = any(row.paper for row in rows)
    runs = "trainings × seeds" if any(len(row.trainings) > 1 for row in rows) else "seeds"
    shown = [c for c in SHOWN_OF_RUNS if c[1] not in WHERE_MEASURED or any(c[1] in row.measures for row in rows)]
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
    lines = ["Numbers in [a, b] are 95 % intervals over targets; the samples of a target are pooled over runs."]
    if any(len(row.runs) > 1 and pooled(row, name) is None for row in rows for name in ("strict", "self_bleu")):
        lines.append(
            "Numbers in (a–b) are the lowest and the highest run, where a number is no mean over samples or where the"
            " samples of a run are missing."
        )
    return lines + tuning.notes(rows) + ([published.SOURCE] if any(row.paper for row in rows) else []) + list(notes)


def table(rows: Sequence[Row], notes: Sequence[str]) -> Group:
    """All rows for the terminal, a table for each kind of run and a section for each question asked."""
    made: list[RenderableType] = []
    for part in apart(rows):
        labels, headers, body = lay_out(part)
        sections: dict[tuple, list] = {}
        for row, shown in zip(part, body, strict=True):
            sections.setdefault((row.data, row.tasks, row.task), []).append(shown)
        made.append(Grid(part[0].title or "all runs, mixed", labels, headers, sections.values(), []))
    return Group(*made, Text("\n".join(lines(rows, notes)), "italic dim"))


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    made = []
    for part in apart(rows):
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
            means = [mean_of(value) for value in values if value is not None]
            if not means:
                continue
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


def _shown(row: Row, name: str, digits: int, scale: float) -> Cell:
    """The interval over targets, in [ ]. Of several runs whose samples were not kept the mean and range, in ( )."""
    if (found := pooled(row, name)) is not None:
        return cell(found, digits, scale)
    means = [mean_of(value) * scale for value in row.measures.get(name, []) if value is not None]
    if not means:
        return Cell()
    low, high = number(min(means), digits), number(max(means), digits)
    return Cell(number(sum(means) / len(means), digits), f"({low}–{high})" if low != high else "")
