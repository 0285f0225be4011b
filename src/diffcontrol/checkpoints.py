"""Checkpoints: files from which a training resumes, written so that a kill leaves them whole and read with distrust."""

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from diffcontrol import ranks
from diffcontrol.drafts import Stopwatch, write_whole
from diffcontrol.training import Trainable

log = logging.getLogger(__name__)
FILE = "last.ckpt"


def steps_done(checkpoint: Path, module: Trainable, name: str) -> int:
    """Steps that a checkpoint holds. One that cannot be resumed from is named and set aside, so that training starts
    again; so is one that holds more than tensors and numbers, as unpickling may run code."""
    if not checkpoint.exists():
        return 0
    try:
        with zipfile.ZipFile(checkpoint) as records:  # torch does not look at the checksums that it writes
            if torn := records.testzip():
                raise ValueError(f"{torn} fails its checksum")
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        shapes = {key: weight.shape for key, weight in held["state_dict"].items()}
        if shapes != {key: weight.shape for key, weight in module.state_dict().items()}:
            raise ValueError("its weights are those of another version of the model")
        return int(held["global_step"])
    except Exception as error:  # a torn file can fail in many ways
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
        if ranks.is_first():
            checkpoint.replace(aside)
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("%s: its checkpoint is damaged (%s) and now lies in %s; training starts again", name, said, aside)
        return 0


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk leaves whole. Lightning's are written to the temporary folder and moved,
    which is a copy where that folder is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        whole = io.BytesIO()  # torch's writer of files does not say why a write failed
        torch.save(checkpoint, whole)
        write_whole(Path(path), lambda opened: opened.write(whole.getbuffer()))


class Saves(ModelCheckpoint):
    """Renews one checkpoint every epoch of Lightning's (`optim.checkpoint` steps), with the seconds spent so far."""

    def __init__(self, draft: Path):
        super().__init__(dirpath=draft, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        self.stopwatch = Stopwatch(draft)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self.stopwatch.write()
