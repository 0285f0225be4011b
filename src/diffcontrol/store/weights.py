"""Weights of a model in a file: written without those of its parents, which are stored apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffcontrol.recipe import is_recipe
from diffcontrol.training import Trainable

FILE = "weights.safetensors"


def own_weights(module: Trainable, recipe: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of the module without its parents', tied ones once."""
    own, seen = {}, set()
    for name, weight in module.state_dict().items():
        if not is_recipe(recipe.get(name.split(".")[0])) and weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            own[name] = weight.contiguous().cpu()
    return own


def load(module: Trainable, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Loads the weights in `folder` into the module.

    Raises:
        ValueError: they cannot be read or are not those of such a module.
    """
    try:
        weights = load_file(folder / FILE)
        if differ := sorted(set(own_weights(module, recipe)) ^ set(weights)):
            raise ValueError(f"its weights differ in name: {differ[:3]}")
        module.load_state_dict(weights, strict=False)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} holds no readable model ({error}); remove that folder to train it again") from error
