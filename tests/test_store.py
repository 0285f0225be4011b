import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffcontrol import store as store_module
from diffcontrol.refused import Refused
from diffcontrol.store import Store
from tests.fakes import GPT2, OPTIM, FakeCorpus
from tests.toys import Faults, child, toy

ROOT = Path(__file__).parents[1]
# Lightning's, of what is meant to be so
QUIET = ("Checkpoint directory", "Total length of", "Found .* in eval mode", "The number of training batches")
pytestmark = [pytest.mark.filterwarnings(f"ignore:.*{said}") for said in QUIET]
TRAINER = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}
CAUSAL = {
    "_target_": "diffcontrol.autoregressive.causal_lm.CausalLM", "data": toy()["data"],
    "model": GPT2, "optim": OPTIM | {"steps": 3}
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_faults(monkeypatch):
    for name in ("crash", "nan", "sleep"):
        monkeypatch.setattr(Faults, name, getattr(Faults, name))


def store(root: Path, **kwargs) -> Store:
    return Store(root, trainer=TRAINER, **kwargs)


def models(root: Path) -> set[str]:
    """Names of the finished models of a store."""
    return {path.name for path in root.iterdir() if not path.name.startswith(".")} if root.exists() else set()


def same(one: torch.nn.Module, other: torch.nn.Module, **tolerance) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.allclose(x, y, **tolerance) for (a, x), (b, y) in pairs)


