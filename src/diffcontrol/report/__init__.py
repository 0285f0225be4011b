"""What a run leaves: report.html, results.json, samples.jsonl, table.md, tradeoff.png; and what it prints.

`python -m diffcontrol.report outputs` gathers many runs.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from diffcontrol.drafts import write_whole
from diffcontrol.report.grid import WIDTH
from diffcontrol.report.layout import markdown, table
from diffcontrol.report.page import run_page
from diffcontrol.report.plot import tradeoff
from diffcontrol.report.terminal import excerpt

if TYPE_CHECKING:
    import pandas

__all__ = ["console", "excerpt", "frame", "keep", "table", "write"]


def console() -> Console:
    """Where tables are printed: at most 120 columns wide, also into a file or a pipe. What an output cannot encode is
    replaced. It remembers what was printed, for `keep`."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    found = Console()
    return Console(width=min(WIDTH, found.width) if found.is_terminal else WIDTH, record=True)


def keep(console: Console, folder: Path) -> None:
    """Appends what the console printed, without colours, to the run's log, which the log messages stand in already."""
    with (folder / "run.log").open("a", encoding="utf-8") as file:
        file.write(console.export_text())


def frame(folder: str | Path) -> "pandas.DataFrame":
    """All runs below a folder for a notebook; `frames.frame` says with which columns."""
    from diffcontrol.report import frames  # pandas is slow to import, and only notebooks need it

    return frames.frame(folder)


def write(folder: Path, results: Mapping, samples: Iterable[Mapping],
          denoising: Callable[[], Sequence[Mapping]] = list) -> None:  # fmt: skip
    """Writes the run's files into `folder`; `denoising` makes the texts of single steps, for report.html alone.

    First the texts, then results.json, by which a run counts as finished, whole or not at all; only then what is made
    of them, so that a picture or a page that fails loses nothing.
    """
    folder, samples = Path(folder), list(samples)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "results.json", lambda file: file.write(text.encode()))
    (folder / "table.md").write_text(markdown(results), encoding="utf-8")
    tradeoff(results, folder / "tradeoff.png")
    page = run_page(results, samples, (folder / "tradeoff.png").read_bytes(), denoising())
    (folder / "report.html").write_text(page, encoding="utf-8")
