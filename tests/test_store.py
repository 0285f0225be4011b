import copy
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file, save_file

from diffcontrol import fitting, hardware, speed, trainer_options
from diffcontrol.refused import Refused
from diffcontrol.store import Store, weights
from diffcontrol.store.provenance import sha256
from tests.fakes import GPT2, OPTIM, FakeCorpus, FakeTask
from tests.toys import Faults, Toy, child, toy

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
    (tmp_path / "a").mkdir()
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
    paths = [path for path in numbers(recipe) if path[-1] != "checkpoint"]
    assert len(paths) > 5
    changes = [changed(recipe, path, lambda number: number + 1) for path in paths]
    changes += [changed(recipe, path, lambda number: number * 1.0000001) for path in paths if path[-1] == "lr"]
    addresses = [store(tmp_path).address(each) for each in [recipe, *changes]]
    assert len(set(addresses)) == len(addresses)


def test_how_often_a_training_is_saved_is_no_part_of_an_address(tmp_path):
    own = store(tmp_path)
    assert own.address(toy(checkpoint=7)) == own.address(toy()) == own.address(toy(checkpoint=10**6))
    assert own.address(child() | {"parent": toy(checkpoint=7)}) == own.address(child())


def taught() -> dict:
    """Recipe of something that learns a task."""
    return toy() | {"task": {"_target_": "tests.fakes.FakeTask", "words": ["red", "cat"], "data": toy()["data"]}}


def test_an_edited_task_is_another_address(tmp_path, monkeypatch):
    before = store(tmp_path).address(taught())
    assert store(tmp_path).address(taught()) == before
    edits = {
        "annotate": lambda self, example: list(self.asked),
        "targets": lambda self, annotation: annotation[:1],
        "serialize": lambda self, target: ["word", target],
        "classes": lambda self: ["red", "cat"],
        "version": 2,  # what an edited head asks for
    }
    found = {before}
    for name, edited in edits.items():
        with monkeypatch.context() as patch:
            patch.setattr(FakeTask, name, edited)
            found.add(store(tmp_path).address(taught()))
    assert len(found) == 1 + len(edits)


def test_a_task_is_digested_once_a_run(tmp_path, monkeypatch):
    asked, old = [], FakeTask.annotate
    monkeypatch.setattr(FakeTask, "annotate", lambda self, example: asked.append(1) or old(self, example))
    own = store(tmp_path)
    for recipe in (taught(), taught() | {"shift": 0.7}):
        own.address(recipe)
    assert len(asked) == 32  # the training texts, fewer than would be sampled


def test_the_digest_of_a_task_reads_no_texts_that_have_to_be_made_first(tmp_path):
    bank = {"_target_": "diffcontrol.syntax.treebank.Treebank", "data": toy()["data"], "version": 1,
            "parser": {"_target_": "tests.syntax.test_treebank.Flat"}}  # fmt: skip
    half = {"_target_": "diffcontrol.data.part.Part", "data": bank, "part": 0}
    own = store(tmp_path)
    addresses = {
        own.address(changed(taught(), ("task", "data"), lambda _, data=data: data))
        for data in (toy()["data"], bank, bank | {"version": 2}, half)
    }
    assert len(addresses) == 4 and models(tmp_path) == set()


def test_a_digest_is_the_same_in_every_process(tmp_path):
    code = "from tests.fakes import FakeCorpus, FakeTask; print(FakeTask(data=FakeCorpus()).digest)"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.stdout.strip() == FakeTask(data=FakeCorpus()).digest


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
    assert list((tmp_path / ".drafts").iterdir()) == []
    said = json.loads((folder / "provenance.json").read_text())
    assert said["seconds"] >= 0 and said["commit"] and said["versions"]["torch"].startswith(torch.__version__[:3])
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever may read the recipe may read weights


def test_a_logger_is_asked_for_by_the_models_name(tmp_path):
    asked = []
    own = Store(tmp_path, trainer=TRAINER, logger=lambda name: asked.append(name))
    own.fit(child())
    assert asked == own.trained == [own.address(toy()), own.address(child())]


class Ended(CSVLogger):
    """Notes how it was ended."""

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.__dict__.setdefault("ends", []).append(status)


