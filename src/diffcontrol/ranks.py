"""Ranks: which of the processes of a run this one is, told by the environment that its launcher set.

Lightning starts the processes of one machine itself (LOCAL_RANK, NODE_RANK); torchrun (RANK) and Slurm's srun
(SLURM_PROCID) start them from outside.
"""

import os
from typing import NamedTuple

RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
RUNS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR", "MASTER_PORT")  # what the processes of a run share


class Share(NamedTuple):
    """Which of how many processes this is, of those that have a work in common."""

    rank: int
    world: int


ALONE = Share(0, 1)


def is_first() -> bool:
    """Whether this process is the one that writes files, as it is where there is no other."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def sign() -> str:
    """The signature by which the other processes of this run recognise the first one: its process id and the variables
    that they share."""
    return f"{os.getpid()}\n{_shared()}"


def is_sign_of_ours(text: str) -> bool:
    """Whether the first process of this run, which is this one's parent or shares its job, signed the text."""
    pid, _, shared = text.partition("\n")
    return pid == str(os.getppid()) or (bool(shared) and shared == _shared())


def _shared() -> str:
    return " ".join(f"{name}={os.environ[name]}" for name in RUNS if name in os.environ)
