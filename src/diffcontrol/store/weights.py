"""Weights of a model in a file: written without those of its parents, which are stored apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as in_bytes

from diffcontrol.recipe import is_recipe
from diffcontrol.refused import Refused
from diffcontrol.store.provenance import verify
from diffcontrol.training import Trainable

FILE = "weights.safetensors"
HALF = (torch.float16, torch.bfloat16)  # in which weights may be stored to take half the room


def own_weights(module: Trainable, recipe: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of the module without its parents', tied ones once."""
    own, seen = {}, set()
    for name, weight in module.state_dict().items():
        if not is_recipe(recipe.get(name.split(".")[0])) and weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            own[name] = weight.contiguous().cpu()
    return own


def save(module: Trainable, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Writes the module's own weights.

    Raises:
        Refused: some are infinite or no numbers, or cannot be written.
    """
    own = own_weights(module, recipe)
    if not all(weight.isfinite().all() for weight in own.values()):
        steps, lr = module.options.steps, module.options.lr
        raise Refused(
            f"{folder.name}: its weights are not finite numbers at step {steps}; set a lower optim.lr (it is {lr})"
        )
    try:
        write(own, folder / FILE)
    except OSError as error:  # the disk is full, for one
        raise Refused(f"{folder / FILE} cannot be written ({error}); the same command goes on from here") from error


def write(weights: Mapping[str, torch.Tensor], file: Path) -> None:
    """Writes weights so that whoever may read the store's other files may read them: safetensors' `save_file` leaves
    files that nobody but their owner reads.

    Raises:
        OSError: the file cannot be written.
    """
    file.write_bytes(in_bytes(dict(weights)))


def load(module: Trainable, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Loads the weights in `folder` into the module; those in half precision become what the module computes in.

    Raises:
        Refused: they cannot be read, are not those that were stored or not those of such a module.
    """
    verify(folder)
    try:
        stored, own = load_file(folder / FILE), own_weights(module, recipe)
        if differ := sorted(set(own) ^ set(stored)):
            raise ValueError(f"its weights differ in name: {differ[:3]}")
        for name, weight in stored.items():
            if weight.dtype not in (own[name].dtype, *(HALF if own[name].is_floating_point() else ())):
                raise ValueError(f"{name} is of {weight.dtype} in place of {own[name].dtype}")
            if weight.shape != own[name].shape:
                raise ValueError(f"{name} has the shape {[*weight.shape]} in place of {[*own[name].shape]}")
            if not weight.isfinite().all():
                raise ValueError(f"{name} holds values that are infinite or no numbers")
        module.load_state_dict({name: weight.to(own[name].dtype) for name, weight in stored.items()}, strict=False)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise Refused(f"{folder} holds no readable model ({error}); remove that folder to train it again") from error
