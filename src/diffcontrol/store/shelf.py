"""Shelf: what lies in a store, and how it is looked through, removed, checked and carried from one store to another."""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from diffcontrol.drafts import DRAFTS, discard, make_once, read_json, write_json
from diffcontrol.refused import Refused
from diffcontrol.store import weights
from diffcontrol.store.provenance import CONFIG, PROVENANCE, files, sha256, verify

ADDRESS = re.compile(r"\w+-[0-9a-f]{12}")


@dataclass(frozen=True)
class Entry:
    """A finished folder of a store."""

    folder: Path

    @property
    def address(self) -> str:
        return self.folder.name

    @cached_property
    def recipe(self) -> dict[str, Any]:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load((self.folder / CONFIG).read_text(encoding="utf-8"), loader) or {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.folder / PROVENANCE)

    @property
    def parents(self) -> list[str]:
        """Addresses of the models that it was trained on.

        Raises:
            Refused: one is no address, but perhaps a path to somewhere else.
        """
        found = list(self.provenance.get("parents", {}).values())
        for address in found:
            if not ADDRESS.fullmatch(address):
                raise Refused(f"{self.folder / PROVENANCE}: {address!r} is no address of an entry")
        return found

    @property
    def task(self) -> str:
        """Names of the tasks that it learned; empty if it learned none."""
        tasks = [self.recipe["task"]] if "task" in self.recipe else list(self.recipe.get("tasks", {}).values())
        return "+".join(task["_target_"].rsplit(".", 1)[-1] for task in tasks)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.stat().st_size for file in files(self.folder))

    @property
    def age(self) -> float:
        """Seconds since it was made, or since anything in its folder changed where its configuration is missing."""
        config = self.folder / CONFIG
        return time.time() - (config if config.exists() else self.folder).stat().st_mtime


def entries(root: Path) -> list[Entry]:
    """All entries of a store, by address, damaged ones among them: a folder with such a name is what a run would take.

    Raises:
        Refused: there is no such folder.
    """
    if not root.is_dir():
        raise Refused(f"there is no store {root}")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    return [Entry(path) for path in folders if ADDRESS.fullmatch(path.name) or (path / CONFIG).is_file()]


def drafts(root: Path) -> list[Entry]:
    """What was begun and is not finished: trainings that run or were stopped, from which the same command goes on."""
    folders = sorted((root / DRAFTS).iterdir()) if (root / DRAFTS).is_dir() else []
    return [Entry(path) for path in folders if path.is_dir() and ADDRESS.fullmatch(path.name)]


def entry(root: Path, name: str, among: Sequence[Entry] = ()) -> Entry:
    """The entry whose address is `name` or is the only one that begins so. among: where it is looked for; the finished
    entries, if empty.

    Raises:
        Refused: there is none, or there are several.
    """
    found = [each for each in among or entries(root) if each.address.startswith(name)]
    exact = [each for each in found if each.address == name]
    if len(exact or found) != 1:
        what = f"several entries: {', '.join(each.address for each in found)}" if found else "no entry"
        raise Refused(f"{root} has {what} of an address that begins with {name!r}")
    return (exact or found)[0]


def table(root: Path) -> Iterator[list[str]]:
    """Header and a row for each entry."""
    yield ["address", "task", "size", "age", "parents"]
    for each in entries(root):
        age = f"{each.age / 86400:.0f} d" if each.age > 2 * 86400 else f"{each.age / 3600:.0f} h"
        size = f"{each.size / 1e6:.1f} MB"
        try:
            task, parents = each.task or "–", ", ".join(each.parents) or "–"
        except Exception:  # a damaged file can fail in many ways
            task, parents = "damaged", "see verify"
        yield [each.address, task, size, age, parents]


def check(each: Entry) -> None:
    """Compares an entry with its checksums and looks through its weights.

    Raises:
        Refused: a file is missing or was changed, or some weights are infinite or no numbers.
    """
    verify(each.folder)
    file = each.folder / weights.FILE
    if file.exists():
        for name, weight in load_file(file).items():
            if not weight.isfinite().all():
                raise Refused(f"{file}: {name} holds values that are infinite or not numbers")


def children(root: Path, address: str) -> list[str]:
    """Addresses of the entries that were trained on this one, as far as they are whole."""
    found = []
    for each in entries(root):
        with suppress(Exception):  # a damaged file can fail in many ways
            found += [each.address] * (address in each.parents)
    return found


def remove(each: Entry) -> None:
    """Removes an entry: under its name at once, so that a kill leaves no half of it. Of a link, only the link.

    Raises:
        Refused: it is a draft that a process is working on.
    """
    if each.folder.is_symlink():
        each.folder.unlink()
        return
    if each.folder.parent.name == DRAFTS:
        if not discard(each.folder.parent.parent, each.address):
            raise Refused(f"{each.folder}: a process is making it; stop that first")
        return
    aside = each.folder.parent / DRAFTS / f"{each.address}.removed"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    each.folder.rename(aside)
    shutil.rmtree(aside)


def carry(source: Path, target: Path, names: Sequence[str] = (), half: bool = False) -> Iterator[tuple[str, bool]]:
    """Copies entries, with all models that they were trained on, to another store. Yields each address, and whether it
    was copied or was there.

    names: addresses or their beginnings; all entries if there are none. half: weights are stored as float16, but for
    tensors that hold a number too large for it.

    Raises:
        Refused: there is no such entry, or it is damaged, here or there; what was copied before it stays.
    """
    if target.exists() and not target.is_dir():
        raise Refused(f"{target} is a file; a store is a folder")
    wanted = [entry(source, name) for name in names] or entries(source)
    addresses = list(dict.fromkeys(address for each in wanted for address in _with_parents(source, each)))
    for address in addresses:
        if (target / address).is_dir():
            check(Entry(target / address))
            yield address, False
        elif (source / address).is_dir():
            yield address, _copy(Entry(source / address), target, half)
        else:
            raise Refused(f"{source} lacks {address}, which others were trained on; copy it from its own store first")


def _with_parents(root: Path, each: Entry) -> list[str]:
    """Parents first."""
    above = [address for parent in each.parents for address in _with_parents(root, Entry(root / parent))]
    return [*above, each.address]


def _copy(each: Entry, target: Path, half: bool) -> bool:
    """Whether this call copied it, not another process meanwhile."""
    check(each)

    def make(draft: Path) -> None:
        for left in draft.iterdir():  # by a killed training or copy
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for file in files(each.folder):
            shutil.copyfile(file, draft / file.name)
        stored = draft / weights.FILE
        if half and stored.exists():
            weights.write({name: halved(weight) for name, weight in load_file(stored).items()}, stored)
            said = read_json(draft / PROVENANCE)
            said["sha256"] = said.get("sha256", {}) | {weights.FILE: sha256(stored)}
            write_json(draft / PROVENANCE, said | {"half": True})

    return make_once(target, each.address, make)[1]


def halved(weight: torch.Tensor) -> torch.Tensor:
    """The weight as float16 if it is float32 and its numbers fit."""
    small = weight.half() if weight.dtype == torch.float32 else weight
    return small if small.isfinite().all() else weight