def numbers(node, path=()):
    """Paths of all numbers of a recipe."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(value, dict | list):
            yield from numbers(value, (*path, key))
        elif isinstance(value, int | float):
            yield *path, key


def changed(recipe, path, change):
    recipe = copy.deepcopy(recipe)
    node = recipe
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = change(node[path[-1]])
    return recipe


# --- addresses


def table(folder: Path, word: str = "pub", urls=None) -> dict:
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"{split}.csv").write_text(f"text\na nice {word}\nno nice pub\n")
    files = {split: f"{split}.csv" for split in ("train", "dev", "test")}
    return {"_target_": "diffcontrol.data.table.Table", "folder": str(folder), "files": files, "urls": urls,
            "columns": {"text": "text"}, "more_than": 0}  # fmt: skip


def test_where_things_lie_and_run_is_no_part_of_an_address(tmp_path):
    here = toy() | {"data": table(tmp_path / "here")}
    there = toy() | {"data": table(tmp_path / "there", urls={"train": "https://example.org/train.csv"})}
    expected = Store(tmp_path / "a").address(here)
    assert Store(tmp_path / "a").address(there) == expected
    assert Store(tmp_path / "b", pretrained=tmp_path / "a").address(here) == expected
    assert Store(tmp_path / "a", trainer={"devices": 4, "accelerator": "gpu"}).address(here) == expected
    assert Store(tmp_path / "a", logger=lambda name: None).address(here) == expected
    assert Store(tmp_path / "a").address(dict(reversed(here.items()))) == expected


def test_one_changed_word_of_the_data_is_another_address(tmp_path):
    one, other = (toy() | {"data": table(tmp_path / word, word)} for word in ("pub", "bar"))
    assert store(tmp_path).address(one) != store(tmp_path).address(other)


@pytest.mark.parametrize("recipe", [toy(), child(), CAUSAL], ids=["toy", "child", "causal"])
def test_any_changed_number_is_another_address(tmp_path, recipe):
    paths = list(numbers(recipe))
    assert len(paths) > 5
    changes = [changed(recipe, path, lambda number: number + 1) for path in paths]
    changes += [changed(recipe, path, lambda number: number * 1.0000001) for path in paths if path[-1] == "lr"]
    addresses = [store(tmp_path).address(each) for each in [recipe, *changes]]
    assert len(set(addresses)) == len(addresses)


def test_a_parent_changes_its_child_and_not_the_other_way_round(tmp_path):
    own = store(tmp_path)
    renewed = changed(child(), ("parent", "optim", "lr"), lambda lr: 2 * lr)
    assert own.address(renewed) != own.address(child())
    assert own.addresses({"method": {"parts": {"one": child()}, "strength": 3}}) == {
        "method.parts.one": own.address(child())
    }
    assert own.address(changed(child(), ("optim", "lr"), lambda lr: 2 * lr)["parent"]) == own.address(toy())


# --- training once


def test_a_second_fit_trains_nothing_and_gives_the_same_weights(tmp_path):
    first, second = store(tmp_path), store(tmp_path)
    trained, loaded = first.fit(toy(ema=0.9)), second.fit(toy(ema=0.9))
    assert first.trained == [first.address(toy(ema=0.9))] == [*models(tmp_path)]
    assert second.trained == [] and loaded.history == []
    assert same(trained, loaded, rtol=0, atol=0)
    assert first.fit(toy(ema=0.9)) is trained  # nor is it read twice
    for model in (trained, loaded):
        assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_training_starts_from_the_recipes_seed_whatever_ran_before(tmp_path):
    one = store(tmp_path / "a").fit(toy())
    torch.manual_seed(99)
    other = store(tmp_path / "b")
    other.fit(toy(steps=3))
    assert same(one, other.fit(toy()), rtol=0, atol=0)
    assert not same(one, other.fit(toy() | {"model_seed": 1}))


def test_nothing_of_a_training_is_left_but_the_model(tmp_path):
    own = store(tmp_path)
    own.fit(toy())
    (folder,) = tmp_path.glob("Toy-*")
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "weights.safetensors", "provenance.json"}
    assert [path for path in (tmp_path / ".drafts").iterdir() if path.suffix != ".lock"] == []
    said = json.loads((folder / "provenance.json").read_text())
    assert said["seconds"] >= 0 and said["commit"] and said["versions"]["torch"].startswith(torch.__version__[:3])


def test_a_logger_is_asked_for_by_the_models_name(tmp_path):
    asked = []
    own = Store(tmp_path, trainer=TRAINER, logger=lambda name: asked.append(name))
    own.fit(child())
    assert asked == own.trained == [own.address(toy()), own.address(child())]


def test_a_progress_bar_is_a_choice(tmp_path, capfd):
    Store(tmp_path / "a", trainer=TRAINER | {"enable_progress_bar": True}).fit(toy())
    assert "training Toy-" in capfd.readouterr().out
    Store(tmp_path / "b", trainer=TRAINER).fit(toy())
    assert "training Toy-" not in capfd.readouterr().out


def test_a_parent_is_trained_once_shared_and_stored_apart(tmp_path):
    own = store(tmp_path)
    model = own.fit(child())
    assert own.trained == [own.address(toy()), own.address(child())]
    assert model.parent is own.fit(toy())
    weights = load_file(tmp_path / own.address(child()) / "weights.safetensors")
    assert set(weights) == {"words.weight", "mix.weight", "mix.bias"}
    said = json.loads((tmp_path / own.address(child()) / "provenance.json").read_text())
    assert said["parents"] == {"parent": own.address(toy())}
    again = store(tmp_path)
    assert same(again.fit(child()), model, rtol=0, atol=0) and again.trained == []


def test_a_parent_is_frozen_while_its_child_trains(tmp_path):
    own = store(tmp_path)
    parent = own.fit(toy())
    before = copy.deepcopy(parent.state_dict())
    model = own.fit(child(steps=6))
    assert model.modes == [(True, False)] * 6  # the child drops out, its parent does not
    assert all(torch.equal(weight, before[name]) for name, weight in parent.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in parent.parameters())


def test_data_is_read_once_for_all(tmp_path, monkeypatch):
    read, old = [], FakeCorpus.read
    monkeypatch.setattr(FakeCorpus, "read", lambda self, split: read.append(split) or old(self, split))
    own = store(tmp_path)
    own.fit(child())
    assert own.build(toy()["data"]) is own.fit(toy()).corpus
    assert read == ["train", "dev", "test"]


# --- weights on disk


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    trained, loaded = store(tmp_path).fit(CAUSAL), store(tmp_path).fit(CAUSAL)
    (file,) = tmp_path.glob("*/weights.safetensors")
    assert len({"network.lm_head.weight", "network.transformer.wte.weight"} & set(load_file(file))) == 1
    assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight
    texts = [["a", "red", "cat"], ["a", "dog"]]
    assert loaded.nll(texts) == trained.nll(texts)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other_names(file: Path) -> None:
    save_file({"a.weight": torch.zeros(2)}, file)


def other_shapes(file: Path) -> None:
    save_file({name: torch.zeros(2, 2) for name in load_file(file)}, file)


def no_safetensors(file: Path) -> None:
    file.write_text("hello")


@pytest.mark.parametrize("spoil", [shorten, other_names, other_shapes, no_safetensors, Path.unlink])
def test_a_folder_without_the_models_weights_is_named(tmp_path, spoil):
    own = store(tmp_path)
    own.fit(toy())
    folder = tmp_path / own.trained[0]
    spoil(folder / "weights.safetensors")
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        store(tmp_path).fit(toy())
    shutil.rmtree(folder)  # which is what the message says to do
    assert store(tmp_path).fit(toy()).history


def test_pretrained_models_are_found_first_and_never_written_to(tmp_path):
    given, own = tmp_path / "given", tmp_path / "own"
    store(given).fit(toy())
    (file,) = given.glob("Toy-*/weights.safetensors")
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)  # to tell the two apart
    store(own).fit(toy())

    def state():
        return {path: path.stat().st_mtime_ns for path in [given, *given.rglob("*")]}

    before = state()
    both = store(own, pretrained=given)
    torch.testing.assert_close(both.fit(toy()).state_dict(), load_file(file))
    assert both.trained == []
    both.fit(child())
    assert both.trained == [both.address(child())] and models(own) == {both.address(toy()), both.address(child())}
    assert state() == before


def test_a_pretrained_folder_that_is_not_there_is_no_hindrance(tmp_path):
    assert store(tmp_path / "own", pretrained=tmp_path / "nowhere").fit(toy()).history


# --- faults


@pytest.mark.parametrize(("at", "ema"), [(3, 0.9), (13, 0.9), (15, 0.9), (13, 0.0)])
def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path, ema, at):
    unbroken = store(tmp_path / "unbroken").fit(toy(ema=ema))
    Faults.crash = at
    with pytest.raises(ConnectionError):
        store(tmp_path / "killed").fit(toy(ema=ema))
    assert models(tmp_path / "killed") == set()  # a draft is not a model
    Faults.crash = None
    torch.manual_seed(99)
    resumed = store(tmp_path / "killed").fit(toy(ema=ema))
    start = at // 5 * 5
    assert [step for step, _ in resumed.seen] == list(range(start, 20))
    assert resumed.seen == unbroken.seen[start:]  # the same texts
    assert same(resumed, unbroken)
    assert [path.suffix for path in (tmp_path / "killed" / ".drafts").iterdir()] == [".lock"]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_killed_after_its_last_step_is_finished(tmp_path, monkeypatch, ema):
    unbroken = store(tmp_path / "unbroken").fit(toy(ema=ema))

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(store_module, "save_file", full)
        store(tmp_path / "killed").fit(toy(ema=ema))
    resumed = store(tmp_path / "killed").fit(toy(ema=ema))
    assert resumed.seen == []
    assert same(resumed, unbroken)


def test_ctrl_c_leaves_no_model_and_can_be_gone_on_from(tmp_path, monkeypatch):
    unbroken = store(tmp_path / "unbroken").fit(toy())
    monkeypatch.setattr("tests.toys.ConnectionError", KeyboardInterrupt, raising=False)
    Faults.crash = 12
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        store(tmp_path / "stopped").fit(toy())
    signal.signal(signal.SIGINT, handler)  # Lightning makes a stopped process deaf to further ones
    assert models(tmp_path / "stopped") == set()
    Faults.crash = None
    resumed = store(tmp_path / "stopped").fit(toy())
    assert resumed.seen[0][0] == 10 and same(resumed, unbroken)


@pytest.mark.parametrize("first", [0, 20, 33])  # of 35 steps
def test_a_loss_that_is_no_number_ends_training_and_is_never_stored(tmp_path, first):
    Faults.nan = first
    with pytest.raises(Refused, match=r"Toy.* step \d+.*lr"):
        store(tmp_path).fit(toy(steps=35))
    assert models(tmp_path) == set()


@pytest.mark.slow
def test_two_processes_that_want_the_same_model_train_it_once(tmp_path):
    code = (
        "import sys, json; from tests.toys import Faults, toy; from diffcontrol.store import Store\n"
        "Faults.sleep = 0.1\n"
        "own = Store(sys.argv[1], trainer=json.loads(sys.argv[2])); print('ready', flush=True); sys.stdin.readline()\n"
        "model = own.fit(toy()); print(json.dumps([own.trained, len(model.history), model.words.weight.sum().item()]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), json.dumps(TRAINER)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in both]
    assert sorted(steps for _, steps, _ in answers) == [0, 20]
    assert [*answers[0][0], *answers[1][0]] == [*models(tmp_path)]
    assert answers[0][2] == answers[1][2]
