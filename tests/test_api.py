"""`import diffcontrol` from Python: the same configuration, models and refusals as the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import diffcontrol
from diffcontrol.preparing import prepare
from diffcontrol.task import Mark
from tests.composing import CONF, composed

TINY = ("experiment=tiny", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model(store):
    return diffcontrol.load(*TINY, data="restaurants", store=store)


@pytest.fixture(scope="module")
def written(model):
    return model.generate(semantic_content=["food", "Italian"], length=12, n=3)


def test_to_import_it_is_light():
    code = "import sys, diffcontrol; assert not {'torch', 'hydra', 'transformers'} & set(sys.modules)"
    paths = os.pathsep.join([str(CONF.parent / "src"), str(CONF.parent)])
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": paths})


def test_it_writes_for_several_tasks_at_once(model, written, store):
    assert len(written) == 3 and all(isinstance(result, diffcontrol.Result) for result in written)
    for result in written:
        assert result.text == " ".join(result.words) and len(result.words) == 12  # a length that is fixed
        assert set(result.scores) == {"semantic_content", "length", "all"} and result.scores["length"] in (0, 1)
        assert result.perplexity is None  # its language model was not there
    assert {path.name.split("-")[0] for path in store.iterdir()} == {".drafts", "DiffusionLM", "ControlClassifier"}


def test_the_seed_says_what_is_drawn(model, written):
    again = model.generate(semantic_content=["food", "Italian"], length=12, n=3, seed=0)
    other = model.generate(semantic_content=["food", "Italian"], length=12, n=3, seed=1)
    assert again == written and other != written


def test_a_text_can_be_watched_as_it_comes_about(model):
    targets = {"semantic_content": ["food", "Italian"], "length": 12}
    steps = model.denoise(steps=3, **targets)
    assert [step.t for step in steps] == sorted((step.t for step in steps), reverse=True) and len(steps) == 3
    assert steps[0].t == 1 and all(len(step.words) == 12 and set(step.scores) == {*targets, "all"} for step in steps)
    assert steps == model.denoise(steps=3, **targets) != model.denoise(steps=3, method="unguided", **targets)


@pytest.mark.parametrize(("arguments", "said"), [
    ({"steps": 0}, "denoise(steps=0)"), ({"method": "nosuch"}, "has the methods unguided, guided_diffusion"),
])  # fmt: skip
def test_a_reverse_process_that_there_is_not_is_refused(model, arguments, said):
    with pytest.raises(diffcontrol.Refused, match=re.escape(said)):
        model.denoise(length=12, **arguments)


def test_the_targets_that_are_offered_are_accepted_and_the_most_frequent_come_first(model):
    task, corpus = (model.store.build(model._configured(("length",), None)[key]) for key in ("task", "data"))
    sizes = [len(example.words) for example in corpus.splits["dev"]]
    found = list(model.targets("length", n=3).values())
    assert [sizes.count(n) for n in found] == sorted(map(sizes.count, set(sizes)), reverse=True)[:3]
    assert all(task["length"].parse(n) == n for n in found) and "length" in model.tasks
    assert model.targets("semantic_content")["food : Italian"] == ["food", "Italian"]


def test_a_marked_text_shows_what_was_said_of_the_field():
    marks = {"a": [Mark(1, 3, True, "food")], "b": [], "c": [Mark(0, 1, False, "verb")]}
    assert diffcontrol.Result(("sells", "good", "soup"), {}, marks=marks).marked == (
        "sells [food: good soup]\nsells/!verb good soup"
    )
    assert diffcontrol.Result(("sells", "soup"), {}).marked == "sells soup"


def test_perplexity_is_measured_when_asked_for_and_from_then_on(model):
    (first,) = model.generate(length=5, perplexity=True)
    (second,) = model.generate(length=5)
    assert first.perplexity > 1 and first == second
    assert model.generate(length=5, perplexity=False)[0].perplexity is None


def test_another_process_of_the_same_store_trains_nothing_and_any_method_writes(store, model, written):
    again = diffcontrol.load(*TINY, data="restaurants", store=store, method=["guided_diffusion", "best"])
    assert again.generate(semantic_content=["food", "Italian"], length=12)[0].words
    assert again.store.trained == []


def test_its_models_are_those_of_the_command_line(model):
    own = model._configured(("length",), None)
    line = composed(*TINY, "task=length", "method=[guided_diffusion]")
    assert own["method"] == line["method"] and own["judge"] == line["judge"]


@pytest.mark.parametrize(("targets", "said"), [
    ({"semantic_content": ["food", "x"]}, "semantic_content: food has no value 'x'; known are"),
    ({"length": 900}, "length: 900 is not a target; write a number of words"),
    ({"nosuch": 3}, "task=nosuch: there is no such task; it is one of attribute, "),
    ({}, "name a task and its target"),
    ({"length": 3, "n": 0}, "generate(n=0)"),
    ({"length": 3, "n": "3"}, "generate(n='3')"),
    ({"length": 3, "n": 1.5}, "generate(n=1.5)"),
])  # fmt: skip
def test_a_bad_target_is_refused_before_anything_is_trained(tmp_path, targets, said):
    model = diffcontrol.load(*TINY, store=tmp_path / "store")
    with pytest.raises(diffcontrol.Refused, match="^" + re.escape(said)):
        model.generate(**targets)
    assert not (tmp_path / "store").exists()


def test_the_command_line_refuses_a_target_in_the_same_words(model):
    target = ["food", "Nosuch"]
    said = []
    for refused in (
        lambda: model.generate(semantic_content=target),
        lambda: prepare(composed(*TINY, "task=semantic_content", "targets.from=[[food,Nosuch]]"), model.store),
    ):
        with pytest.raises(diffcontrol.Refused) as error:
            refused()
        said.append(str(error.value))
    assert said[1] == f"targets.from, entry 1: {said[0]}"  # which entry it was only the command line has to say


@pytest.mark.parametrize(("arguments", "said"), [
    ({"data": "nosuch"}, "restaurants rocstories table"), ({"method": "nosuch"}, "method=nosuch: there is no such"),
    ({"method": "fudge", "data": "nosuch"}, "restaurants rocstories table"),
    ({"method": []}, "load(method=[]): one method is needed, or a list of them; those that ship are best, "),
    ({"method": None}, "load(method=None): one method is needed"),
    ({"method": 3}, "load(method=3): one method is needed"),
    ({"pretrained": "nowhere/at-all"}, "paths.pretrained=nowhere/at-all: there is no such folder"),
])  # fmt: skip
def test_what_there_is_not_is_refused(arguments, said):
    with pytest.raises(diffcontrol.Refused, match=re.escape(said)):
        diffcontrol.load(**arguments)


@pytest.mark.parametrize(("override", "said"), [
    ("method=fudge", "the argument `method` of load does"), ("task=length", "generate(task=target) does"),
    ("lengths=null", "lengths=null: lengths is a group, and one of its options is needed: model, training"),
    ("paths.store=null", "paths.store=null: paths.store is the path of a folder"),
    ("lengths=[1]", "lengths=[1]: Hydra cannot compose this"),
])  # fmt: skip
def test_what_an_override_cannot_choose_is_refused(override, said):
    with pytest.raises(diffcontrol.Refused, match=re.escape(said)):
        diffcontrol.load(override)


def test_data_that_are_chosen_twice_are_refused():
    with pytest.raises(diffcontrol.Refused, match=r"load\('data=e2e', data='restaurants'\): both choose the data"):
        diffcontrol.load("data=e2e", data="restaurants")


@pytest.mark.parametrize("n", ["a", 0, 1.5])
def test_a_number_of_targets_that_is_none_is_refused(model, n):
    with pytest.raises(diffcontrol.Refused, match=re.escape(f"targets(n={n!r}): n is the number of targets")):
        model.targets("length", n=n)


def test_without_the_judge_of_fluency_texts_have_no_perplexity(store):
    model = diffcontrol.load(*TINY, "~judge.teacher", store=store)
    assert model.generate(length=5, n=1)[0].perplexity is None
    with pytest.raises(diffcontrol.Refused, match="perplexity=True needs the judge teacher"):
        model.generate(length=5, n=1, perplexity=True)


def test_numbers_of_numpy_and_pytorch_are_numbers(model):
    plain = model.generate(length=5, n=2, seed=3)
    assert model.generate(length=np.int64(5), n=np.int64(2), seed=torch.tensor(3)) == plain


def test_what_may_be_left_out_of_a_table_is_refused_where_nothing_else_is_asked_for(store):
    model = diffcontrol.load(*TINY, "on_unsupported=skip", store=store, method="pplm")
    with pytest.raises(diffcontrol.Refused, match="pplm: its discriminator"):
        model.generate(syntax_tree="(S (NP *) (VP *))")


def test_a_mistyped_override_is_refused():
    with pytest.raises(diffcontrol.Refused, match=r"sampler\.step"):
        diffcontrol.load("sampler.step=3")


@pytest.fixture
def own_task(tmp_path):
    """A folder of options, with a space in its name, that has the task `size`, which is that of length."""
    folder = tmp_path / "my own" / "conf"
    (folder / "task").mkdir(parents=True)
    own = (CONF / "task" / "length.yaml").read_text(encoding="utf-8").replace("length:", "size:")
    (folder / "task" / "size.yaml").write_text(own, encoding="utf-8")
    return folder


def test_a_task_of_ones_own_writes(own_task, store):
    model = diffcontrol.load(*TINY, store=store, config_dir=own_task)
    assert {"size", "length"} <= set(model.tasks)
    assert len(model.targets("size", n=3)) == 3
    (result,) = model.generate(size=5)
    assert result.words and set(result.scores) == {"size"}


def test_a_search_path_among_the_overrides_serves_as_well(own_task):
    given = f"hydra.searchpath=['file://{own_task}']"
    assert "size" in diffcontrol.load(given).tasks
    with pytest.raises(diffcontrol.Refused, match="both name folders of options; put all of them into"):
        diffcontrol.load(given, config_dir=own_task)


def test_a_folder_of_options_that_there_is_not_is_refused():
    with pytest.raises(diffcontrol.Refused, match=re.escape("load(config_dir='nowhere'): there is no such folder")):
        diffcontrol.load(config_dir="nowhere")
    with pytest.raises(diffcontrol.Refused, match="task=size: there is no such task"):
        diffcontrol.load().generate(size=5)


def test_another_hydra_application_goes_on(tmp_path):
    (tmp_path / "other.yaml").write_text("number: 1\n")
    with initialize_config_dir(str(tmp_path), job_name="other", version_base="1.3"):
        running = GlobalHydra.instance().hydra
        diffcontrol.load(*TINY, store=tmp_path / "store")
        assert GlobalHydra.instance().hydra is running
        assert OmegaConf.to_container(compose("other", ["number=2"])) == {"number": 2}
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.slow
def test_the_page_runs_with_the_weights_that_ship(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = BLOCK.findall((CONF.parent / "docs" / "python.md").read_text(encoding="utf-8"))
    names: dict = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    said = capsys.readouterr().out
    assert names["model"].store.trained == []
    assert re.search(r"Italian|Tuscan|pasta|pizza", said) and len(names["results"]) == 5
    assert sum(result.scores["semantic_content"] for result in names["results"]) >= 4
