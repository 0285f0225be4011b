"""report.html of a run, and of many: one file that holds all it shows. Jinja2 escapes every text."""

import os
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from diffcontrol.report import matrix, tables, texts
from diffcontrol.report.layout import caption, columns, notes, published_rows, rows
from diffcontrol.report.rows import Row
from diffcontrol.report.texts import Sample

FILES = ("results.json", "samples.jsonl", "table.md", "config.yaml", "tradeoff.png")
_PAGES = Environment(
    loader=PackageLoader("diffcontrol.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_PAGES.globals |= {"asked": texts.asked, "verdict": texts.verdict, "views": texts.views}


def run_page(results: Mapping, samples: Sequence[Sample], plot: bytes, denoising: Sequence[Sample] = ()) -> str:
    """The page of one run, from what results.json and samples.jsonl hold and its plot as PNG.

    denoising: texts at single steps, lines such as samples.jsonl has, with `t` and without scores.
    """
    methods = texts.methods(samples)
    best_and_worst = {method: texts.extremes(samples, method) for method in methods if method != "gold"}
    return _PAGES.get_template("run.html").render(
        title=f"{' and '.join(results['tasks'])} on {results['data']}",
        caption=caption(results),
        command=shlex.join(["python", "run.py", *results.get("command", ())]),
        facts=_facts(results),
        files=FILES,
        headers=[column.header for column in columns(results)],
        body=[([name], cells) for name, cells in rows(results) + published_rows(results)],
        notes=notes(results),
        plot=b64encode(plot).decode(),
        side_by_side=texts.side_by_side(results, samples),
        marked=any(own for sample in samples for own in sample.get("marks", {}).values()),
        extremes={method: dict(zip(("best", "worst"), ends)) for method, ends in best_and_worst.items()},
        mean_score=texts.mean_score,
        denoising=[[line for line in denoising if line["method"] == name] for name in texts.methods(denoising)],
    )


def settling(runs: Mapping[str, Sequence[Sample]], finished: bool) -> str:
    """A piece of a page: beside each other the last of the steps of each run, by its name.

    runs: name → lines such as samples.jsonl has, with `t`. finished: whether their last step is the text, of which the
    page then says what it met, with all steps below.
    """
    return _PAGES.get_template("settling.html").render(runs=runs, finished=finished)


def settling_style() -> str:
    """The style sheet that `settling` needs."""
    return _PAGES.get_template("marks.css").render()


def _facts(results: Mapping) -> dict[str, str]:
    targets = results["targets"]
    settings = {**(results.get("settings") or {})}
    found = {
        "data": results["data"],
        "targets": f"{targets['from']}, {targets['n']} × {results['num_samples']} texts",
        "seed": str(results["seed"]),
        "commit": results["commit"] or "unknown",
        "settings": ", ".join(f"{key}={value}" for key, value in settings.items()),
        "trained in this run": ", ".join(results.get("trained") or ()),
    }
    return {name: value for name, value in found.items() if value}


def summary_page(folder: Path, runs: Sequence[tuple[Path, Mapping]], summary: Sequence[Row],
                 remarks: Sequence[str]) -> str:  # fmt: skip
    """The page of all runs below a folder: the tables, and of each run its plot and a link to its own page."""
    drawn = [table for part in tables.apart(summary) for table in _tables(part)]
    drawn[-1]["lines"] = tables.lines(summary, remarks)
    shown = [_shown(folder, path.parent, results) for path, results in runs]
    return _PAGES.get_template("summary.html").render(title=f"All runs in {folder.name}", tables=drawn, runs=shown)


def _tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The tables of one kind of run: methods × tasks where there are several tasks, and every number."""
    asked, across = matrix.lay_out(rows)
    labels, headers, body = tables.lay_out(rows)
    found = [{"title": rows[0].title or "All runs", "labels": labels, "headers": headers, "body": body, "lines": []}]
    if len(asked) > 1:
        found.insert(0, {"title": "Strict success at perplexity", "labels": ["method"], "headers": asked,
                         "body": across, "lines": [matrix.caption(rows)]})  # fmt: skip
    return found


def _shown(folder: Path, run: Path, results: Mapping) -> dict[str, str]:
    """A run as its card shows it; one that has no page of its own links to its results."""
    page = next(name for name in ("report.html", "results.json") if (run / name).exists())
    plot = run / "tradeoff.png"
    return {
        "name": f"{' + '.join(results['tasks'])}, {os.path.relpath(run, folder)}",
        "link": quote(Path(os.path.relpath(run / page, folder)).as_posix()),
        "caption": caption(results),
        "plot": b64encode(plot.read_bytes()).decode() if plot.exists() else "",
    }
