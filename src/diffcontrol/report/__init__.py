"""What a run leaves: results.json, samples.jsonl, table.md, tradeoff.png; `python -m diffcontrol.report outputs`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from diffcontrol.report.layout import WIDTH, markdown, table
from diffcontrol.report.plot import tradeoff

if TYPE_CHECKING:
    import pandas

__all__ = ["console", "frame", "table", "write"]


def console() -> Console:
    """Where tables are printed: at most 120 columns wide, also into a file or a pipe."""
    found = Console()
    return Console(width=min(WIDTH, found.width) if found.is_terminal else WIDTH)


def frame(folder: str | Path) -> "pandas.DataFrame":
    """All runs below a folder for a notebook; `frames.frame` says with which columns."""
    from diffcontrol.report import frames  # pandas is slow to import, and only notebooks need it

    return frames.frame(folder)


def write(folder: Path, results: Mapping, samples: Iterable[Mapping]) -> None:
    """Writes the run's files into `folder`; numbers first, so that a plot that fails loses nothing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    (folder / "table.md").write_text(markdown(results), encoding="utf-8")
    tradeoff(results, folder / "tradeoff.png")
