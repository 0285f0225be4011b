"""What the store asks of Lightning in training: a checkpoint with the seconds spent, and progress over all steps."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar

from diffcontrol.stage import Clock


class Saves(ModelCheckpoint):
    """One checkpoint, renewed every epoch of Lightning's (`optim.checkpoint` steps), with the seconds spent so far."""

    def __init__(self, draft: Path):
        super().__init__(dirpath=draft, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        self.clock = Clock(draft)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.clock.write()


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
