"""Templates that are filled in for every task, and strengths that need no number for each."""

import pytest
from omegaconf import OmegaConf

from diffcontrol import resolvers
from diffcontrol.refused import Refused

resolvers.register()


def made(**changes):
    cfg = OmegaConf.create({
        "data": {"_target_": "corpus"}, "treebank": {"_target_": "treebank"}, "optim": {"steps": 5, "lr": 1.0},
        "task": {"one": {"_target_": "tasks.One", "data": "${data}"},
                 "two": {"_target_": "tasks.Two", "data": "${treebank}"}},
        "probe": {"_target_": "Probe", "task": "???", "data": "${data}", "optim": "${optim}"},
        "strength": {"push": {"one": 7}},
        "made": "${per_task:probe}", "strengths": "${strengths:push,3}",
    })  # fmt: skip
    return OmegaConf.to_container(OmegaConf.merge(cfg, changes), resolve=True)


def test_a_template_is_filled_in_for_every_task_with_the_data_that_the_task_reads():
    found = made()["made"]
    assert list(found) == ["one", "two"]
    assert found["one"]["task"] == {"_target_": "tasks.One", "data": {"_target_": "corpus"}}
    assert found["one"]["data"] == {"_target_": "corpus"} and found["two"]["data"] == {"_target_": "treebank"}
    assert found["two"]["optim"] == {"steps": 5, "lr": 1.0}


def test_what_is_different_for_a_task_is_merged_into_its_own():
    found = made(task_overrides={"two": {"probe": {"optim": {"steps": 9}}}})["made"]
    assert found["two"]["optim"] == {"steps": 9, "lr": 1.0} and found["one"]["optim"]["steps"] == 5


def test_a_task_may_have_another_object_unless_one_was_chosen_for_every_task():
    own = {"task_overrides": {"two": {"probe": {"_target_": "Other", "for_every_task": True}}}}
    found = made(**own)["made"]["two"]
    assert found["_target_"] == "Other" and "optim" not in found and found["task"]["_target_"] == "tasks.Two"
    chosen = made(**own, probe={"for_every_task": True})["made"]
    assert chosen["two"]["_target_"] == "Probe"
    assert not any("for_every_task" in node for node in (found, *chosen.values()))


def test_models_may_read_other_data_than_their_task():
    assert made(models_read={"one": {"_target_": "half"}})["made"]["one"]["data"] == {"_target_": "half"}


def test_a_template_that_is_not_there_is_named():
    with pytest.raises(Refused, match="nosuch"):
        resolvers.per_task("nosuch", _root_=OmegaConf.create({"task": {}}))


def test_strengths_have_a_default_for_tasks_without_a_number():
    assert made()["strengths"] == {"default": 3, "one": 7}


def test_several_tasks_at_once_may_have_another_number_than_one():
    numbers = "${one_or_several:2,1}"
    assert made(number=numbers)["number"] == 1
    cfg = OmegaConf.create({"task": {"one": {}}, "number": numbers})
    assert OmegaConf.to_container(cfg, resolve=True)["number"] == 2
