"""Fitting: what Lightning does for the store. It trains a module in a draft folder and resumes from its checkpoint."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar

from diffcontrol.drafts import Stopwatch
from diffcontrol.logger import close
from diffcontrol.training import Trainable, averaging

log = logging.getLogger(__name__)
CHECKPOINT = "last.ckpt"


def hardware_has_bf16() -> bool:
    """Whether bf16 is computed by the hardware; where it is emulated it is very slow."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def fit(module: Trainable, draft: Path, name: str, trainer_options: Mapping[str, Any],
        logger: Callable[[str], Any] | None = None) -> None:  # fmt: skip
    """Trains the module to its last step, from the draft's checkpoint if it has one.

    trainer_options: those of a Lightning Trainer, and `compile`; `precision: auto` is understood here. logger: name of
    a training → Lightning logger (or None).

    Raises:
        KeyboardInterrupt: training stopped before its last step.
    """
    options = {"accelerator": "auto", "devices": 1, **trainer_options}
    if options.pop("compile", False):
        module.compile()
    if options.get("precision", "auto") == "auto":
        options["precision"] = "bf16-mixed" if hardware_has_bf16() else "32-true"
    own = module.options
    run_logger = logger(name) if logger else None
    mean = averaging(own.ema) if own.ema else None
    trainer = instantiate(
        {"_target_": "pytorch_lightning.Trainer", **options},
        max_steps=own.steps, max_epochs=-1, gradient_clip_val=own.clip or None,
        logger=run_logger or False,
        callbacks=[
            Saves(draft), *([Bar(name)] if options.get("enable_progress_bar", True) else []), *([mean] if mean else []),
        ],
        enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=50,
    )  # fmt: skip
    checkpoint = draft / CHECKPOINT
    resumed = checkpoint if checkpoint.exists() else None
    if resumed:
        log.info("%s: resuming from its checkpoint", name)
    module.train()
    for parent in (child for child in module.children() if isinstance(child, Trainable)):
        parent.eval()  # no dropout in a model that is only read
    trainer.fit(module, ckpt_path=resumed, weights_only=False)
    if run_logger:
        close(run_logger)
    if trainer.interrupted or trainer.global_step < own.steps:
        raise KeyboardInterrupt(f"{name}: stopped at step {trainer.global_step} of {own.steps}")
    if mean:  # Lightning leaves this out where the checkpoint is of the last step
        mean.on_train_end(trainer, module)


class Saves(ModelCheckpoint):
    """Renews one checkpoint every epoch of Lightning's (`optim.checkpoint` steps), with the seconds spent so far."""

    def __init__(self, draft: Path):
        super().__init__(dirpath=draft, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        self.stopwatch = Stopwatch(draft)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.stopwatch.write()


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
