"""Which texts of a run are shown, and a text taken apart at its marks; for the terminal and for report.html."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffcontrol.report.layout import look_up, order

Sample = Mapping[str, Any]  # a line of samples.jsonl
FEW, OWN = 3, 20  # texts of a method: where targets were drawn from a split, and where they are the user's own
SIDE_BY_SIDE, EXTREMES = 10, 3  # of report.html: targets with the texts of all methods; best and worst of each method


class Piece(NamedTuple):
    """A mark with what stands in it, words and further pieces."""

    met: bool
    label: str
    inside: "list[str | Piece]"


def pieces(words: Sequence[str], marks: Sequence[Sequence[Any]]) -> "list[str | Piece]":
    """The words of a text, with a piece where a mark (first word, past the last, met, label) is.

    Raises:
        ValueError: a mark crosses another one, holds no word or is outside the text.
    """
    whole: list[str | Piece] = []
    open_: list[tuple[int, list[str | Piece]]] = [(len(words), whole)]  # where it ends, what stands in it
    waiting = sorted(marks, key=lambda mark: (mark[0], -mark[1]))
    for i, word in enumerate(words):
        while open_[-1][0] == i:
            open_.pop()
        while waiting and waiting[0][0] == i:
            start, end, met, label = waiting.pop(0)
            if not start < end <= open_[-1][0]:
                raise ValueError(f"the mark {[start, end, label]} crosses another one or the ends of the text")
            inside: list[str | Piece] = []
            open_[-1][1].append(Piece(bool(met), str(label), inside))
            open_.append((end, inside))
        open_[-1][1].append(word)
    if waiting:
        raise ValueError(f"the mark {list(waiting[0])} is outside a text of {len(words)} words")
    return whole


def methods(samples: Sequence[Sample]) -> list[str]:
    return order(dict.fromkeys(sample["method"] for sample in samples))


def own_targets(results: Mapping) -> bool:
    """Whether they come from a file or a list of the user's: such targets have no source sentence, so no gold."""
    return "gold" not in results["methods"]


def chosen(results: Mapping, samples: Sequence[Sample], method: str) -> list[Sample]:
    """Texts of a method to print: the first text of the first FEW targets; of a user's own, all up to OWN."""
    found = [sample for sample in samples if sample["method"] == method]
    if own_targets(results):
        return found[:OWN]
    return [sample for sample in found if sample["sample"] == 0][:FEW]


def asked(sample: Sample) -> dict[str, str]:
    """Task → target in words; of runs that did not write them down, as the target stands in the line."""
    return {task: sample.get("asked", {}).get(task, str(target)) for task, target in sample["tasks"].items()}


def views(sample: Sample) -> "list[list[str | Piece]]":
    """The text as each task with marks in it sees it; once and plain where none has any."""
    marks = [own for own in sample.get("marks", {}).values() if own] or [()]
    return [pieces(sample["words"], own) for own in marks]


def score(sample: Sample) -> float:
    """Mean strict success of the tasks."""
    strict = [look_up(sample["scores"], (task, "strict")) or 0.0 for task in sample["tasks"]]
    return sum(strict) / len(strict)


def ranked(samples: Sequence[Sample], method: str) -> list[list[Sample]]:
    """The texts of each target of a method, best first: by mean strict success, then by mean NLL."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample["method"] == method:
            groups.setdefault(sample["row"], []).append(sample)

    def key(group: list[Sample]) -> tuple[float, float]:
        return -mean_score(group), sum(sample["nll"] for sample in group) / len(group)

    return sorted(groups.values(), key=key)


def extremes(samples: Sequence[Sample], method: str) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """Its best targets and its worst ones, no target among both."""
    found = ranked(samples, method)
    count = min(EXTREMES, len(found) // 2)
    return found[: max(count, 1)], found[::-1][:count]


def verdict(sample: Sample, task: str) -> str:
    """`met`, `not met`, or how much of the target is met."""
    strict = look_up(sample["scores"], (task, "strict")) or 0.0
    percent = min(max(100 * strict, 0.1), 99.9)  # neither 0 nor 100, as it is met in part
    shown = f"{percent:.0f}" if 1 <= percent < 99.5 else f"{percent:.1f}"
    return "met" if strict > 1 - 1e-9 else f"met to {shown} %" if strict else "not met"


def mean_score(samples: Sequence[Sample]) -> float:
    return sum(map(score, samples)) / len(samples)


def side_by_side(results: Mapping, samples: Sequence[Sample]) -> list[list[Sample]]:
    """For each of the first targets the first text of every method, methods in the table's order."""
    names = methods(samples)
    wanted = OWN if own_targets(results) else SIDE_BY_SIDE
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample["sample"] == 0 and sample["row"] < wanted:
            found.setdefault(sample["row"], []).append(sample)
    return [sorted(found[row], key=lambda sample: names.index(sample["method"])) for row in sorted(found)]
