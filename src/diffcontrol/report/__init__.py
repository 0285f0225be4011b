"""What a run leaves: results.json, samples.jsonl, table.md, tradeoff.png; `python -m diffcontrol.report outputs`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from diffcontrol.report.layout import markdown, table
from diffcontrol.report.plot import tradeoff

__all__ = ["console", "table", "write"]


def console() -> Console:
    """Where tables are printed. A file or a pipe has no width to fit."""
    found = Console()
    return found if found.is_terminal else Console(width=1000)


def write(folder: Path, results: Mapping, samples: Iterable[Mapping]) -> None:
    """Writes the run's files into `folder`; numbers first, so that a plot that fails loses nothing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    (folder / "table.md").write_text(markdown(results), encoding="utf-8")
    tradeoff(results, folder / "tradeoff.png")
