"""Contracts of conf/, by discovery: an option or experiment added there is tested without a line here."""

import inspect
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import pytorch_lightning as pl
import yaml
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.utils import get_object
from omegaconf import OmegaConf

from diffcontrol.preparing import resolved
from diffcontrol.recipe import is_recipe
from diffcontrol.refused import Refused
from diffcontrol.store import Store
from diffcontrol.task import ControlTask
from tests.composing import CONF, composed, job, options, raw
from tests.fakes import FakeCorpus

SMALL = ("data.size=60", "data.dev=5", "data.test=5")
GROUPS = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir() and any(path.glob("*.yaml")))
TASKS, METHODS = options("task"), options("method")
EVERY_TASK = f"task=[{','.join(TASKS)}]"


CHOSEN = raw().hydra.runtime.choices  # of every group in the default config


def override(group: str, option: str) -> str:
    """Chooses the option; where the default config has no such group, it is added."""
    return f"{group}={option}" if group in CHOSEN else f"+{group}@alone_{group}={option}"


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """Everything that describes an object."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            if (path, key) != ("", "task_overrides"):  # they are checked where `per_task` has filled them in
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
        arguments = {key: value for key, value in node.items() if key[0] != "_" and key != "for_every_task"}
        signature = inspect.signature(made)
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        try:
            bind(**arguments)
        except TypeError as error:
            pytest.fail(f"{path.lstrip('.')}: {node['_target_']}: {error}")


#: they bring nodes at the top level, or change other groups, or need an extra (tests/test_sweeps.py)
ALONE = ("experiment", "method", "hparams_search")
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
def test_what_a_method_has_for_every_task_it_has_for_this_one(task):
    """Dictionaries that a resolver makes: an object for the task itself, and strengths with a default."""
    cfg = composed(f"task={task}", f"method=[{','.join(METHODS)}]")
    unresolved = OmegaConf.to_container(raw(f"task={task}", f"method=[{','.join(METHODS)}]"))
    for path, text in strings(unresolved["method"]):
        value = cfg["method"]
        for key in path:
            value = value[key]
        if text.startswith("${per_task:"):
            assert set(value) == {task} and value[task]["task"] == cfg["task"][task], path
            assert "for_every_task" not in value[task] and value[task].get("data", "none") is not None, path
        elif text.startswith("${strengths:"):
            assert isinstance(value["default"], int | float), path


def strings(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in it, and the keys that lead there."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(value, (*path, key))
    elif isinstance(node, str):
        yield path, node


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
def test_every_experiment_composes_with_one_task_and_with_all(experiment):
    check(composed(f"experiment={experiment}"))
    check(composed(f"experiment={experiment}", EVERY_TASK))


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


# --- what every task has of each template


def steering(*overrides: str) -> dict[str, str]:
    """task → the class that makes guided diffusion obey it."""
    made = composed(*overrides)["method"]["guided_diffusion"]["steering"]
    return {task: node["_target_"].rsplit(".", 1)[-1] for task, node in made.items()}


@pytest.mark.parametrize(("overrides", "expected"), [
    (("task=[length,attribute]",), {"length": "Anchor", "attribute": "ControlClassifier"}),
    (("task=length", "control=pull"), {"length": "Pull"}),
    (("task=[length,attribute]", "control=classifier"), dict.fromkeys(["length", "attribute"], "ControlClassifier")),
    (("task=[length,attribute]", "control@task_overrides.length.control=pull"),
     {"length": "Pull", "attribute": "ControlClassifier"}),
    (("task=[first_word,length]", "+control@task_overrides.first_word.control=exact"),
     {"first_word": "Exact", "length": "Anchor"}),
    (("task=length", "control@task_overrides.length.control=pull", "control=classifier"),
     {"length": "ControlClassifier"}),  # a choice for the whole run wins
])  # fmt: skip
def test_a_control_is_chosen_for_the_run_for_one_task_or_by_the_task(overrides, expected):
    assert steering(*overrides) == expected
    check(composed(*overrides))


@pytest.mark.parametrize("control", options("control"))
@pytest.mark.parametrize("task", TASKS)
def test_a_control_is_applicable_to_a_task_or_refused(task, control):
    """Asked of the classes alone: what a task lacks, it lacks on every data set."""
    cfg = composed(EVERY_TASK, f"control={control}")
    own, made = get_object(cfg["task"][task]["_target_"]), cfg["method"]["guided_diffusion"]["steering"][task]
    if control == "exact":
        return  # its automaton is made from the task's data: tests/tasks/test_contract.py
    needs = "layouts" if control in ("anchor", "pull") else "head" if control == "classifier" else ""
    lacks = bool(needs) and getattr(own, needs) is getattr(ControlTask, needs)
    with pytest.raises(Refused, match=own.__name__) if lacks else nullcontext():
        get_object(made["_target_"]).check(object.__new__(own), FakeCorpus())


def test_the_models_of_a_task_read_its_data_or_what_is_said_instead():
    data = {task: composed(f"task={task}", "treebank=parsed")["method"]["fudge"]["predictors"][task]["data"]["_target_"]
            for task in ("semantic_content", "syntax_tree", "attribute")}  # fmt: skip
    assert {task: target.rsplit(".", 1)[-1] for task, target in data.items()} == {
        "semantic_content": "Restaurants", "syntax_tree": "Treebank", "attribute": "Part"
    }  # fmt: skip


def test_a_task_overrides_a_number_of_a_template_for_itself_alone():
    cfg = composed("task=[syntax_tree,length]", "+task_overrides.length.predictor.optim.lr=7")
    made = cfg["method"]["fudge"]["predictors"]
    assert made["length"]["optim"] == cfg["predictor_optim"] | {"lr": 7}
    assert made["syntax_tree"]["optim"] == cfg["long_predictor_optim"] != cfg["predictor_optim"]


def test_what_a_template_does_not_have_cannot_be_overridden():
    with pytest.raises(Refused, match=r"task_overrides.length.predictor.optin: .*no optin, only .*optim"):
        resolved(job("task=length", "+task_overrides.length.predictor.optin.lr=7"))


def test_a_template_that_is_not_there_is_named():
    with pytest.raises(Refused, match="no template 'predcitor'"):
        resolved(job("method.fudge.predictors='${per_task:predcitor}'"))


def test_strengths_are_the_tasks_own_or_the_default():
    cfg = composed("task=[semantic_content,length]", "~strength.fudge.length", "+strength.one_pass.default=5")
    own = yaml.safe_load((CONF / "task" / "semantic_content.yaml").read_text())["strength"]["fudge"]
    assert cfg["method"]["fudge"]["strength"] == {"default": 8, **own} and "semantic_content" in own
    assert cfg["method"]["guided_diffusion"]["guidance"]["strength"]["default"] == 5


PROBE = """
# @package _global_
method:
  probing:
    _target_: diffcontrol.methods.fudge.Fudge
    lm: ${causal_lm}
    predictors: ${per_task:probe}
    strength: ${strengths:probing,2}
    seed: ${seed}
