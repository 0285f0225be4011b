"""Contracts of conf/, by discovery: an option or experiment added there is tested without a line here."""

import inspect
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import yaml
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_object
from omegaconf import OmegaConf

from diffcontrol.recipe import is_recipe
from diffcontrol.store import Store
from tests.composing import CONF, composed, options, raw

SMALL = ("data.size=60", "data.dev=5", "data.test=5")
GROUPS = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir() and any(path.glob("*.yaml")))
TASKS, METHODS = options("task"), options("method")


CHOSEN = raw().hydra.runtime.choices  # of every group in the default config


def override(group: str, option: str) -> str:
    """Chooses the option; where the default config has no such group (a task's parts), it is added."""
    return f"{group}={option}" if group in CHOSEN else f"+{group}@alone_{group}={option}"


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """Everything that describes an object."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from nodes(value, f"{path}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from nodes(value, f"{path}.{i}")


def check(cfg: dict[str, Any]) -> None:
    """Every `_target_` imports and takes the arguments that it is given."""
    found = list(nodes(cfg))
    assert found
    for path, node in found:
        made = get_object(node["_target_"])
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        signature = inspect.signature(made)
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        try:
            bind(**arguments)
        except TypeError as error:
            pytest.fail(f"{path.lstrip('.')}: {node['_target_']}: {error}")


ALONE = ("experiment",)  # they change other groups
TOGETHER = [group for group in GROUPS if group not in ALONE]


@pytest.mark.parametrize("turn", range(max(len(options(group)) for group in TOGETHER)))
def test_every_option_composes_and_its_arguments_bind(turn):
    """Turn by turn the first option of every group, the second, …, so that there are as few compositions as can be."""
    check(composed(*(override(group, options(group)[turn % len(options(group))]) for group in TOGETHER)))


def test_the_trainer_takes_what_it_is_given():
    for option in options("trainer"):
        given = set(composed(f"trainer={option}")["trainer"]) - {"compile"}  # understood by the store
        assert given <= set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes_alone(method):
    cfg = composed(f"method={method}")
    assert len(cfg["method"]) >= 2 and "unguided" in cfg["method"]
    check(cfg)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_composes_with_all_methods(task):
    cfg = composed(f"task={task}", f"method=[{','.join(METHODS)}]")
    assert set(cfg["task"]) == {task}
    assert {"unguided", *METHODS} <= set(cfg["method"])
    check(cfg)


@pytest.mark.parametrize("pair", itertools.pairwise([*TASKS, TASKS[0]]), ids="+".join)
def test_neighbouring_tasks_compose(pair):
    cfg = composed(f"task=[{','.join(pair)}]", f"method=[{','.join(METHODS)}]")
    assert set(cfg["task"]) == set(pair)
    check(cfg)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_what_each_method_uses_of_it(task):
    """A strength for each method that has strengths, and the task's own models."""
    cfg = composed(f"task={task}", f"method=[{','.join(METHODS)}]")
    unresolved = OmegaConf.to_container(raw(f"task={task}", f"method=[{','.join(METHODS)}]"))["method"]
    for name, node in cfg["method"].items():
        for key, value in node.items():
            by_task = isinstance(unresolved[name].get(key), str) and isinstance(value, dict) and not is_recipe(value)
            if key == "strength" and by_task:
                assert isinstance(value.get(task, value.get("default")), int | float), f"strength of {name} for {task}"
            elif by_task and value and all(map(is_recipe, value.values())):
                assert set(value) == {task}, f"{name}.{key}"
                assert value[task]["task"] == cfg["task"][task]


def test_all_methods_are_rows_of_one_run_in_the_order_asked_for():
    names = list(composed(f"method=[{','.join(reversed(METHODS))}]")["method"])
    assert names[0] == "unguided"
    assert [name for name in names if name in METHODS] == [*reversed(METHODS)]  # an option may bring a second row


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_option_says_what_the_frontier_varies_of_it(method):
    cfg = composed(f"method={method}")
    assert set(cfg["sweep"]) == {method}
    for key, values in cfg["sweep"][method].items():
        assert key in cfg["method"][method] and 1 < len(values) <= 5  # the same tuning for every method


