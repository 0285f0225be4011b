"""The weights that ship are found by the addresses of the default recipes, on any machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from diffcontrol.recipe import canonical, class_of, recipes
from diffcontrol.store import Store
from tests.composing import composed, options

SHIPPED = Path(__file__).parents[1] / "pretrained"
E2E = Path(__file__).parents[2] / "shared/data/e2e"
MIB = 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("empty"), SHIPPED, {"accelerator": "cpu"})


OF_SOME = {
    "conditional": [task for task in options("task") if task != "infilling"],
    "fudge": [task for task in options("task") if task != "infilling"],
    "finetuned": [task for task in options("task") if task != "infilling"],
    "infill": ["infilling"],
    "pplm": ["attribute", "length", "semantic_content"],
}


def asked(store: Store, task: str) -> dict[str, str]:
    """Addresses of what ships of a task: guided diffusion, the judges, FUDGE's language model and its predictors,
    masked diffusion, the hidden Markov model of look-ahead, and what other methods need for some of the tasks."""
    chosen = [method for method, tasks in OF_SOME.items() if task in tasks]
    methods = ["guided_diffusion", "masked", "lookahead", *chosen]
    cfg = composed(f"task={task}", f"method=[{','.join(methods)}]")
    found = {f"judge.{name}": at for name, at in store.addresses(cfg["judge"]).items()}
    for name in methods:
        found |= {f"{name}.{part}": at for part, at in store.addresses(cfg["method"][name]).items()}
    return found


UNPARSED = ("attribute", "first_word", "infilling", "length", "semantic_content")  # tasks that need no parser


def undigested(recipe: Any) -> Any:
    """The recipe as it enters an address, with no digest in it, so that the data need not be there."""
    return without_digests(
        canonical(recipe, lambda node: SimpleNamespace(location_arguments=class_of(node).location_arguments, digest=""))
    )


def without_digests(node: Any) -> Any:
    if isinstance(node, list):
        return [without_digests(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: without_digests(value) for key, value in node.items() if key != "digest"}


def e2e_asked() -> list[tuple[str, Any]]:
    """Name and recipe, without digests, of what ships for experiment=e2e: what guided diffusion, FUDGE and the judges
    need for the tasks of which no parser is judge."""
    found = []
    for task in UNPARSED:
        cfg = composed("experiment=e2e", f"task={task}", "paths.e2e=e2e")
        for name in ("guided_diffusion", "fudge"):
            nodes = recipes(cfg["method"].get(name, {}))
            found += [(f"{task}, {name}.{part}", undigested(node)) for part, node in nodes.items()]
        found += [(f"{task}, judge.{part}", undigested(node)) for part, node in recipes(cfg["judge"]).items()]
    return found


def shipped_recipes() -> list[Any]:
    files = sorted(SHIPPED.glob("*/config.yaml"))
    return [without_digests(OmegaConf.to_container(OmegaConf.load(file))) for file in files]


def test_what_experiment_e2e_needs_ships():
    """Its addresses depend on the texts, which are not at hand everywhere; its recipes do not."""
    there = shipped_recipes()
    asked_for = e2e_asked()
    assert asked_for and not [name for name, recipe in asked_for if recipe not in there]


@pytest.mark.skipif(not E2E.is_dir(), reason="the E2E data are not at hand")
@pytest.mark.parametrize("task", UNPARSED)
def test_experiment_e2e_finds_what_ships(store, task):
    cfg = composed("experiment=e2e", f"task={task}", f"paths.e2e={E2E}")
    for node in (cfg["method"]["guided_diffusion"], cfg["method"].get("fudge", {}), cfg["judge"]):
        for name, address in store.addresses(node).items():
            assert (SHIPPED / address).is_dir(), f"{name}: {address}"


@pytest.mark.parametrize("task", options("task"))
def test_what_a_task_needs_ships(store, task):
    found = asked(store, task)
    assert "guided_diffusion.lm" in found and "judge.teacher" in found
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
    there = {path.name for path in SHIPPED.iterdir() if path.is_dir() and path.name[0] != "."}
    e2e = [recipe for _, recipe in e2e_asked()]
    for name in there - wanted:
        assert without_digests(OmegaConf.to_container(OmegaConf.load(SHIPPED / name / "config.yaml"))) in e2e, name


def test_what_ships_is_small():
    sizes = [path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(sizes) < 100 * MIB and max(sizes) < 12 * MIB
