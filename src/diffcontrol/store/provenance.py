"""Provenance: where an entry of the store comes from, kept beside it as provenance.json."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "safetensors")


def provenance(seconds: float, device: str, parents: dict[str, str]) -> dict[str, Any]:
    """What made an entry: code, machine, versions, seconds, and the addresses of the models it was trained on."""
    return {
        "commit": commit(), "seconds": seconds, "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(), "device": device, "versions": {name: version(name) for name in PACKAGES},
        "parents": parents,
    }  # fmt: skip


def commit() -> str:
    """The commit of the code, `-dirty` with uncommitted changes, `unknown` outside a repository."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=here,
                             capture_output=True, text=True, check=True)  # fmt: skip
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