def test_candidates_are_of_the_method_in_the_run():
    assert composed("method=best")["method"]["best"]["method"] is None  # which `check` refuses with a sentence
    cfg = composed("method=[guided_diffusion,best,mbr]", "strength.scale=3")
    for name in ("best", "mbr"):
        assert cfg["method"][name]["method"] == cfg["method"]["guided_diffusion"]
    cfg = composed("method=[fudge,best]", "method.best.method=${method.fudge}")
    assert cfg["method"]["best"]["method"] == cfg["method"]["fudge"]


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_with_every_task(experiment):
    for task in TASKS:
        check(composed(f"experiment={experiment}", f"task={task}"))


@pytest.mark.parametrize("group", sorted(set(GROUPS) & set(CHOSEN)))
def test_a_mistyped_option_lists_the_options(group):
    with pytest.raises(MissingConfigException) as error:
        raw(f"{group}=nosuch")
    assert "nosuch" in str(error.value)
    assert all(re.search(rf"\b{option}\b", str(error.value)) for option in options(group))


@pytest.mark.parametrize("group", ["task", "method"])
def test_a_mistyped_option_in_a_list_is_named(group):
    with pytest.raises(MissingConfigException, match=f"{group}/nosuch"):
        raw(f"{group}=[{options(group)[0]},nosuch]")


def test_what_a_method_does_not_have_cannot_be_set():
    with pytest.raises(ConfigCompositionException, match="guidance"):
        raw("method=fudge", "guidance=langevin")
    raw("method=guided_diffusion", "guidance=langevin")


@pytest.mark.parametrize(
    "key", ["sampler.step=3", "targets.number=3", "strength.langevin.nosuch=1", "lm.optim.stepz=3"]
)
def test_a_mistyped_key_is_refused(key):
    with pytest.raises(ConfigCompositionException, match=key.split("=")[0].rsplit(".", 1)[-1]):
        raw(key)


