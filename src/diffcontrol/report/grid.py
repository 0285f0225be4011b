"""Cells with intervals, and tables of them for the terminal and in markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

MISSING = "–"
WIDTH = 120  # of tables in a terminal, at most
LABEL = 30  # of a label's column, at most
GAP = 2  # between columns


class Cell(NamedTuple):
    """A number as text, and what is uncertain about it."""

    number: str = MISSING
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.interval}".strip()


Sections = Iterable[Iterable[tuple[Sequence[str], Sequence[Cell]]]]


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits; very large numbers in scientific form, so that a broken model does not break the table."""
    if value is None or value != value:
        return MISSING
    return f"{value:.2g}" if abs(value) >= 1e5 else f"{round(value, digits) + 0.0:.{digits}f}"  # never -0.0


def cell(measure: Mapping | float | None, digits: int = 2, scale: float = 1.0) -> Cell:
    """`97.3 [95.1, 99.0]` from a measure, `97.3` from one of a single target, `0.12` from a plain number, a dash from
    nothing."""
    if measure is None:
        return Cell()
    if not isinstance(measure, Mapping):
        return Cell(number(measure * scale, digits))
    if measure["n"] == 1:
        return Cell(number(measure["mean"] * scale, digits))
    low, high = (number(end * scale, digits) for end in measure["ci95"])
    return Cell(number(measure["mean"] * scale, digits), f"[{low}, {high}]")


class Grid:
    """Label columns and number columns for the terminal, intervals on a line of their own to save width. It is at most
    `WIDTH` columns wide: number columns that do not fit go on in a further table, behind the same labels."""

    def __init__(self, title: str, labels: Sequence[str], headers: Sequence[str], sections: Sections,
                 lines: Iterable[str]):  # fmt: skip
        self.title, self.labels, self.headers = title, labels, headers
        self.sections = [list(section) for section in sections]
        self.lines = list(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = [row for section in self.sections for row in section]
        names = [_width(header, (row[0][i] for row in body), LABEL) for i, header in enumerate(self.labels)]
        widths = [_width(header, (part for row in body for part in row[1][i])) for i, header in enumerate(self.headers)]
        room = min(WIDTH, options.max_width) - sum(width + GAP for width in names) - GAP
        yield Text(self.title, "italic")
        for part in _fitting(widths, room):
            yield self._table(names, {i: widths[i] for i in part})
        yield Text("\n".join(self.lines), "italic dim")

    def _table(self, names: Sequence[int], numbers: Mapping[int, int]) -> Table:
        made = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        for label, width in zip(self.labels, names, strict=True):
            made.add_column(label, width=width, overflow="fold")
        for i, width in numbers.items():
            made.add_column(self.headers[i], justify="right", width=width, overflow="fold")
        for section in self.sections:
            for texts, cells in section:
                shown = [cells[i] for i in numbers]
                made.add_row(*map(Text, texts), *(Text.assemble(c.number, ("\n" + c.interval, "dim")) for c in shown))
            made.add_section()
        return made


def _width(header: str, texts: Iterable[str], most: int = WIDTH) -> int:
    """Of a column: no word of its header is broken, and nothing in it, up to `most`."""
    return min(most, max(map(len, [*header.split(), *texts, ""])))


def _fitting(widths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of columns in successive tables, as many in each as there is room for, at least one."""
    parts: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if parts[-1] and sum(widths[j] + GAP for j in parts[-1]) + width + GAP > room:
            parts.append([])
        parts[-1].append(i)
    return parts


def markdown_table(
    labels: Sequence[str], headers: Sequence[str], body: Iterable[Sequence[str]], lines: Iterable[str]
) -> str:
    """Labels to the left, numbers to the right, the lines as paragraphs beneath."""
    rule = ["---"] * len(labels) + ["---:"] * len(headers)
    whole = ([*labels, *headers], rule, *body)
    shown = [" | ".join(("", *(text.replace("|", "\\|") for text in row), "")).strip() for row in whole]
    return "\n".join(shown) + "\n\n" + "\n\n".join(lines) + "\n"