def test_a_training_that_is_refused_ends_its_loggers(tmp_path):
    """A sweep goes on in the same process: its next run is not to log into this one's."""
    own, Faults.nan = Ended(str(tmp_path / "logs")), 0
    with pytest.raises(Refused, match="the loss is nan"):
        Store(tmp_path, trainer=TRAINER, logger=lambda name: [own]).fit(toy())
    assert own.ends[-1] == "success"  # by us: what Lightning says of a failure leaves a run of W&B open


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


def test_seconds_of_trainings_count_each_model_once_and_those_it_was_trained_on(tmp_path):
    own = store(tmp_path)
    own.fit(child())
    for recipe, spent in ((toy(), 2.0), (child(), 3.0)):
        file = tmp_path / own.address(recipe) / "provenance.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": spent}))
    assert own.seconds({"guide": child()}) == 5.0  # with the one that it was trained on
    assert own.seconds({"lm": toy(), "guides": {"a": child(), "b": child()}}) == 5.0
    assert own.seconds({"lm": toy()}) == 2.0 and own.seconds({"strength": 3}) == 0
    assert own.seconds({"lm": toy(lr=0.06)}) == 0  # not there


def test_a_child_is_the_same_whether_its_parent_was_trained_just_before_it_or_long_ago(tmp_path):
    at_once = Store(tmp_path / "one", trainer=TRAINER).fit(child())
    Store(tmp_path / "other", trainer=TRAINER).fit(toy())
    later = Store(tmp_path / "other", trainer=TRAINER).fit(child())
    for name, weight in at_once.state_dict().items():
        assert torch.equal(weight, later.state_dict()[name]), name


def test_whether_a_training_is_compiled_stays_over_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "has_compiler", lambda device: True)
    monkeypatch.setattr(hardware, "has_bf16", lambda device: False)  # where it is, it would be measured
    draft, module, cpu = tmp_path / "draft", Store(tmp_path).build(toy()), torch.device("cpu")
    draft.mkdir()
    for steps in (speed.LONG + 1, 10):  # what is left is short
        assert fitting._conditions(module, draft, "toy", {}, steps, cpu)["compile"] is True
    assert fitting._conditions(module, draft, "toy", {"compile": False}, 10, cpu)["compile"] is False


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


def test_data_are_read_without_lightning():
    code = (
        "import sys; from diffcontrol.data.restaurants import Restaurants\n"
        "print(Restaurants(size=3, dev=1, test=1).digest, [name for name in sys.modules if 'lightning' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


# --- weights on disk


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    trained, loaded = store(tmp_path).fit(CAUSAL), store(tmp_path).fit(CAUSAL)
    (file,) = tmp_path.glob("*/weights.safetensors")
    assert len({"network.lm_head.weight", "network.transformer.wte.weight"} & set(load_file(file))) == 1
    assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight
    texts = [["a", "red", "cat"], ["a", "dog"]]
    assert loaded.nll(texts) == trained.nll(texts)


def resign(file: Path) -> None:
    """Makes what a file holds now the right content of its entry."""
    said = json.loads((file.parent / "provenance.json").read_text())
    said["sha256"][file.name] = sha256(file)
    (file.parent / "provenance.json").write_text(json.dumps(said))


def forget(file: Path) -> None:
    """Makes an entry like those of earlier versions, which had no checksums."""
    said = json.loads((file.parent / "provenance.json").read_text())
    del said["sha256"]
    (file.parent / "provenance.json").write_text(json.dumps(said))


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other_names(file: Path) -> None:
    save_file({"a.weight": torch.zeros(2)}, file)


def other_shapes(file: Path) -> None:
    save_file({name: torch.zeros(2, 2) for name in load_file(file)}, file)


def no_safetensors(file: Path) -> None:
    file.write_text("hello")


def flip(file: Path, part: float = 0.9) -> None:
    """Changes one bit, so far into the file."""
    content = bytearray(file.read_bytes())
    content[int(part * len(content))] ^= 1
    file.write_bytes(content)


def no_numbers(file: Path) -> None:
    save_file({name: weight * torch.nan for name, weight in load_file(file).items()}, file)


def integers(file: Path) -> None:
    save_file({name: torch.zeros_like(weight, dtype=torch.int32) for name, weight in load_file(file).items()}, file)


@pytest.mark.parametrize("known", [True, False], ids=["with its checksum", "without"])
@pytest.mark.parametrize(
    "spoil", [shorten, other_names, other_shapes, no_safetensors, no_numbers, integers, flip, Path.unlink]
)
def test_a_folder_without_the_models_weights_is_named(tmp_path, spoil, known):
    own = store(tmp_path)
    own.fit(toy())
    folder = tmp_path / own.trained[0]
    if not known:
        forget(folder / "weights.safetensors")
        if spoil is flip:
            return  # which is what checksums are for
    spoil(folder / "weights.safetensors")
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))}.*remove .*folder") as error:
        store(tmp_path).fit(toy())
    assert "\n" not in str(error.value)
    shutil.rmtree(folder)  # which is what the message says to do
    assert store(tmp_path).fit(toy()).history


