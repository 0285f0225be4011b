"""`python -m diffcontrol.store`: look through a store, remove from it, check it, carry models in and out."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffcontrol.refused import Refused
from diffcontrol.store import hub, shelf


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = parser().parse_args(arguments)
    try:
        return given.run(given)
    except (Refused, OSError) as error:
        print(f"diffcontrol.store: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m diffcontrol.store", description=__doc__)
    made.add_argument("--store", type=Path, default=Path("store"), help="folder of the store (default: %(default)s)")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    places = "a folder, or hf://owner/name for a repository of the Hugging Face hub"
    address: dict[str, Any] = {"metavar": "ADDRESS", "help": "name of an entry, or its beginning if no other begins so"}

    command = commands.add_parser("list", help="all entries: class, task, size, age, models they were trained on")
    command.set_defaults(run=_list)
    command = commands.add_parser("show", help="recipe and provenance of an entry")
    command.add_argument("address", **address)
    command.set_defaults(run=_show)
    command = commands.add_parser("remove", help="remove an entry; a run that needs it will make it again")
    command.add_argument("address", **address)
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.set_defaults(run=_remove)
    command = commands.add_parser("verify", help="compare files with their checksums, and look through weights")
    command.add_argument("addresses", nargs="*", **address)
    command.set_defaults(run=_verify)
    command = commands.add_parser("export", help="copy entries, and the models they were trained on, to another store")
    command.add_argument("place", metavar="FOLDER", help=places)
    command.add_argument("addresses", nargs="*", **address)
    command.add_argument("--half", action="store_true", help="weights in half precision: half the size")
    command.set_defaults(run=_export)
    command = commands.add_parser("import", help="copy entries from another store into this one")
    command.add_argument("place", metavar="FOLDER", help=places)
    command.add_argument("addresses", nargs="*", **address)
    command.set_defaults(run=_import)
    return made


def _list(given: argparse.Namespace) -> int:
    rows = list(shelf.table(given.store))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if drafts := shelf.drafts(given.store):
        named = ", ".join(f"{each.address} ({each.size / 1e6:.1f} MB)" for each in drafts)
        print(f"Not finished, and resumed by the command that began it: {named}. `remove` also removes these.")
    return 0


def _show(given: argparse.Namespace) -> int:
    entry = shelf.entry(given.store, given.address)
    try:
        recipe = yaml.safe_dump(entry.recipe, sort_keys=False, allow_unicode=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise Refused(f"{entry.folder}: it is damaged, as its recipe cannot be read ({first})") from error
    print(entry.folder)
    print(json.dumps(entry.provenance, indent=1, ensure_ascii=False))
    print(recipe, end="")
    return 0


def _remove(given: argparse.Namespace) -> int:
    entry = shelf.entry(given.store, given.address, [*shelf.entries(given.store), *shelf.drafts(given.store)])
    for child in shelf.children(given.store, entry.address):
        print(f"{child} was trained on it, and cannot be used before it is made again")
    if not (given.yes or _agreed(f"Remove {entry.folder}? [y/N] ")):
        print("It stays.")
        return 1
    shelf.remove(entry)
    print(f"removed {entry.folder}")
    return 0


def _agreed(question: str) -> bool:
    """What the user answers; without a terminal, no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print("there is nobody to ask, and --yes removes without asking")
        return False


def _verify(given: argparse.Namespace) -> int:
    chosen = [shelf.entry(given.store, name) for name in given.addresses] or shelf.entries(given.store)
    damaged = 0
    for entry in chosen:
        try:
            shelf.check(entry)
            print(f"{entry.address}  {'whole' if entry.provenance.get('sha256') else 'readable; it has no checksums'}")
        except Exception as error:  # a damaged file can fail in many ways
            damaged += 1
            print(f"{entry.address}  damaged: {error}")
    return 1 if damaged else 0


def _export(given: argparse.Namespace) -> int:
    if not hub.on_hub(given.place):
        return _say(shelf.carry(given.store, Path(given.place), given.addresses, given.half), given.place)
    with tempfile.TemporaryDirectory() as folder:
        carried = list(shelf.carry(given.store, Path(folder), given.addresses, given.half))
        hub.upload(Path(folder), given.place)
    return _say(carried, given.place)


def _import(given: argparse.Namespace) -> int:
    source = hub.download(given.place) if hub.on_hub(given.place) else Path(given.place)
    return _say(shelf.carry(source, given.store, given.addresses), given.store)


def _say(carried: Iterable[tuple[str, bool]], place: str | Path) -> int:
    for address, copied in carried:
        print(f"{address}  {f'copied to {place}' if copied else 'is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