def test_the_command_line_says_it_in_a_few_lines():
    found = subprocess.run([sys.executable, "run.py", "task=nosuch"], cwd=CONF.parent, capture_output=True, text=True,
                           env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert found.returncode != 0 and "Traceback" not in found.stderr
    assert all(task in found.stderr for task in TASKS) and len(found.stderr.splitlines()) < 30


# --- trees: gold ones or a parser's, with the data


@pytest.mark.parametrize(("overrides", "parser", "treebank"), [
    ((), "EmbeddedParser", "Restaurants"),
    (("treebank=parsed",), "EmbeddedParser", "Treebank"),
    (("parser=local", "parser.model=/x"), "FolderParser", "Restaurants"),
    (("data=e2e",), "PublishedParser", "Treebank"),
    (("data=e2e", "parser=local", "parser.model=/x"), "FolderParser", "Treebank"),
    (("parser=embedded", "data=e2e"), "EmbeddedParser", "Treebank"),
    (("data=e2e", "treebank=gold"), "PublishedParser", "Table"),
    (("data=table", "data.folder=/x"), "PublishedParser", "Treebank"),
    (("experiment=e2e_small",), "PublishedParser", "Treebank"),
    (("experiment=e2e_small", "parser=local"), "FolderParser", "Treebank"),
])  # fmt: skip
def test_the_data_choose_parser_and_treebank_and_the_command_line_has_the_last_word(overrides, parser, treebank):
    cfg = composed(*overrides)
    assert cfg["parser"]["_target_"].endswith(f".{parser}") and cfg["treebank"]["_target_"].endswith(f".{treebank}")
    if treebank == "Treebank":
        assert cfg["treebank"]["parser"] == cfg["parser"] and cfg["treebank"]["data"] == cfg["data"]


@pytest.mark.parametrize("data", options("data"))
def test_a_task_that_asks_for_no_trees_names_neither_parser_nor_treebank(data):
    cfg = composed("task=semantic_content", f"data={data}", f"method=[{','.join(METHODS)}]")
    used = {key: value for key, value in cfg.items() if key not in ("parser", "treebank")}
    assert not [path for path, node in nodes(used) if "syntax" in node["_target_"]]


# --- what enters a model's address


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def addresses(store: Store, *overrides: str) -> dict[str, str]:
    cfg = composed(*SMALL, *overrides)
    return store.addresses({"method": cfg["method"], "judge": cfg["judge"]})


NEUTRAL = [
    ("seed=7", "num_samples=9", "targets.n=3", "targets.seed=4", "targets.from=dev", "sampler.steps=7"),
    ("strength.scale=2", "strength.langevin.semantic_content=3", "strength.fudge.semantic_content=3", "sampler=ddpm"),
    ("decoding.temperature=0.7", "decoding.clamp=1", "decoding.chunk=3", "guidance=langevin_adagrad"),
    ("guidance.lr=0.3", "logger=wandb"),
    ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.compile=true", "~logger"),
    ("paths.store=/elsewhere", "paths.outputs=/elsewhere", "paths.pretrained=/elsewhere", "paths.e2e=/elsewhere"),
]


@pytest.mark.parametrize("overrides", NEUTRAL, ids=lambda overrides: overrides[0])
def test_what_does_not_bear_on_weights_retrains_nothing(store, overrides):
    assert addresses(store, *overrides) == addresses(store)


LM, CLASSIFIER = "method.guided_diffusion.lm", "method.guided_diffusion.classifiers.semantic_content"
CAUSAL, PREDICTOR, TEACHER = "method.fudge.lm", "method.fudge.predictors.semantic_content", "judge.teacher"
DIFFUSION = {LM, "method.unguided.lm", CLASSIFIER}
ALL = DIFFUSION | {CAUSAL, PREDICTOR, TEACHER}


@pytest.mark.parametrize(("overrides", "expected"), [
    ("model=small", ALL), ("model.depth=3", ALL), ("model.embedding=17", DIFFUSION), ("data.seed=1", ALL),
    ("data.size=61", ALL), ("objective=end_to_end", DIFFUSION), ("schedule=cosine", DIFFUSION),
    ("schedule.margin=2", DIFFUSION), ("lm.optim.steps=7", DIFFUSION), ("lm.window=0", DIFFUSION),
    ("lm.model_seed=9", DIFFUSION), ("encoder=noisy", {CLASSIFIER}), ("classifier_optim.lr=1", {CLASSIFIER}),
    ("predictor_optim.steps=3", {PREDICTOR}), ("judge.teacher.model_seed=8", {TEACHER}), ("lm.version=2", DIFFUSION),
])  # fmt: skip
def test_what_bears_on_weights_retrains_that_and_no_more(store, overrides, expected):
    before, after = addresses(store), addresses(store, overrides)
    assert set(before) == ALL
    assert {name for name in before if before[name] != after[name]} == expected


def test_the_judge_is_no_model_that_writes(store):
    found = addresses(store)
    assert found[TEACHER] not in {found[name] for name in ALL - {TEACHER}}


def test_no_secrets_of_this_machine_stand_in_conf():
    for path in CONF.rglob("*.yaml"):
        if path.parent.name != "local":
            assert not re.search(r"(/home/|/root/|/Users/|/work/|api_key)", path.read_text()), path
            assert yaml.safe_load(path.read_text()) is None or "eval:" not in path.read_text()


def test_a_method_with_a_language_model_of_its_own_steers_it_by_each_tasks_own_choice():
    cfg = composed("task=[semantic_content,length,parts_of_speech]", "method=[guided_diffusion,masked]")
    theirs, own = (cfg["method"][name]["steering"] for name in ("guided_diffusion", "masked"))
    assert cfg["method"]["masked"]["lm"]["_target_"].endswith(".MaskedLM") and "lm" not in own["length"]
    assert own["length"] == theirs["length"]
    for task in ("semantic_content", "parts_of_speech"):
        assert own[task] == theirs[task] | {"lm": cfg["method"]["masked"]["lm"]} != theirs[task]


def test_the_masked_language_model_is_trained_as_the_continuous_one():
    cfg = composed("method=masked", "lm.optim.steps=77", "lm.window=9", "model=small")
    lm, masked = cfg["lm"], cfg["masked_lm"]
    assert all(masked[key] == lm[key] for key in ("data", "model", "window", "optim"))