def test_an_entry_without_checksums_is_loaded_with_a_note(tmp_path, caplog):
    own = store(tmp_path)
    trained = own.fit(toy())
    forget(tmp_path / own.trained[0] / "weights.safetensors")
    with caplog.at_level("INFO", "diffcontrol"):
        assert same(store(tmp_path).fit(toy()), trained, rtol=0, atol=0)
    assert f"{own.trained[0]} has no checksums" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_loaded_as_float32(tmp_path, dtype):
    own = store(tmp_path)
    trained = own.fit(toy())
    (file,) = tmp_path.glob("Toy-*/weights.safetensors")
    save_file({name: weight.to(dtype) for name, weight in load_file(file).items()}, file)
    resign(file)
    loaded = store(tmp_path).fit(toy())
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    assert same(loaded, trained, rtol=0, atol=0.01)


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_what_is_no_folder_is_refused_before_training(tmp_path, monkeypatch, what):
    monkeypatch.setattr(Toy, "losses", lambda *_: pytest.fail("trained"))
    own = store(tmp_path)
    place = tmp_path / own.address(toy())
    place.touch() if what == "file" else place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"{re.escape(str(place))} is a file or a link to nothing.*remove it"):
        own.fit(toy())


def test_pretrained_models_are_found_first_and_never_written_to(tmp_path):
    given, own = tmp_path / "given", tmp_path / "own"
    store(given).fit(toy())
    (file,) = given.glob("Toy-*/weights.safetensors")
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)  # to tell the two apart
    resign(file)
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


def test_a_pretrained_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"paths.pretrained=.*nowhere.*no such folder"):
        store(tmp_path / "own", pretrained=tmp_path / "nowhere")


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
    assert list((tmp_path / "killed" / ".drafts").iterdir()) == []


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_killed_after_its_last_step_is_finished(tmp_path, monkeypatch, ema):
    unbroken = store(tmp_path / "unbroken").fit(toy(ema=ema))

    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(Refused, match="no space"):
        patch.setattr(weights, "write", full)
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_training_with_its_exit_code_and_it_can_be_resumed(tmp_path, monkeypatch, caplog, number, code):
    unbroken = store(tmp_path / "unbroken").fit(toy())
    old = Toy.losses

    def losses(self, batch):
        if self.global_step == 12:
            os.kill(os.getpid(), number)
        return old(self, batch)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(Toy, "losses", losses)
        store(tmp_path / "stopped").fit(toy())
    assert end.value.code == code and signal.getsignal(number) is before
    assert "stopped at step 12 of 20; the same command resumes" in caplog.text
    resumed = store(tmp_path / "stopped").fit(toy())
    assert resumed.seen[0][0] == 10 and same(resumed, unbroken)


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (Planted.folder,))


