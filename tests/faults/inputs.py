"""Values and files that are not allowed: each ends in one sentence, and nothing is trained."""

from collections.abc import Iterator
from pathlib import Path

from diffcontrol.refused import Refused
from tests.faults.outcome import LOST, SILENT, SURVIVED, TRACEBACK, Outcome
from tests.test_malformed import METHODS, TABLES, TARGETS, VALUES, start, table, targets


def malformed(folder: Path, count: int | None = None) -> Iterator[Outcome]:
    """The first `count` of each list of tests/test_malformed.py."""
    cases = [
        (given, [] if "task=" in given else ["task=length"], [METHODS, *given.split(" ")]) for given in VALUES[:count]
    ]
    for name, (content, _) in list(TARGETS.items())[:count]:
        cases.append(
            (
                f"targets: {name}",
                ["task=syntax_tree"],
                [targets(_made(folder / f"targets {name.encode().hex()}"), content)],
            )
        )
    for name, (content, more, _) in list(TABLES.items())[:count]:
        cases.append((f"table: {name}", [], table(_made(folder / f"table {name}"), content, more)))
    for name, task, given in cases:
        try:
            start(folder, *task, *given)
            yield Outcome("input", name, SILENT)
        except Refused as refused:
            yield Outcome("input", name, SURVIVED if "\n" not in str(refused) else LOST, str(refused))
        except Exception as error:
            yield Outcome("input", name, TRACEBACK, repr(error))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
