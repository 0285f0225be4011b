"""The rule by which strengths are tuned, applied to the runs of `experiment=tune`.

The highest strict success among the strengths whose perplexity is at most 1.2 × that of the unguided row, or of gold
where that is higher, as targets may ask for texts that are harder to predict than free ones. Of equally successful
strengths that with the lowest perplexity which does not repeat itself, that is, whose word entropy is at least
`REPEATS` × that of the unguided row; where all are below, that with the highest entropy. If these are equal, too, the
weaker. It is the same for every method.

What is swept is `strength.scale`, or else one strength alone: that of one of several tasks, say. Where another
setting was swept beside it, the rule is applied to the runs of each of its values.
"""

import re
from collections.abc import Sequence

from diffcontrol.report.layout import REPEATS
from diffcontrol.report.rows import Row, mean, natural

EXPERIMENT = re.compile(r"experiment (\[[\w,\s]*)?\btune\b")  # also experiment=[e2e,tune]
STRENGTH, SCALE = "strength.", "strength.scale"
SETTING, OF_METHOD = "settings.", "settings.method."
WITHIN = 1.2  # × the perplexity of the unguided row or of gold


def notes(rows: Sequence[Row]) -> list[str]:
    """A sentence for each method and question that was tuned."""
    runs = [row for row in rows if EXPERIMENT.search(row.title)]
    tuned = [row for row in runs if row.task == ("all" if row.tasks[1:] else row.tasks[0])]
    swept: dict[tuple, list[Row]] = {}
    for row in tuned:
        if row.method not in ("gold", "unguided"):
            swept.setdefault((*_asked(row), tuple(sorted(_settings(row).items()))), []).append(row)
    return [
        _note(own, name, _apart(own[0], tuned), _beside(tuned, own[0], "unguided"), _beside(tuned, own[0], "gold"))
        for own in swept.values()
        if (name := _swept(own))
    ]


def _asked(row: Row) -> tuple:
    return row.title, row.tasks, row.method


def _settings(row: Row, but: tuple[str, ...] = ()) -> dict[str, str]:
    """What the command line set beside the strengths, but for names that begin so."""
    found = {name: value for name, value in row.setting.items() if name.startswith(SETTING)}
    return {name: value for name, value in found.items() if not name.startswith(but)}


def _apart(row: Row, rows: Sequence[Row]) -> list[str]:
    """The settings by which this row stands apart from others of its method and question, as name=value."""
    alike = [_settings(other) for other in rows if _asked(other) == _asked(row)]
    own = _settings(row).items()
    return [f"{name[len(SETTING) :]}={value}" for name, value in own if any(o.get(name) != value for o in alike)]


def _swept(rows: Sequence[Row]) -> str:
    """The strength in which these rows differ; empty if they differ in none, or in several none of which is the scale
    of all."""
    names = [name for name in rows[0].setting if name.startswith(STRENGTH) and all(name in row.setting for row in rows)]
    differing = [name for name in names if len({row.setting[name] for row in rows}) > 1]
    return SCALE if SCALE in differing else differing[0] if len(differing) == 1 else ""


def _beside(rows: Sequence[Row], like: Row, method: str) -> Row | None:
    """The row of this method beside another one: with the same settings, but for those of gold, which has none, and
    those of single methods."""
    beside = [row for row in rows if _asked(row) == (like.title, like.tasks, method)]
    shared = _settings(like, (OF_METHOD,))
    same = [row for row in beside if method == "gold" or _settings(row, (OF_METHOD,)) == shared]
    return same[0] if same else None


def _varied(row: Row, unguided: Row) -> float:
    """Word entropy over that of the unguided row, at most REPEATS: what is above does not repeat itself. Runs without
    entropies are all alike."""
    entropy, free = mean(row, "word_entropy"), mean(unguided, "word_entropy")
    return min(entropy / free, REPEATS) if entropy and free else REPEATS


def _alike(*numbers: float) -> list[float]:
    """Numbers that differ by rounding alone become equal."""
    return [round(number, 9) for number in numbers]


def _note(rows: Sequence[Row], name: str, apart: Sequence[str], unguided: Row | None, gold: Row | None) -> str:
    where = ", ".join([f"Tuned: {rows[0].method} on {'+'.join(rows[0].tasks)}", *apart])
    free = mean(unguided, "perplexity") if unguided else None
    if unguided is None or free is None:
        return f"{where}: there is no unguided row to compare perplexities with."
    of_gold = mean(gold, "perplexity") if gold else None
    level, whose = (of_gold, "gold's") if of_gold is not None and of_gold > free else (free, "the unguided")
    known = [(row, mean(row, "strict"), mean(row, "perplexity")) for row in rows]
    within = [
        (_alike(strict, _varied(row, unguided), -perplexity), -natural(row.setting[name])[0], row)
        for row, strict, perplexity in known
        if strict is not None and perplexity is not None and perplexity <= WITHIN * level
    ]
    if not within:
        return f"{where}: no strength stays within {WITHIN} × {whose} perplexity ({level:.2f})."
    (strict, _, fluency), _, best = max(within, key=lambda found: found[:2])
    beside = f"{100 * strict:.1f} % at {-fluency:.2f}, {-fluency / level:.2f} × {whose} perplexity"
    what = SCALE if name == SCALE else f"strength of {name.rpartition('.')[2]}"  # a table does not know its group
    return f"{where}: {what}={best.setting[name]} ({beside})."
