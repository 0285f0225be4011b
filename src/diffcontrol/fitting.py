"""Fitting: what Lightning does for the store. It trains a module in a draft folder and resumes from its checkpoint."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Timer, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from diffcontrol import allowed, checkpoints, hardware, ranks, speed
from diffcontrol.drafts import read_json, write_json
from diffcontrol.logger import close
from diffcontrol.optim import Optim, averaging
from diffcontrol.refused import Refused
from diffcontrol.training import Trainable

log = logging.getLogger(__name__)
CONDITIONS = "conditions.json"
COMPARED = ("precision", "compile", "device", "threads", "world")  # conditions that change weights a little
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
    _limit(options)
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


class Stopped(SystemExit):
    """A signal stopped the training; the process is to exit with 128 + its number, as a shell expects."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)


def fit(module: Trainable, draft: Path, name: str, trainer_options: Mapping[str, Any],
        logger: Callable[[str], list[Any] | None] | None = None) -> dict[str, Any]:  # fmt: skip
    """Trains the module to its last step, from the draft's checkpoint if it has one. Returns the conditions under which
    it did: precision, device, threads and whether it was compiled.

    trainer_options: those of a Lightning Trainer, of which `precision` may be auto, and `compile` (auto, true, false);
    logger: name of a training → Lightning loggers (or None).

    Raises:
        Stopped: SIGTERM or Ctrl-C came before the last step.
        Refused: a batch has fewer texts than there are processes.
    """
    options = {"accelerator": "auto", "devices": 1, **trainer_options}
    own, device, checkpoint = module.options, device_of(options), draft / checkpoints.FILE
    if own.batch_size < (world := world_size(options)):
        raise Refused(f"{name}: optim.batch_size={own.batch_size} is less than a text for each of {world} processes")
    done = checkpoints.steps_done(checkpoint, module, name)
    conditions = _conditions(module, draft, name, options, own.steps - done, device)
    run_loggers = (logger(name) if logger else None) or []
    mean = averaging(own.ema) if own.ema else None
    bar = Bar(name) if options.get("enable_progress_bar", True) else None
    callbacks = [each for each in (checkpoints.Saves(draft), bar, mean, _limit(options)) if each]
    trainer = _trainer(own, options | {"precision": conditions["precision"]}, run_loggers, callbacks)
    if done:
        log.info("%s: resuming at step %d of %d", name, done, own.steps)
    module.train_alone()
    networks = module.compilable()
    speed.compiled(networks, conditions["compile"])
    try:
        with signals_stop():
            trainer.fit(module, ckpt_path=checkpoint if done else None, weights_only=True)
        if trainer.interrupted or trainer.global_step < own.steps:  # Lightning took the signal, or has a limit of time
            raise Stopped(signal.SIGINT)
    except SystemExit as stop:  # Stopped, or what Lightning makes of Ctrl-C
        log.warning("%s: stopped at step %d of %d; the same command resumes", name, trainer.global_step, own.steps)
        if kill := getattr(trainer.strategy.launcher, "kill", None):
            kill(signal.SIGTERM)  # the processes of the other devices
        raise stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT) from None
    except Refused:  # a sweep goes on in this process, and its next run is not to log into this one's
        close(*run_loggers)
        raise
    finally:
        speed.compiled(networks, False)  # writing is not training, and is to be the same for a model that was loaded
    close(*run_loggers)
    if mean:  # Lightning leaves this out where the checkpoint is of the last step
        mean.on_train_end(trainer, module)
    return conditions


def _trainer(own: Optim, options: Mapping[str, Any], loggers: list[Any] | None, callbacks: list[Any]) -> Any:
    """The Lightning Trainer that takes the steps of `own`, under the user's options of a Trainer."""
    given = {key: value for key, value in options.items() if key not in ("compile", "max_time")}
    given["accelerator"] = accelerator_of(options)
    return instantiate(
        {"_target_": "pytorch_lightning.Trainer", **given},
        max_steps=own.steps, max_epochs=-1, gradient_clip_val=own.clip or None, logger=loggers or False,
        callbacks=callbacks, plugins=[checkpoints.CheckpointFiles(), *given.get("plugins", [])],
        enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=max(1, min(50, own.steps // 20)),
    )  # fmt: skip


class Limit(Timer):
    """Lightning's limit of time, of this process alone. Lightning also counts the time before a training was resumed,
    so that one which has used up its limit would never take another step."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def _limit(options: Mapping[str, Any]) -> Limit | None:
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


def _conditions(module: Trainable, draft: Path, name: str, options: Mapping[str, Any], steps: int,
                device: torch.device) -> dict[str, Any]:  # fmt: skip
    """Under which conditions the rest of a training runs. A draft keeps those it began under, so that a training that
    was stopped ends with the same weights as one that was not."""
    kept = read_json(draft / CONDITIONS)
    precision, why = kept.get("precision"), "as before it was stopped"
    if precision not in PRECISIONS[1:] or options.get("precision", "auto") != "auto":
        precision, why = speed.precision_for(module, steps, options, device)
    compiles, why_compiled = speed.compiling(options.get("compile", "auto"), steps, device)
    if "compile" in kept and options.get("compile", "auto") == "auto" and (compiles or speed.has_compiler(device)):
        compiles, why_compiled = kept["compile"], "as before it was stopped"
    log.info("training %s for %d steps, as no stored model has its settings; in %s: %s; %scompiled: %s", name, steps,
             precision, why, "" if compiles else "not ", why_compiled)  # fmt: skip
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    now = {"precision": precision, "compile": compiles, "device": machine, "threads": torch.get_num_threads(),
           "world": world_size(options)}  # fmt: skip
    began = kept.get("began_with", kept)
    if differ := [f"{key} {began[key]}, now {now[key]}" for key in COMPARED if began.get(key, now[key]) != now[key]]:
        log.warning("%s: its training began with %s; its weights will differ a little", name, "; ".join(differ))
        now["began_with"] = began
    if ranks.is_first():
        write_json(draft / CONDITIONS, now)
    return now


@contextmanager
def signals_stop() -> Iterator[None]:
    """Within it, SIGTERM and Ctrl-C raise Stopped; after it, they do what they did before."""

    def stop(signum: int, _: Any) -> None:
        raise Stopped(signum)

    try:
        before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # signals reach the main thread alone
        before = {}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Bar(TQDMProgressBar):
    """Progress over all steps of the training rather than over one epoch."""

    def __init__(self, title: str):
        super().__init__(refresh_rate=20)
        self.title = title

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps)
        bar.initial = bar.n = trainer.global_step
        bar.set_description(f"training {self.title}")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        bar = self.train_progress_bar
        if trainer.global_step % self.refresh_rate == 0 or trainer.global_step == trainer.max_steps:
            bar.n = trainer.global_step
            bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
            bar.refresh()