def flip_a_weight(file: Path) -> None:
    with zipfile.ZipFile(file) as records:
        largest = max(records.infolist(), key=lambda record: record.file_size)
    flip(file, (largest.header_offset + 200 + largest.file_size // 2) / file.stat().st_size)


def plant(file: Path) -> None:
    Planted.folder = str(file.parent / "executed")
    torch.save(torch.load(file, weights_only=True) | {"more": Planted()}, file)


@pytest.mark.parametrize("spoil", [shorten, flip_a_weight, plant, no_safetensors])
def test_a_damaged_checkpoint_is_named_and_set_aside(tmp_path, caplog, spoil):
    unbroken = store(tmp_path / "unbroken").fit(toy())
    Faults.crash = 13
    with pytest.raises(ConnectionError):
        store(tmp_path / "killed").fit(toy())
    Faults.crash = None
    (file,) = tmp_path.glob("killed/.drafts/*/last.ckpt")
    spoil(file)
    Faults.crash = 3
    with pytest.raises(ConnectionError):
        store(tmp_path / "killed").fit(toy())
    assert f"{file}.damaged" in caplog.text and Path(f"{file}.damaged").exists() and not file.exists()
    assert not (file.parent / "executed").exists()
    Faults.crash = None
    again = store(tmp_path / "killed").fit(toy())
    assert len(again.seen) == 20 and same(again, unbroken, rtol=0, atol=0)
    (folder,) = tmp_path.glob("killed/Toy-*")
    assert len(list(folder.iterdir())) == 3


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    unbroken = store(tmp_path / "unbroken").fit(toy())
    old = torch.save

    def full(content, file):
        if content.get("global_step", 0) < 15:
            return old(content, file)
        file.write(b"PK")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(torch, "save", full)
        store(tmp_path / "full").fit(toy())
    assert {path.name for path in tmp_path.glob("full/.drafts/*/*.ckpt*")} == {"last.ckpt"}
    resumed = store(tmp_path / "full").fit(toy())
    assert resumed.seen[0][0] == 10 and same(resumed, unbroken)


@pytest.mark.parametrize("content", ["", "hello", None])
def test_a_file_of_seconds_that_was_cut_short_does_not_matter(tmp_path, content):
    Faults.crash = 13
    with pytest.raises(ConnectionError):
        store(tmp_path).fit(toy())
    Faults.crash = None
    (file,) = tmp_path.glob(".drafts/*/seconds")
    file.unlink() if content is None else file.write_text(content)
    own = store(tmp_path)
    own.fit(toy())
    assert json.loads((tmp_path / own.trained[0] / "provenance.json").read_text())["seconds"] >= 0


def test_a_process_that_waits_says_for_what(tmp_path, caplog):
    own = store(tmp_path)
    lock = tmp_path / ".drafts" / f"{own.address(toy())}.lock"
    lock.parent.mkdir()
    with caplog.at_level("INFO", "diffcontrol"), lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: fcntl.flock(other, fcntl.LOCK_UN)).start()
        own.fit(toy())
    assert f"{own.address(toy())}: waiting for another process" in caplog.text


# --- conditions of a training


def conditions(root: Path, name: str) -> dict:
    return json.loads((root / name / "provenance.json").read_text())


def test_the_conditions_of_a_training_are_recorded(tmp_path):
    own = store(tmp_path)
    own.fit(toy())
    said = conditions(tmp_path, own.trained[0])
    assert said["precision"] == "32-true" and said["device"] == "cpu" and said["compile"] is False
    assert said["threads"] == torch.get_num_threads()


def test_a_training_that_goes_on_in_another_precision_says_so(tmp_path, caplog):
    Faults.crash = 13
    with pytest.raises(ConnectionError):
        store(tmp_path).fit(toy())
    Faults.crash = None
    own = Store(tmp_path, trainer=TRAINER | {"precision": "bf16-mixed"})
    own.fit(toy())
    assert "its training began with precision 32-true, now bf16-mixed" in caplog.text
    said = conditions(tmp_path, own.trained[0])
    assert said["precision"] == "bf16-mixed" and said["began_with"]["precision"] == "32-true"


def automatic(root: Path, **options) -> Store:
    return Store(root, trainer={key: value for key, value in TRAINER.items() if key != "precision"} | options)


def test_a_resumed_training_keeps_the_precision_that_was_chosen_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SHORT", 5)
    monkeypatch.setattr(hardware, "has_bf16", lambda device: True)
    monkeypatch.setattr(speed, "seconds_a_step", lambda module, device: (1.0, 0.5))
    Faults.crash = 13
    with pytest.raises(ConnectionError):
        automatic(tmp_path).fit(toy())
    Faults.crash = None
    monkeypatch.setattr(speed, "seconds_a_step", lambda module, device: (1.0, 2.0))
    own = automatic(tmp_path)
    own.fit(toy())
    assert conditions(tmp_path, own.trained[0])["precision"] == "bf16-mixed"


@pytest.mark.parametrize(("steps", "bf16", "times", "expected", "said"), [
    (499, True, (1.0, 0.1), "32-true", "fewer than 500 steps"),
    (500, False, (1.0, 0.1), "32-true", "does not compute in bf16"),
    (500, True, (1.0, 0.95), "32-true", "1000 ms in fp32 and 950 ms in bf16"),
    (500, True, (1.0, 0.8), "bf16-mixed", "1000 ms in fp32 and 800 ms in bf16"),
])  # fmt: skip
def test_the_quicker_precision_is_chosen(monkeypatch, steps, bf16, times, expected, said):
    monkeypatch.setattr(hardware, "has_bf16", lambda device: bf16)
    monkeypatch.setattr(speed, "seconds_a_step", lambda module, device: times)
    module = Toy(FakeCorpus(), toy()["optim"])
    precision, why = speed.precision_for(module, steps, {"precision": "auto"}, torch.device("cpu"))
    assert precision == expected and said in why


def test_a_measurement_leaves_no_trace(tmp_path, monkeypatch):
    plain = automatic(tmp_path / "plain").fit(child())
    monkeypatch.setattr(speed, "SHORT", 5)
    monkeypatch.setattr(hardware, "has_bf16", lambda device: True)
    monkeypatch.setattr(speed, "BUDGET", 0.1)
    measured, old = [], speed.seconds_a_step
    monkeypatch.setattr(speed, "seconds_a_step", lambda *given: measured.append(old(*given)) or (1.0, 2.0))
    again = automatic(tmp_path / "again").fit(child())
    assert len(measured) == 2 and min(min(pair) for pair in measured) > 0
    assert same(plain, again, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}])
