"""Speed: in which precision a module trains fastest on this machine, and whether compiling it pays."""

import copy
import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from pytorch_lightning.utilities import move_data_to_device

from diffcontrol import hardware
from diffcontrol.refused import Refused
from diffcontrol.training import Trainable

log = logging.getLogger(__name__)
FULL, MIXED = "32-true", "bf16-mixed"
SHORT = 500  # steps: a shorter training is over before a measurement has paid
LONG = 20_000  # steps: over as many, the 75 to 100 seconds that compiling takes on a CPU are won back
BATCHES = 4  # that a measurement looks at
ROUNDS = 5  # looks at each of them, of which the quickest counts
BUDGET = 2.5  # seconds of a measurement; a slow module gets fewer looks
COMPILER = {"cpu": "a C++ compiler", "cuda": "Triton"}  # what torch.compile needs
GAIN = 0.9  # of fp32's time a step is what bf16 may take at most: it is less exact, and measurements are noisy


def precision_for(module: Trainable, steps: int, options: Mapping[str, Any], device: torch.device) -> tuple[str, str]:
    """The precision in which to train the module for this many steps, and why.

    `options` are a Lightning Trainer's; its `precision` is taken unless it is `auto`. Several devices have to agree
    without talking, so theirs is chosen by the hardware.
    """
    wanted = options.get("precision", "auto")
    if wanted != "auto":
        return str(wanted), "as asked for"
    if steps < SHORT:
        return FULL, f"the training has fewer than {SHORT} steps"
    if not hardware.has_bf16(device):
        return FULL, f"this {device.type} does not compute in bf16"
    if len(hardware.devices(options.get("devices", 1), device)) * options.get("num_nodes", 1) > 1:
        return (MIXED, "a GPU computes in bf16") if device.type == "cuda" else (FULL, "several processes share a CPU")
    full, mixed = seconds_a_step(module, device)
    figures = f"a step takes {1000 * full:.0f} ms in fp32 and {1000 * mixed:.0f} ms in bf16"
    return (MIXED if mixed < GAIN * full else FULL), figures


def seconds_a_step(module: Trainable, device: torch.device) -> tuple[float, float]:
    """Seconds that forward and backward take in fp32 and in bf16, on the module's own first batches.

    They run on a copy of its weights, and torch's random numbers are put back, so that nothing of it shows in training.
    """
    sampler = module.steps()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        batches = [move_data_to_device(module.collate(sampler.indices(i)), device) for i in range(BATCHES)]
        trial = trial_copy(module).to(device)
        least: dict[str, dict[int, float]] = {FULL: {}, MIXED: {}}  # precision → batch → seconds
        for precision in least:  # the first step of all is slow whatever the precision
            _step(trial, batches[0], precision, device)
        started = time.perf_counter()
        for turn in range(ROUNDS * BATCHES):
            i = turn % BATCHES
            for precision, seconds in least.items():
                seconds[i] = min(seconds.get(i, float("inf")), _step(trial, batches[i], precision, device))
            if time.perf_counter() - started > BUDGET:
                break
    full, mixed = (sum(seconds.values()) / len(seconds) for seconds in least.values())
    return full, mixed


def _step(module: Trainable, batch: Any, precision: str, device: torch.device) -> float:
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == MIXED):
        loss = torch.stack(list(module.losses(batch).values())).sum()
    loss.backward()
    module.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def trial_copy(module: Trainable) -> Trainable:
    """A copy in training mode with weights and counters of its own; tables of texts and the like are shared."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo |= {id(value): value for name, value in vars(part).items() if not name.startswith("_")}
    trial = copy.deepcopy(module, memo)
    return trial.train_alone()


def check_compile(wanted: Any) -> None:
    """
    Raises:
        Refused: `trainer.compile` is none of auto, true and false.
    """
    if wanted not in ("auto", True, False):
        raise Refused(f"trainer.compile={wanted}: write auto, true or false")


def compiling(wanted: Any, steps: int, device: torch.device) -> tuple[bool, str]:
    """Whether to compile the networks of a training with so many steps, and why.

    Raises:
        Refused: `trainer.compile` is none of auto, true and false, or there is no compiler.
    """
    check_compile(wanted)
    if wanted is False or (wanted == "auto" and steps <= LONG):
        return False, "as asked for" if wanted is False else f"it pays only in trainings of more than {LONG} steps"
    if not has_compiler(device):
        if wanted is True:
            raise Refused(f"trainer.compile=true needs {COMPILER[device.type]} that works, and there is none; leave it "
                          "out")  # fmt: skip
        return False, f"there is not {COMPILER[device.type]} that works"
    return True, "as asked for" if wanted is True else f"the training has more than {LONG} steps"


@cache
def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile has what it needs on this device, as a function of one line shows."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "c++"))):
        return False
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # a compiler that fails, a missing header, ...
        log.warning("nothing is compiled, as torch.compile fails here: %s", str(error).strip().partition("\n")[0])
        return False
    return True


def compiled(networks: Sequence[torch.nn.Module], on: bool) -> None:
    """Compiles the forward pass of each network in place, or takes that back; names of weights stay as they are."""
    for network in networks:
        if on:
            network.compile()
        else:
            network._compiled_call_impl = None  # torch has no public way back
