"""What a user may say of a Lightning Trainer: its options are checked before anything starts, and they say on which
device a process computes."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from diffcontrol import allowed, hardware, speed
from diffcontrol.refused import Refused

ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")  # of which every process has the whole model
OPTIONS = (  # of a Lightning Trainer, that the user can set; `compile` is ours
    "accelerator", "strategy", "devices", "num_nodes", "precision", "compile", "max_time", "enable_progress_bar",
    "deterministic", "benchmark", "profiler", "detect_anomaly", "plugins", "default_root_dir",
)  # fmt: skip
RULES = {
    "enable_progress_bar": allowed.FLAG, "detect_anomaly": allowed.FLAG, "benchmark": allowed.optional(allowed.FLAG),
    "deterministic": allowed.optional(allowed.one_of(True, False, "warn")),
    "profiler": allowed.optional(allowed.Allowed(
        "simple, advanced, pytorch, or a node with the _target_ of a profiler",
        lambda value: "_target_" in value if isinstance(value, Mapping) else value in ("simple", "advanced", "pytorch"),
    )),
}  # fmt: skip
OWN = {  # options of a Trainer that the user cannot set, and which setting decides instead; None: none does
    "max_steps": "optim.steps of a model", "max_epochs": "optim.steps of a model",
    "accumulate_grad_batches": "optim.batch_size of a model", "gradient_clip_val": "optim.clip of a model",
    "logger": "logger=<option>", "callbacks": None, "enable_model_summary": None, "use_distributed_sampler": None,
    "log_every_n_steps": None, "limit_train_batches": "optim.steps of a model", "overfit_batches": "limit.train",
    "fast_dev_run": "experiment=tiny", "enable_checkpointing": "optim.checkpoint of a model",
}  # fmt: skip


def check(options: Mapping[str, Any]) -> None:
    """Checks the options of a Trainer.

    Raises:
        Refused: there is no such option, or another setting decides it; a value is not allowed, or there are no such
            devices.
    """
    for name in options:
        if name in OWN:
            instead = f"set {OWN[name]} instead" if OWN[name] else "diffcontrol sets it itself"
            raise Refused(f"trainer.{name}={options[name]}: this option cannot be set; {instead}")
        if name not in OPTIONS:
            raise Refused(f"trainer.{name}={options[name]}: there is no such option; allowed are {', '.join(OPTIONS)}")
    allowed.one_of(*PRECISIONS).check("trainer.precision", options.get("precision", "auto"))
    speed.check_compile(options.get("compile", "auto"))
    for name, rule in RULES.items():
        if name in options:
            rule.check(f"trainer.{name}", options[name])
    limit(options)
    _check_devices(options)


def _check_devices(options: Mapping[str, Any]) -> None:
    """Before anything starts, as Lightning starts a process for each device that is asked for."""
    accelerator = options.get("accelerator", "auto")
    allowed.one_of(*ACCELERATORS).check("trainer.accelerator", accelerator)
    wanted, device = options.get("devices", 1), device_of(options)
    if accelerator in ("gpu", "cuda") and device.type != "cuda":
        raise Refused(f"trainer.accelerator={accelerator}: this machine has no GPU that PyTorch can use; leave it out, "
                      "or write cpu")  # fmt: skip
    allowed.whole(1).check("trainer.num_nodes", options.get("num_nodes", 1))
    if not (asked_for := hardware.devices(wanted, device)):
        raise Refused(f"trainer.devices={wanted}: allowed is auto, a number from 1, or a list of different numbers")
    there, what = hardware.devices_there(device)
    if max(asked_for) >= there:
        raise Refused(
            f"trainer.devices={wanted}: this machine has {there} {what}; allowed are at most as many, or auto"
        )
    allowed.one_of(*STRATEGIES).check("trainer.strategy", options.get("strategy", "auto"))


def world_size(options: Mapping[str, Any]) -> int:
    """How many processes train with these options of a Trainer."""
    return len(hardware.devices(options.get("devices", 1), device_of(options))) * options.get("num_nodes", 1)


def device_of(options: Mapping[str, Any]) -> torch.device:
    """Where a process of a Trainer with these options computes."""
    wanted = options.get("accelerator", "auto")
    if not (torch.cuda.is_available() and wanted in ("auto", "gpu", "cuda")):
        return torch.device("cpu")
    chosen = hardware.devices(options.get("devices", 1), torch.device("cuda"))
    own = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", chosen[own] if own < len(chosen) else 0)


def accelerator_of(options: Mapping[str, Any]) -> str:
    """The name that Lightning has for it: `auto` would choose devices that we do not, as a Mac's."""
    return "gpu" if device_of(options).type == "cuda" else "cpu"


class Limit(Timer):
    """Lightning's limit of time, of this process alone. Lightning also counts the time before a training was resumed,
    so that one which has used up its limit would never take another step."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def limit(options: Mapping[str, Any]) -> Limit | None:
    """What `max_time` asks for.

    Raises:
        Refused: it is no length of time.
    """
    wanted = options.get("max_time")
    try:
        return None if wanted is None else Limit(dict(wanted) if isinstance(wanted, Mapping) else wanted)
    except (MisconfigurationException, TypeError, AttributeError):
        raise Refused(f"trainer.max_time={wanted}: allowed is DD:HH:MM:SS, as 00:01:30:00 for an hour and a half, the "
                      "arguments of a timedelta, as {hours: 1.5}, or null") from None  # fmt: skip
