"""Launching: a run with several devices is several processes, started before there is anything for them to do.

Lightning starts them for a training; a run that trains nothing needs them too, as they share the writing.
"""

from collections.abc import Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning_fabric.plugins.environments import LightningEnvironment

from diffcontrol.ranks import ALONE, Share
from diffcontrol.trainer_options import accelerator_of

OF_PROCESSES = ("devices", "num_nodes", "strategy")
FOLDER = "hydra.run.dir"


def launched(options: Mapping[str, Any]) -> Share:
    """Starts the other processes that these options of a Trainer ask for, unless that was done before, and has this one
    compute on its own device. Returns its share of the writing: nothing is shared by processes that cannot tell which
    folder the first one writes into, as each of them names one by the time at which it started."""
    plain = {name: options[name] for name in OF_PROCESSES if name in options} | {"accelerator": accelerator_of(options)}
    trainer = instantiate(
        {"_target_": "pytorch_lightning.Trainer", **plain},
        logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    share = Share(trainer.global_rank, trainer.world_size)
    if share.world > 1:
        trainer.strategy.launcher.launch(lambda: None, trainer=trainer)
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.set_device(trainer.strategy.root_device)
    return share if share.world > 1 and _one_folder(trainer) else ALONE


def _one_folder(trainer: Any) -> bool:
    """Whether all processes write into one folder. Lightning passes it to the processes that it starts on this machine;
    for other machines the user has to set hydra.run.dir."""
    if isinstance(trainer.strategy.cluster_environment, LightningEnvironment) and trainer.num_nodes == 1:
        return True
    return any(override.lstrip("+").startswith(f"{FOLDER}=") for override in HydraConfig.get().overrides.hydra)
