"""The rule by which strengths are tuned, applied to the runs of `experiment=tune`.

The highest strict success among the strengths whose perplexity is at most 1.2 × that of the unguided row; of equally
successful ones that with the lowest perplexity, and if these are equal, too, the weaker. It is the same for every
method.
"""

import re
from collections.abc import Sequence

from diffcontrol.report.gather import Row, mean, natural

EXPERIMENT = re.compile(r"experiment (\[[\w,]*)?\btune\b")  # also experiment=[e2e,tune]
SCALE = "strength.scale"
WITHIN = 1.2  # × the unguided perplexity


def notes(rows: Sequence[Row]) -> list[str]:
    """A sentence for each method and question that was tuned."""
    runs = [row for row in rows if EXPERIMENT.search(row.title)]
    tuned = [row for row in runs if row.task == ("all" if row.tasks[1:] else row.tasks[0])]
    swept: dict[tuple[str, tuple[str, ...], str], list[Row]] = {}
    for row in tuned:
        if row.method not in ("gold", "unguided") and SCALE in row.setting:
            swept.setdefault((row.title, row.tasks, row.method), []).append(row)
    return [_note(own, _free(tuned, own[0])) for own in swept.values() if len(own) > 1]


def _free(rows: Sequence[Row], like: Row) -> float | None:
    """The perplexity of the unguided row beside this one."""
    beside = [row for row in rows if (row.title, row.tasks, row.method) == (like.title, like.tasks, "unguided")]
    return mean(beside[0], "perplexity") if beside else None


def _note(rows: Sequence[Row], free: float | None) -> str:
    where = f"Tuned: {rows[0].method} on {'+'.join(rows[0].tasks)}"
    if free is None:
        return f"{where}: there is no unguided row to compare perplexities with."
    known = [(row, mean(row, "strict"), mean(row, "perplexity")) for row in rows]
    within = [
        (strict, -perplexity, -natural(row.setting[SCALE])[0], row)
        for row, strict, perplexity in known
        if strict is not None and perplexity is not None and perplexity <= WITHIN * free
    ]
    if not within:
        return f"{where}: no strength stays within {WITHIN} × the unguided perplexity ({free:.2f})."
    strict, fluency, _, best = max(within, key=lambda found: found[:3])
    beside = f"{100 * strict:.1f} % at {-fluency:.2f}, {-fluency / free:.2f} × the unguided perplexity"
    return f"{where}: {SCALE}={best.setting[SCALE]} ({beside})."
