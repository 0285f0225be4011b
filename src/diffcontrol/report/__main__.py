"""`python -m diffcontrol.report outputs`: all runs below a folder in tables, on the console and in report.html,
summary.md and summary.csv of that folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffcontrol.report import console, gather, matrix, tables
from diffcontrol.report.page import summary_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and writes report.html, summary.md and summary.csv into the folder, but for the report.html of a
    run, which has its own; 1 if there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m diffcontrol.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="where runs lie, at any depth (outputs, or a sweep below it)")
    parser.add_argument("--csv", type=Path, help="write the numbers here instead of FOLDER/summary.csv")
    parser.add_argument("--mix", action="store_true",
                        help="one table of runs of different targets, experiments and commits")  # fmt: skip
    chosen = parser.parse_args(arguments)
    if chosen.csv and not chosen.csv.absolute().parent.is_dir():
        parser.error(f"--csv {chosen.csv}: there is no folder {chosen.csv.parent}")
    if chosen.csv and chosen.csv.is_dir():
        parser.error(f"--csv {chosen.csv}: this is a folder; name a file in it")
    runs, problems = gather.load(chosen.folder)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if not runs:
        print(f"no finished run: {chosen.folder} holds no readable results.json", file=sys.stderr)
        return 1
    rows, notes = gather.gather(runs, chosen.mix)
    notes += [f"Not in the table: {problem}" for problem in problems]
    across = tables.apart(rows)
    summary = "".join(map(matrix.markdown, across)) + tables.markdown(rows, notes)
    saved = {chosen.folder / "summary.md": summary}
    saved[chosen.csv or chosen.folder / "summary.csv"] = tables.comma_separated(rows)
    if not (chosen.folder / "results.json").exists():  # else it is a run, which has a page of its own
        saved[chosen.folder / "report.html"] = summary_page(chosen.folder, runs, rows, notes)
    for file, content in saved.items():
        file.write_text(content, encoding="utf-8", errors="backslashreplace")  # folders may have any bytes as names
    console().print(*filter(None, [*map(matrix.table, across), tables.table(rows, notes)]), sep="\n")
    files = [file.name if file.parent == chosen.folder else str(file) for file in saved]
    print(gather.printable(f"Summary of {len(runs)} run(s) saved to {chosen.folder} ({', '.join(files)})"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
