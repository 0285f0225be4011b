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


def asked(store: Store, task: str) -> dict[str, str]:
    """Addresses of what ships of a task: guided diffusion, the judges, FUDGE's language model and its predictors,
    masked diffusion, and the hidden Markov model of look-ahead."""
    cfg = composed(f"task={task}")
    found = {f"method.{name}": at for name, at in store.addresses(cfg["method"]["guided_diffusion"]).items()}
    found |= {f"judge.{name}": at for name, at in store.addresses(cfg["judge"]).items()}
    if fudge := cfg["method"].get("fudge"):
        found |= {f"fudge.{name}": at for name, at in store.addresses(fudge).items()}
    for name in ("masked", "lookahead"):
        node = composed(f"task={task}", f"method=[{name}]")["method"][name]
        found |= {f"{name}.{part}": at for part, at in store.addresses(node).items()}
    return found


@pytest.mark.parametrize("task", options("task"))
def test_what_a_task_needs_ships(store, task):
    found = asked(store, task)
    assert "method.lm" in found and "judge.teacher" in found
    for name, address in found.items():
        assert (SHIPPED / address).is_dir(), f"{name}: {address}"


def test_what_ships_is_whole_and_loads(store):
    recipe = recipes(composed("task=semantic_content")["method"]["guided_diffusion"])
    for name in ("lm", "steering.semantic_content"):
        model = store.fit(recipe[name])
        assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in model.parameters())
    assert not store.trained


def test_nothing_ships_that_no_default_recipe_asks_for(store):
    wanted = {address for task in options("task") for address in asked(store, task).values()}
    assert {path.name for path in SHIPPED.iterdir() if path.is_dir() and path.name[0] != "."} <= wanted


def test_what_ships_is_small():
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(sizes) < 100 * MIB and max(sizes) < 12 * MIB
