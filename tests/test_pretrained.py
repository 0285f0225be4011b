"""The weights that ship are found by the addresses of the default recipes, on any machine."""

from pathlib import Path

import pytest
import torch

from diffcontrol.recipe import recipes
from diffcontrol.store import Store
from tests.composing import composed, options

SHIPPED = Path(__file__).parents[1] / "pretrained"
MIB = 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("empty"), SHIPPED, {"accelerator": "cpu"})


@pytest.mark.parametrize("task", options("task"))
def test_guided_diffusion_trains_nothing(store, task):
    node = composed(f"task={task}")["method"]["guided_diffusion"]
    found = store.addresses(node)
    assert "lm" in found
    for name, address in found.items():
        assert (SHIPPED / address).is_dir(), f"{name}: {address}"


def test_what_ships_is_whole_and_loads(store):
    recipe = recipes(composed("task=semantic_content")["method"]["guided_diffusion"])
    for name in ("lm", "steering.semantic_content"):
        model = store.fit(recipe[name])
        assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in model.parameters())
    assert not store.trained


def test_nothing_ships_that_no_default_recipe_asks_for(store):
    asked = {
        address
        for task in options("task")
        for address in store.addresses(composed(f"task={task}")["method"]["guided_diffusion"]).values()
    }
    assert {path.name for path in SHIPPED.iterdir() if path.is_dir() and path.name[0] != "."} <= asked


def test_what_ships_is_small():
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(sizes) < 100 * MIB and max(sizes) < 12 * MIB