probe:
  _target_: diffcontrol.autoregressive.predictor.Predictor
  task: null
  data: ${data}
  model: ${causal_lm.model}
  optim: ${predictor_optim}
"""


def test_a_method_with_a_model_for_every_task_needs_one_yaml_and_no_edit_of_a_task(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "probing.yaml").write_text(PROBE.lstrip())
    for task in TASKS:
        cfg = composed(f"task={task}", "method=probing", f"hydra.searchpath=[file://{tmp_path}]")
        check(cfg)
        made = cfg["method"]["probing"]["predictors"][task]
        predictor = composed(f"task={task}", "method=fudge")["method"]["fudge"]["predictors"][task]
        assert (made["task"], made["data"]) == (cfg["task"][task], predictor["data"])
        assert cfg["method"]["probing"]["strength"] == {"default": 2}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_names_no_method_but_where_it_says_which_are_run(task):
    text = (CONF / "task" / f"{task}.yaml").read_text()
    rest = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", "- override /method")))
    made = yaml.safe_load(rest)
    assert not {"method", "sweep", *options("method"), "predictor", "expert", "infiller", "control"} & set(made)


# --- how long the trainings are


def test_every_budget_sets_the_same_steps_and_they_grow():
    steps = {name: dict(steps_of(yaml.safe_load((CONF / "budget" / f"{name}.yaml").read_text())))
             for name in ("quick", "default", "long")}  # fmt: skip
    assert steps["quick"].keys() == steps["default"].keys() == steps["long"].keys()
    for key, n in steps["default"].items():
        assert steps["quick"][key] < n <= steps["long"][key] <= 4 * n  # four times as many, where that does not overfit
    assert steps["long"]["lm.optim.steps"] == 2 * steps["default"]["lm.optim.steps"]
    cfg = composed("budget=quick")
    assert cfg["method"]["guided_diffusion"]["lm"]["optim"]["steps"] == steps["quick"]["lm.optim.steps"]
    assert composed("budget=long", "lm.optim.steps=7")["lm"]["optim"]["steps"] == 7


def steps_of(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        name = f"{path}.{key}".lstrip(".")
        if key == "steps":
            yield name, value
        else:
            yield from steps_of(value, name)


@pytest.mark.parametrize("budget", options("budget"))
def test_every_training_gets_its_steps_from_the_budget(budget):
    recipes = [(path, node) for path, node in nodes(composed(f"budget={budget}", f"method=[{','.join(METHODS)}]"))
               if is_recipe(node)]  # fmt: skip
    assert recipes and all(isinstance(node["optim"]["steps"], int) for _, node in recipes)


def test_help_says_what_every_group_is_for():
    said = raw().hydra.help.template
    assert [group for group in GROUPS if not re.search(rf"^  {group} +\w", said, re.M)] == []


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
    (("experiment=e2e",), "PublishedParser", "Treebank"),
    (("experiment=e2e", "parser=local"), "FolderParser", "Treebank"),
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
    ("decoding.temperature=0.7", "decoding.clamp=1", "chunk=3", "guidance=langevin_adagrad"),
    ("guidance.distance=9", "logger=[csv,wandb]", "model_seed=0"),
    ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.compile=true", "~logger"),
    ("paths.store=/elsewhere", "paths.outputs=/elsewhere", "paths.pretrained=/elsewhere", "paths.e2e=/elsewhere"),
]


@pytest.mark.parametrize("overrides", NEUTRAL, ids=lambda overrides: overrides[0])
def test_what_does_not_bear_on_weights_retrains_nothing(store, overrides):
    assert addresses(store, *overrides) == addresses(store)


LM, CLASSIFIER = "method.guided_diffusion.lm", "method.guided_diffusion.steering.semantic_content"
CAUSAL, PREDICTOR, TEACHER = "method.fudge.lm", "method.fudge.predictors.semantic_content", "judge.teacher"
DIFFUSION = {LM, "method.unguided.lm", CLASSIFIER}
ALL = DIFFUSION | {CAUSAL, PREDICTOR, TEACHER}


@pytest.mark.parametrize(("overrides", "expected"), [
    ("model=small", ALL - {TEACHER}), ("model.depth=3", ALL - {TEACHER}), ("model.embedding=17", DIFFUSION),
    ("judge.teacher.model.width=8", {TEACHER}), ("judge.teacher.optim.steps=9", {TEACHER}), ("data.seed=1", ALL),
    ("data.size=61", ALL), ("objective=end_to_end", DIFFUSION), ("schedule=cosine", DIFFUSION),
    ("schedule.margin=2", DIFFUSION), ("lm.optim.steps=7", DIFFUSION), ("lm.window=0", DIFFUSION),
    ("lm.model_seed=9", DIFFUSION), ("encoder=noisy", {CLASSIFIER}), ("classifier_optim.lr=1", {CLASSIFIER}),
    ("predictor_optim.steps=3", {PREDICTOR}), ("judge.teacher.model_seed=8", {TEACHER}), ("lm.version=2", DIFFUSION),
    ("model_seed=1", ALL - {TEACHER}),
])  # fmt: skip
def test_what_bears_on_weights_retrains_that_and_no_more(store, overrides, expected):
    before, after = addresses(store), addresses(store, overrides)
    assert set(before) == ALL
    assert {name for name in before if before[name] != after[name]} == expected


def test_the_judge_is_of_no_methods_architecture():
    cfg = composed(f"method=[{','.join(METHODS)}]")
    writers = {node["_target_"] for _, node in nodes(cfg["method"]) if is_recipe(node)}
    assert writers and cfg["judge"]["teacher"]["_target_"] not in writers


@pytest.mark.parametrize("seed", [1, 2, -1])
def test_no_training_of_the_methods_models_is_the_judge(store, seed):
    found = addresses(store, f"model_seed={seed}")
    assert found[TEACHER] == addresses(store)[TEACHER] not in {found[name] for name in ALL - {TEACHER}}


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
