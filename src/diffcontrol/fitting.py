"""Fitting: what Lightning does for the store. It trains a module in a draft folder and resumes from its checkpoint."""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import TQDMProgressBar

from diffcontrol import checkpoints, ranks, speed
from diffcontrol.drafts import read_json, write_json
from diffcontrol.logger import close
from diffcontrol.optim import Optim, averaging
from diffcontrol.refused import Refused
from diffcontrol.trainer_options import PRECISIONS, accelerator_of, device_of, limit, world_size
from diffcontrol.training import Trainable

log = logging.getLogger(__name__)
CONDITIONS = "conditions.json"
COMPARED = ("precision", "compile", "device", "threads", "world")  # conditions that change weights a little


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
    callbacks = [each for each in (checkpoints.Saves(draft), bar, mean, limit(options)) if each]
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
