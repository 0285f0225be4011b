"""`python -m diffcontrol.report outputs`: one table of all runs below a folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffcontrol.report import console, gather, matrix


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and writes summary.md and summary.csv into the folder; 1 if there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m diffcontrol.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="where runs lie, at any depth (outputs, or a sweep below it)")
    parser.add_argument("--csv", type=Path, help="write the numbers here instead of FOLDER/summary.csv")
    chosen = parser.parse_args(arguments)
    runs, problems = gather.load(chosen.folder)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if not runs:
        print(f"no finished run: {chosen.folder} holds no readable results.json", file=sys.stderr)
        return 1
    rows, notes = gather.gather(runs)
    (chosen.folder / "summary.md").write_text(matrix.markdown(rows) + gather.markdown(rows, notes), encoding="utf-8")
    (chosen.csv or chosen.folder / "summary.csv").write_text(gather.comma_separated(rows), encoding="utf-8")
    console().print(*filter(None, [matrix.table(rows), gather.table(rows, notes)]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
