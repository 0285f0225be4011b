"""Provenance: where an entry of the store comes from and the checksums of its files, in its provenance.json."""

import hashlib
import logging
import os
import platform
import subprocess
from collections.abc import Collection
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from diffcontrol.drafts import read_json
from diffcontrol.recipe import name_of
from diffcontrol.refused import Refused

log = logging.getLogger(__name__)
CONFIG, PROVENANCE = "config.yaml", "provenance.json"
PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "safetensors")


def provenance(seconds: float, conditions: dict[str, Any], parents: dict[str, str],
               checksums: dict[str, str]) -> dict[str, Any]:  # fmt: skip
    """What made an entry: code, machine, versions, seconds, the conditions of a training (`fitting.fit`), the addresses
    of the models it was trained on, and the sha256 of its files."""
    return {
        "commit": commit(), "seconds": seconds, "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(), **conditions, "versions": {name: version(name) for name in PACKAGES},
        "parents": parents, "sha256": checksums,
    }  # fmt: skip


def checksums(folder: Path, but: Collection[str] = ()) -> dict[str, str]:
    """sha256 of every file of an entry but those that say what it is, and those named in `but`."""
    return {path.name: sha256(path) for path in files(folder) if path.name not in (CONFIG, PROVENANCE, *but)}


def files(folder: Path) -> list[Path]:
    """The files of an entry, by name; folders in it, which other programs leave, are none of it."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def verify(folder: Path) -> None:
    """Compares the files of an entry with their checksums, and its configuration with its address. An entry of an
    earlier version has no checksums, which is noted.

    Raises:
        Refused: a file is missing or is not what was stored.
    """
    again = f"remove the folder {folder} to make it again"
    if not (said := read_json(folder / PROVENANCE)):
        raise Refused(f"{folder / PROVENANCE} is missing or holds nothing, so its files cannot be checked; {again}")
    if _address(folder / CONFIG) != folder.name:
        raise Refused(f"{folder / CONFIG} is missing or is not the recipe of that address; {again}")
    if not (stored := said.get("sha256")):
        log.info("%s has no checksums, so a file of it that was changed would not be noticed", folder)
        return
    for name, expected in stored.items():
        file = folder / name
        if not file.is_file() or sha256(file) != expected:
            wrong = "is not what was stored (its checksum differs)" if file.is_file() else "is missing"
            raise Refused(f"{file} {wrong}; {again}")


def _address(config: Path) -> str:
    """The address of the recipe in a file; empty if there is none."""
    try:
        return name_of(yaml.load(config.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return ""


@cache
def commit() -> str:
    """The commit of the code when this process first asked, `-dirty` with uncommitted changes; `unknown` outside its
    repository, as where it is installed in an environment that lies in the repository of another project."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
