"""Methods × tasks on half a page: strict success at perplexity, of runs that were all made in one way."""

from collections.abc import Mapping, Sequence

from diffcontrol.report.grid import Cell, Grid, markdown_table, number
from diffcontrol.report.rows import Row, mean

CAPTION = "Strict success in %, of all tasks at once where there are several, and perplexity; means over runs."
GRAMMATICAL = "g: share of texts that the data's grammar can write, in %."


def cells(rows: Sequence[Row]) -> Mapping[str, Mapping[str, Cell]]:
    """method → what was asked → success and perplexity; nothing where a method has several settings or targets for
    one question, as in a sweep over strengths, since no cell could tell them apart."""
    found: dict[str, dict[str, Cell]] = {}
    several = len({row.data for row in rows}) > 1
    for row in rows:
        if row.task != row.tasks[0] and row.task != "all":
            continue
        if row.task != "all" and len(row.tasks) > 1:
            continue
        asked = "+".join(row.tasks) + (f" ({row.data})" if several else "")
        if asked in found.setdefault(row.method, {}):
            return {}
        strict, perplexity, grammatical = (mean(row, name) for name in ("strict", "perplexity", "grammatical"))
        if strict is not None and perplexity is not None:
            judged = "" if grammatical is None else f", g {number(100 * grammatical, 1)}"
            found[row.method][asked] = Cell(number(100 * strict, 1), f"at {number(perplexity, 2)}{judged}")
    return found


def caption(rows: Sequence[Row]) -> str:
    return f"{CAPTION} {GRAMMATICAL}" if any("grammatical" in row.measures for row in rows) else CAPTION


def lay_out(rows: Sequence[Row]) -> tuple[list[str], list[tuple[list[str], list[Cell]]]]:
    found = cells(rows)
    asked = list(dict.fromkeys(question for own in found.values() for question in own))
    methods = [name for name in dict.fromkeys(row.method for row in rows) if found.get(name)]
    return asked, [([name], [found[name].get(question, Cell()) for question in asked]) for name in methods]


def table(rows: Sequence[Row]) -> Grid | None:
    """For the terminal; None where there is nothing to set side by side."""
    asked, body = lay_out(rows)
    return Grid("strict success at perplexity", ["method"], asked, [body], [caption(rows)]) if len(asked) > 1 else None


def markdown(rows: Sequence[Row]) -> str:
    asked, body = lay_out(rows)
    if len(asked) < 2:
        return ""
    return markdown_table(["method"], asked, [[*names, *map(str, own)] for names, own in body], [caption(rows)]) + "\n"