def test_what_fails_after_the_last_step_costs_no_training(tmp_path, monkeypatch, options):
    unbroken = store(tmp_path / "unbroken").fit(toy(**options))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk is full"):
        patch.setattr("diffcontrol.store.provenance", lambda *_: raises(OSError("the disk is full")))
        store(tmp_path / "stopped").fit(toy(**options))
    with monkeypatch.context() as patch:
        patch.setattr(Toy, "losses", lambda *_: pytest.fail("trained"))
        own = store(tmp_path / "stopped")
        assert same(own.fit(toy(**options)), unbroken, rtol=0, atol=0)
    (folder,) = (tmp_path / "stopped").glob("Toy-*")
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "provenance.json", "weights.safetensors"}
    assert set(json.loads((folder / "provenance.json").read_text())["sha256"]) == {"weights.safetensors"}


def raises(error):
    raise error


def test_a_compiler_that_fails_is_as_good_as_none(monkeypatch, caplog):
    monkeypatch.setattr(speed.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "compile", lambda function: raises(RuntimeError("Python.h is missing\nand more")))
    speed.has_compiler.cache_clear()
    try:
        assert speed.compiling("auto", speed.LONG + 1, torch.device("cpu"))[0] is False
        assert "nothing is compiled, as torch.compile fails here: Python.h is missing" in caplog.text
        with pytest.raises(Refused, match=r"trainer.compile=true needs a C\+\+ compiler that works"):
            speed.compiling(True, 10, torch.device("cpu"))
    finally:
        speed.has_compiler.cache_clear()


def test_lightning_computes_where_we_say(monkeypatch):
    """By itself its `auto` would take a Mac's GPU, for which nothing here is made."""
    assert trainer_options.accelerator_of({}) == trainer_options.accelerator_of({"accelerator": "auto"}) == (
        "gpu" if torch.cuda.is_available() else "cpu")  # fmt: skip
    assert trainer_options.accelerator_of({"accelerator": "cpu"}) == "cpu"


@pytest.mark.parametrize(("wanted", "steps", "compiler", "expected"), [
    ("auto", 20_000, True, False), ("auto", 20_001, True, True), ("auto", 10**6, False, False),
    (True, 1, True, True), (False, 10**6, True, False),
])  # fmt: skip
def test_only_a_long_training_is_compiled(monkeypatch, wanted, steps, compiler, expected):
    monkeypatch.setattr(speed, "has_compiler", lambda device: compiler)
    assert speed.compiling(wanted, steps, torch.device("cpu"))[0] is expected


def test_what_cannot_be_compiled_is_said(monkeypatch):
    with pytest.raises(ValueError, match=r"trainer.compile=maybe: write auto, true or false"):
        speed.compiling("maybe", 10, torch.device("cpu"))
    monkeypatch.setattr(speed, "has_compiler", lambda device: False)
    with pytest.raises(ValueError, match=r"trainer.compile=true needs a C\+\+ compiler that works, and there is none"):
        speed.compiling(True, 10, torch.device("cpu"))


def test_a_compiled_training_compiles_networks_once_and_gives_them_back(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: calls.append(self))
    recipe = CAUSAL | {"optim": OPTIM | {"steps": 3}}
    own = Store(tmp_path, trainer=TRAINER | {"compile": True})
    model = own.fit(recipe)
    assert calls == [model.network] and model.network._compiled_call_impl is None
    assert conditions(tmp_path, own.trained[0])["compile"] is True


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
