"""What lies in a store, through `python -m diffcontrol.store`."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from diffcontrol.store import Store, hub, shelf
from diffcontrol.store.__main__ import main
from tests.toys import Child, Faults, Toy, child, toy

ROOT = Path(__file__).parents[1]
TRAINER = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{said}")
    for said in ("Checkpoint directory", "Total length of", "Found .* in eval mode", "The number of training batches")
]


@pytest.fixture
def filled(tmp_path) -> Store:
    """A store with a toy and its child, and a toy of another kind."""
    store = Store(tmp_path / "store", trainer=TRAINER)
    store.fit(child())
    store.fit(toy(steps=3))
    return store


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"a: [1"])
def test_an_entry_whose_recipe_cannot_be_read_is_shown_in_one_sentence(filled, capsys, content):
    address = filled.trained[0]
    file = filled.root / address / "config.yaml"
    file.unlink() if content is None else file.write_bytes(content)
    assert main(["--store", str(filled.root), "show", address]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "damaged, as its recipe cannot be read" in said.err


def test_a_place_that_cannot_be_made_is_said_in_one_sentence(filled, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--store", str(filled.root), "export", str(tmp_path / "file" / "below")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_was_stopped_is_listed_and_can_be_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Faults, "crash", 7)
    with pytest.raises(ConnectionError):
        Store(tmp_path, trainer=TRAINER).fit(toy())
    (draft,) = (tmp_path / ".drafts").glob("Toy-*[0-9a-f]")
    assert main(["--store", str(tmp_path), "list"]) == 0
    assert f"resumed by the command that began it: {draft.name} (0." in capsys.readouterr().out
    with FileLock(draft.with_name(f"{draft.name}.lock")):
        assert main(["--store", str(tmp_path), "remove", draft.name, "--yes"]) == 1
    assert "a process is making it" in capsys.readouterr().err and draft.is_dir()
    assert main(["--store", str(tmp_path), "remove", draft.name, "--yes"]) == 0
    assert not draft.exists() and main(["--store", str(tmp_path), "list"]) == 0
    assert "Not finished" not in capsys.readouterr().out


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(Toy, "losses", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(Child, "losses", lambda *_: pytest.fail("trained"))


def names(store: Path) -> set[str]:
    return {path.name for path in store.iterdir() if path.name[0] != "."}


def run(store: Store, *arguments: str) -> int:
    return main(["--store", str(store.root), *arguments])


def test_every_entry_is_listed_with_what_it_was_trained_on(filled, capsys):
    assert run(filled, "list") == 0
    header, *rows = (re.split(r"  +", line) for line in capsys.readouterr().out.splitlines())
    assert header == ["address", "task", "size", "age", "parents"]
    assert {row[0]: row[4] for row in rows} == {
        filled.address(toy()): "–", filled.address(child()): filled.address(toy()), filled.address(toy(steps=3)): "–",
    }  # fmt: skip
    assert all(row[3] == "0 h" and row[2].endswith("MB") for row in rows)


def test_a_task_is_listed_by_its_name(tmp_path, capsys):
    folder = tmp_path / "Predictor-0123456789ab"
    folder.mkdir()
    (folder / "config.yaml").write_text("task: {_target_: diffcontrol.tasks.length.Length}\n")
    assert main(["--store", str(tmp_path), "list"]) == 0
    assert "Length" in capsys.readouterr().out


def test_an_entry_is_shown_by_the_beginning_of_its_address(filled, capsys):
    assert run(filled, "show", "Child") == 0
    said = capsys.readouterr().out
    assert "_target_: tests.toys.Child" in said and f'"parent": "{filled.address(toy())}"' in said


@pytest.mark.parametrize(("name", "said"), [("Toy", "several entries"), ("Nosuch", "no entry")])
def test_what_is_not_one_entry_is_said(filled, capsys, name, said):
    assert run(filled, "show", name) == 1
    assert said in capsys.readouterr().err


def test_a_store_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["--store", str(tmp_path / "nowhere"), "list"]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "removed"), [("y", True), ("n", False), ("", False)])
def test_an_entry_is_removed_when_the_user_agrees(filled, capsys, monkeypatch, answer, removed):
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    address = filled.address(toy())
    assert run(filled, "remove", address) == (0 if removed else 1)
    assert (address not in names(filled.root)) == removed
    assert f"{filled.address(child())} was trained on it" in capsys.readouterr().out


def test_an_entry_is_removed_without_a_question(filled, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked"))
    assert run(filled, "remove", "Child", "--yes") == 0
    assert names(filled.root) == {filled.address(toy()), filled.address(toy(steps=3))}
    assert list((filled.root / ".drafts").iterdir()) == []


def test_a_damaged_entry_is_found(filled, capsys):
    assert run(filled, "verify") == 0
    assert capsys.readouterr().out.count("whole") == 3
    file = filled.root / filled.address(toy()) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"#")
    assert run(filled, "verify") == 1
    said = capsys.readouterr().out
    assert said.count("whole") == 2 and f"{filled.address(toy())}  damaged" in said
    assert run(filled, "verify", "Child") == 0


@pytest.mark.parametrize("content", ["", "[", "task: 3", "- a"])
def test_a_damaged_entry_is_listed_beside_the_others(filled, capsys, content):
    (filled.root / filled.address(toy()) / "config.yaml").write_text(content)
    assert run(filled, "list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # a header, and three entries


def test_an_entry_without_its_recipe_is_listed_and_found_damaged(filled, capsys):
    """A run takes the folder for the model, and refuses it."""
    (filled.root / filled.address(toy()) / "config.yaml").unlink()
    assert run(filled, "list") == 0 and capsys.readouterr().out.count("damaged") == 1
    assert run(filled, "verify") == 1 and "config.yaml is missing" in capsys.readouterr().out
    assert run(filled, "remove", filled.address(toy()), "--yes") == 0


def test_an_entry_is_removed_beside_a_damaged_one(filled):
    (filled.root / filled.address(child()) / "provenance.json").write_text('{"parents": {"parent": "../.."}}')
    assert run(filled, "remove", filled.address(toy(steps=3)), "--yes") == 0


def test_of_a_linked_entry_the_link_is_removed(filled, tmp_path):
    other = Store(tmp_path / "other", trainer=TRAINER)
    other.root.mkdir()
    address = filled.address(toy())
    (other.root / address).symlink_to(filled.root / address)
    assert run(other, "remove", address, "--yes") == 0
    assert not list(other.root.iterdir()) and address in names(filled.root)


def test_without_a_terminal_nothing_is_removed(filled, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(filled, "remove", "Child") == 1
    assert "--yes removes without asking" in capsys.readouterr().out and filled.address(child()) in names(filled.root)


def test_weights_that_are_no_numbers_are_found_without_a_checksum(filled, capsys):
    folder = filled.root / filled.address(toy())
    save_file({"words.weight": torch.full((2, 2), torch.nan)}, folder / "weights.safetensors")
    (folder / "provenance.json").write_text('{"commit": "earlier"}')
    assert run(filled, "verify") == 1
    assert "words.weight holds values that are infinite or not numbers" in capsys.readouterr().out


# --- from store to store


def test_what_is_exported_is_found_as_pretrained(filled, tmp_path, no_training):
    assert run(filled, "export", str(tmp_path / "given"), "Child") == 0
    assert names(tmp_path / "given") == {filled.address(toy()), filled.address(child())}  # its parent comes along
    other = Store(tmp_path / "other", pretrained=tmp_path / "given", trainer=TRAINER)
    loaded, trained = other.fit(child()), filled.fit(child())
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in trained.state_dict().items())


def test_weights_are_exported_in_half_precision(filled, tmp_path, no_training):
    file = filled.root / filled.address(toy(steps=3)) / "weights.safetensors"
    weights = load_file(file)
    weights["mix.bias"][0] = 1e6  # no number of float16
    save_file(weights, file)
    (file.parent / "provenance.json").write_text('{"commit": "earlier"}')
    assert run(filled, "export", str(tmp_path / "given"), "--half") == 0
    stored = load_file(tmp_path / "given" / file.parent.name / file.name)
    assert {name: weight.dtype for name, weight in stored.items()} == {
        "words.weight": torch.float16, "mix.weight": torch.float16, "mix.bias": torch.float32,
    }  # fmt: skip
    assert main(["--store", str(tmp_path / "given"), "verify"]) == 0
    loaded = Store(tmp_path / "other", pretrained=tmp_path / "given", trainer=TRAINER).fit(toy(steps=3))
    torch.testing.assert_close(loaded.mix.bias.data, weights["mix.bias"])
    torch.testing.assert_close(loaded.words.weight.data, weights["words.weight"], atol=1e-3, rtol=1e-3)


def test_what_is_imported_is_used_and_nothing_is_copied_twice(filled, tmp_path, capsys, no_training):
    other = Store(tmp_path / "other", trainer=TRAINER)
    assert run(other, "import", str(filled.root)) == 0
    assert names(other.root) == names(filled.root) and other.fit(child()) is not None
    capsys.readouterr()
    assert run(other, "import", str(filled.root)) == 0
    assert capsys.readouterr().out.count("is there already") == 3


def test_a_folder_within_an_entry_stays_where_it_is(filled, tmp_path):
    (filled.root / filled.address(toy()) / ".ipynb_checkpoints").mkdir()
    assert run(filled, "export", str(tmp_path / "given")) == 0 and names(tmp_path / "given") == names(filled.root)


def test_a_damaged_entry_is_not_there_already(filled, tmp_path, capsys):
    assert run(filled, "export", str(tmp_path / "given")) == 0
    file = tmp_path / "given" / filled.address(toy()) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"#")
    assert run(filled, "export", str(tmp_path / "given"), filled.address(toy())) == 1
    assert f"remove the folder {file.parent} to make it again" in capsys.readouterr().err


def test_a_file_is_no_store(filled, tmp_path, capsys):
    (tmp_path / "given").write_text("")
    assert run(filled, "export", str(tmp_path / "given")) == 1
    assert "given is a file; a store is a folder" in capsys.readouterr().err


def test_two_copies_at_once_leave_whole_entries(filled, tmp_path, monkeypatch):
    slow, given = shutil.copyfile, tmp_path / "given"
    monkeypatch.setattr(shutil, "copyfile", lambda *files: (time.sleep(0.05), slow(*files)))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: dict(shelf.carry(filled.root, given)), range(2)))
    assert main(["--store", str(given), "verify"]) == 0 and names(given) == names(filled.root)
    assert [sum(copied[address] for copied in both) for address in names(given)] == [1, 1, 1]


def test_a_damaged_entry_is_not_imported(filled, tmp_path, capsys):
    file = filled.root / filled.address(toy()) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"#")
    assert main(["--store", str(tmp_path / "other"), "import", str(filled.root), filled.address(toy())]) == 1
    assert "its checksum differs" in capsys.readouterr().err
    assert not list((tmp_path / "other").glob("Toy-*"))


def test_a_parent_that_is_a_path_is_refused(filled, tmp_path, capsys):
    file = filled.root / filled.address(child()) / "provenance.json"
    file.write_text(json.dumps({"parents": {"parent": "../../elsewhere"}}))
    assert main(["--store", str(tmp_path / "other"), "import", str(filled.root), "Child"]) == 1
    assert "is no address of an entry" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_repository_of_the_hub_is_a_store(filled, tmp_path, monkeypatch, no_training):
    """Against a stand-in for the hub: a folder for each repository."""
    import huggingface_hub

    class Api:
        def create_repo(self, name, private, exist_ok):
            assert private and exist_ok

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            (tmp_path / "hub" / repo_id).parent.mkdir(parents=True)
            Path(folder_path).rename(tmp_path / "hub" / repo_id)
            Path(folder_path).mkdir()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / "hub" / name))
    assert run(filled, "export", "hf://someone/models", "--half") == 0
    other = Store(tmp_path / "other", pretrained="hf://someone/models", trainer=TRAINER)
    assert other.fit(child()) is not None and other.trained == []
    assert main(["--store", str(tmp_path / "third"), "import", "hf://someone/models"]) == 0
    assert names(tmp_path / "third") == names(filled.root)


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(filled, capsys, monkeypatch, command):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", offline)
    assert run(filled, command, "hf://someone/models") == 1
    said = capsys.readouterr().err
    assert said.startswith("diffcontrol.store: hf://someone/models could not be") and said.count("\n") == 1


def test_a_name_on_the_hub_has_two_parts():
    with pytest.raises(ValueError, match="write hf://owner/name"):
        hub.download("hf://models")


@pytest.mark.slow
def test_it_is_a_command(filled):
    done = subprocess.run([sys.executable, "-m", "diffcontrol.store", "--store", str(filled.root), "list"],
                          capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0 and filled.address(child()) in done.stdout and not done.stderr
