"""python -m tests.faults: everything that may go wrong, many times over, and how often it went well.

Exits with 1 if anything was lost, passed in silence, or ended in a traceback.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests.faults.entries import damaged_checkpoint, damaged_entries
from tests.faults.inputs import malformed
from tests.faults.outcome import SURVIVED, VERDICTS, Outcome
from tests.faults.processes import full_disk, kills, parallel


def outcomes(folder: Path, kill: int, processes: int, inputs: int | None) -> Iterator[Outcome]:
    """All faults: so many SIGKILLs, so many processes at once, and so many inputs of each list (None: all)."""

    def below(name: str) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    yield from chain(
        kills(below("kills"), kill), parallel(below("parallel"), processes), full_disk(below("disk")),
        damaged_entries(below("entries")), damaged_checkpoint(below("checkpoint")), malformed(below("inputs"), inputs),
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--inputs", type=int, help="of each list of tests/test_malformed.py; all if left out")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # what is said is looked at, not shown
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for each in outcomes(Path(folder), given.kills, given.processes, given.inputs):
            counts.setdefault(each.kind, Counter())[each.verdict] += 1
            if each.verdict != SURVIVED:
                print(f"{each.verdict}: {each.kind}, {each.name}: {each.said}")
    print(f"{'fault':12}", *(f"{verdict:>10}" for verdict in VERDICTS))
    for kind, count in counts.items():
        print(f"{kind:12}", *(f"{count[verdict]:10}" for verdict in VERDICTS))
    total = sum(counts.values(), Counter())
    print(f"{'all':12}", *(f"{total[verdict]:10}" for verdict in VERDICTS), flush=True)
    return int(total.total() > total[SURVIVED])


if __name__ == "__main__":
    sys.exit(main())
