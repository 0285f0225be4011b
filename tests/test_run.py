"""Whole runs of `python run.py experiment=tiny`, as a user starts them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from diffcontrol.dashboard import LEVELS
from diffcontrol.methods.fudge import Fudge
from diffcontrol.methods.guided_diffusion import GuidedDiffusion
from run import main

ROOT = Path(__file__).parents[1]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
COST = ("seconds_per_sample", "token_evaluations_per_sample")
METHODS = ["gold", "unguided", "guided_diffusion", "fudge"]


def command(folder: Path, *overrides: str) -> list[str]:
    where = [f"paths.store={folder / 'store'}", f"paths.outputs={folder / 'outputs'}"]
    return [sys.executable, "run.py", "experiment=tiny", *where, "trainer.accelerator=cpu", *overrides]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    """A run that prints, as to a terminal, into the folder's `stdout`, and hears Ctrl-C.

    A process that a shell starts in the background ignores it, and so do all that it starts, the tests among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("w") as stdout:
        return subprocess.Popen(
            command(folder, *overrides), cwd=ROOT, env=ENVIRONMENT | {"FORCE_COLOR": "1"},
            stdout=stdout, stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *overrides), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


def newest(folder: Path) -> Path:
    """The run's own folder."""
    return max(folder.glob("outputs/*/runs/*/results.json"), key=lambda path: path.stat().st_mtime_ns).parent


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def samples(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def here(monkeypatch, own_logging):
    """Runs within this process, which spares the imports."""

    def run_here(folder: Path, *overrides: str) -> None:
        monkeypatch.setattr(sys, "argv", [*command(folder, *overrides)[1:], "--config-path", str(ROOT / "conf")])
        main()

    return run_here


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, Path, subprocess.CompletedProcess]:
    """Where models and outputs lie, the run's own folder, and what was printed."""
    folder = tmp_path_factory.mktemp("first")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder, newest(folder), done


def is_measure(value: dict, n: int) -> bool:
    low, high = value["ci95"]
    return set(value) == {"mean", "ci95", "n"} and low <= value["mean"] <= high and value["n"] == n


def test_results_say_what_was_asked_and_measured(first):
    found = results(first[1])
    assert found["tasks"] == ["semantic_content"] and found["data"] == "restaurants" and found["seed"] == 0
    assert found["targets"] == {"from": "heldout", "n": 4} and found["num_samples"] == 2
    assert isinstance(found["commit"], str) and found["commit"]
    assert sorted(found["methods"]) == sorted(METHODS)
    for name, row in found["methods"].items():
        assert {"success", "fluency", "diversity", *COST, "models"} <= set(row)
        assert set(row["success"]) == {"semantic_content"}
        assert {"strict", "released"} <= set(row["success"]["semantic_content"])
        for score in row["success"]["semantic_content"].values():
            assert is_measure(score, 4) and 0 <= score["ci95"][0] <= score["ci95"][1] <= 1
        assert is_measure(row["fluency"]["perplexity"], 4) and is_measure(row["fluency"]["nll"], 4)
        assert is_measure(row["fluency"]["grammatical"], 4)
        assert row["fluency"]["perplexity"]["mean"] > 1 and row["fluency"]["nll"]["mean"] > 0
        for key in ("distinct_1", "distinct_2", "self_bleu", "length"):
            assert is_measure(row["diversity"][key], 4)
        written = name != "gold"
        assert (row["seconds_per_sample"] > 0) == (row["token_evaluations_per_sample"] > 0) == written
        assert bool(row["models"]) == written
    assert [row["task"] for row in found["classifiers"]] == ["semantic_content"] * len(LEVELS)
    times = [row["t"] for row in found["classifiers"]]
    assert times == sorted(times) and 0 < times[0] < times[-1] < 1
    assert all(0 <= row["accuracy"] <= 1 and 0 < row["n"] <= 60 for row in found["classifiers"])
    gold = found["methods"]["gold"]
    assert gold["fluency"]["grammatical"]["mean"] == gold["success"]["semantic_content"]["strict"]["mean"] == 1
    assert gold["success"]["semantic_content"]["met_and_grammatical"]["mean"] == 1


def test_samples_are_one_line_each_and_their_scores_the_results(first):
    lines, found = samples(first[1]), results(first[1])
    expected = {(name, row, k) for name in METHODS for row in range(4) for k in range(1 if name == "gold" else 2)}
    assert len(lines) == len(expected) == 4 + 3 * 4 * 2
    assert {(line["method"], line["row"], line["sample"]) for line in lines} == expected
    for row in range(4):  # side by side on the same targets
        assert len({json.dumps(line["tasks"]) for line in lines if line["row"] == row}) == 1
    for name in METHODS:
        own = [line for line in lines if line["method"] == name]
        for key in ("strict", "released"):
            mean = sum(line["scores"]["semantic_content"][key] for line in own) / len(own)
            assert found["methods"][name]["success"]["semantic_content"][key]["mean"] == pytest.approx(mean)
        assert found["methods"][name]["fluency"]["nll"]["mean"] == pytest.approx(sum(s["nll"] for s in own) / len(own))
        assert found["methods"][name]["diversity"]["length"]["mean"] == pytest.approx(
            sum(len(line["words"]) for line in own) / len(own)
        )
    special = [line for line in lines if {"START", "PAD", "END", "UNK"} & set(line["words"])]
    assert not any(line["scores"]["semantic_content"]["strict"] for line in special)  # written, so that it can be seen


def test_the_models_named_are_those_in_the_store(first):
    folder, own, _ = first
    found = results(own)
    there = {path.name for path in (folder / "store").iterdir() if path.name != ".drafts"}
    named = {address for row in found["methods"].values() for address in row["models"].values()} | {found["teacher"]}
    assert named == there == set(found["trained"])
    used = [set(row["models"].values()) for row in found["methods"].values()]
    assert not any(found["teacher"] in models for models in used)


def test_a_table_a_picture_and_the_whole_configuration_are_left(first):
    _, own, done = first
    assert (own / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in (own / "table.md").read_text() for name in METHODS)
    assert all(name in done.stdout for name in METHODS) and str(own) in done.stdout
    assert "???" not in (own / "config.yaml").read_text() and "${" not in (own / "config.yaml").read_text()
    assert "Traceback" not in done.stderr
    assert not re.search(r"\.py:\d+", done.stderr), done.stderr  # nor a warning of the libraries


def test_a_second_run_trains_nothing_and_writes_the_same(first, here, capfd):
    folder, own, _ = first
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*.safetensors")}
    here(folder, f"paths.outputs={folder / 'again' / 'outputs'}")
    said = capfd.readouterr()
    again = newest(folder / "again")
    assert results(again)["trained"] == [] and not re.search(r"training \w+-[0-9a-f]{12}", said.out + said.err)
    assert samples(again) == samples(own)
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*.safetensors")} == before


def test_a_run_that_fails_is_repeated_in_its_folder_without_what_is_written(first, here, monkeypatch):
    folder, own, _ = first
    again = [f"hydra.run.dir={folder / 'named'}"]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(Fudge, "write", Mock(side_effect=ConnectionError("the power went off")))
        here(folder, *again)
    assert not (folder / "named" / "results.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(GuidedDiffusion, "write", Mock(side_effect=AssertionError("is written already")))
        here(folder, *again)
    assert samples(folder / "named") == samples(own)
    for name, row in results(folder / "named")["methods"].items():
        tokens = results(own)["methods"][name]["token_evaluations_per_sample"]
        assert row["token_evaluations_per_sample"] == tokens and (row["seconds_per_sample"] > 0) == (name != "gold")


def test_a_page_that_fails_loses_no_numbers(first, here, monkeypatch):
    folder, own, _ = first
    monkeypatch.setattr(GuidedDiffusion, "denoising", Mock(side_effect=ConnectionError("the power went off")))
    with pytest.raises(SystemExit):
        here(folder, f"paths.outputs={folder / 'pageless' / 'outputs'}")
    assert samples(newest(folder / "pageless")) == samples(own)


@pytest.mark.parametrize(("target", "said"), [
    ("[[food,Nosuch]]", "food has no value 'Nosuch'; known are"), ("[[fod,Italian]]", "no field 'fod'; known are"),
])  # fmt: skip
def test_a_bad_target_ends_the_run_with_a_sentence_before_anything_is_trained(tmp_path, here, target, said):
    with pytest.raises(SystemExit) as end:
        here(tmp_path, f"targets.from={target}")
    sentence = str(end.value.code).splitlines()[0]  # a text as exit code is printed, and the code is 1
    assert "targets.from, entry 1: semantic_content" in sentence and said in sentence
    assert not list((tmp_path / "store").rglob("*")) and not list(tmp_path.rglob("results.json"))


# --- the frontier, and methods that are not in the default table

DEV = "+frontier={targets: {from: dev, n: 3}, num_samples: 1, perplexity: null}"


def test_a_frontier_is_swept_on_dev_and_compared_on_heldout(first, here):
    names, own = ["fudge", "rejection", "finetuned"], first[0] / "frontier"
    sweep = "sweep={fudge: {scale: [0.3, 3]}, rejection: {k: [1, 2]}, finetuned: {temperature: [1]}}"
    here(first[0], f"paths.outputs={own / 'outputs'}", "run=diffcontrol.frontier.run", DEV,
         f"method=[{','.join(names)}]", sweep)  # fmt: skip
    found, dev = results(newest(own)), json.loads((newest(own) / "frontier.json").read_text())
    assert dev["targets"]["from"] == "dev" and found["targets"]["from"] == "heldout"
    counts = {name: len(points) for name, points in dev["points"].items()}
    assert counts == {"gold": 1, "unguided": 1, "fudge": 2, "rejection": 2, "finetuned": 1, "finetuned_search": 1}
    assert set(found["methods"]) == set(counts) and set(found["matched"]["settings"]) == {"fudge", "rejection"}
    assert (newest(own) / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "Settings chosen on dev for a perplexity of at most" in (newest(own) / "table.md").read_text()


def test_a_frontier_that_stopped_writes_nothing_twice(first, here, monkeypatch):
    folder = first[0] / "frontier_twice"
    given = ("run=diffcontrol.frontier.run", DEV, "method=[fudge]", "sweep={fudge: {scale: [0.3, 3]}}",
             f"hydra.run.dir={folder}")  # fmt: skip
    here(first[0], *given)
    assert len(list((folder / "written" / "dev").glob("fudge.*.jsonl"))) == 2
    before = results(folder)["methods"]["fudge"]["success"]
    (folder / "results.json").unlink()
    monkeypatch.setattr("diffcontrol.methods.fudge.Fudge.write", lambda *_: pytest.fail("written twice"))
    here(first[0], *given)
    assert results(folder)["methods"]["fudge"]["success"] == before


def test_a_logger_without_its_package_is_refused_before_anything_is_trained(tmp_path, here, monkeypatch):
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(SystemExit) as end:
        here(tmp_path, "logger=wandb", "method=[fudge]")
    assert "logger=wandb: its package is not installed" in str(end.value.code)
    assert not list((tmp_path / "store").rglob("*"))


def test_a_frontier_looks_at_its_comparison_before_the_sweep(tmp_path, here):
    with pytest.raises(SystemExit) as end:
        here(tmp_path, "run=diffcontrol.frontier.run", DEV, "method=[fudge]", "targets.from=[[food,Nosuch]]")
    assert "food has no value 'Nosuch'" in str(end.value.code) and not list(tmp_path.rglob("written"))


def test_texts_of_other_settings_are_kept_and_the_run_is_refused(first, here, caplog):
    folder = first[0] / "twice"
    here(first[0], "method=[fudge]", f"hydra.run.dir={folder}")
    before = (folder / "written" / "fudge.jsonl").read_bytes()
    with pytest.raises(SystemExit) as end:
        here(first[0], "method=[fudge]", "num_samples=3", f"hydra.run.dir={folder}")
    assert "these texts were written with other settings" in str(end.value.code)
    assert (folder / "written" / "fudge.jsonl").read_bytes() == before
    assert "goes on from it" not in caplog.text


@pytest.mark.parametrize(("overrides", "said"), [
    (("task=syntax_spans", "method=constrained"), "constrained: whether words are a constituent depends"),
    (("task=syntax_tree", "method=[pplm]"), "pplm: its discriminator tells classes apart"),
    (("task=attribute", "control=anchor"), "control=anchor is not applicable to Attribute"),
    (("method=[fudge,best]",), "candidates are chosen among the texts of a method that is not in this run"),
    (("on_unsupported=perhaps",), "on_unsupported='perhaps': allowed is error, or skip"),
])  # fmt: skip
def test_a_method_that_is_not_applicable_is_refused_before_anything_is_trained(tmp_path, here, overrides, said):
    with pytest.raises(SystemExit) as end:
        here(tmp_path, *overrides)
    assert said in str(end.value.code) and not list((tmp_path / "store").rglob("*"))


def test_a_method_that_is_not_applicable_can_be_left_out(first, here):
    own = first[0] / "unsupported"
    here(first[0], f"paths.outputs={own / 'outputs'}", "method=[infill,fudge]", "on_unsupported=skip")
    assert set(results(newest(own))["methods"]) == {"gold", "unguided", "fudge"}
    said = "".join(path.read_text() for path in newest(own).glob("*.log"))
    assert "method infill is left out: Infill writes between given words" in said


@pytest.mark.parametrize("on_unsupported", ["error", "skip"])
def test_a_fault_of_the_program_is_not_shown_as_the_users(tmp_path, here, monkeypatch, capfd, on_unsupported):
    def check(*_):
        raise ValueError("shapes differ")

    monkeypatch.setattr("diffcontrol.methods.fudge.Fudge.check", check)
    with pytest.raises(SystemExit) as end:
        here(tmp_path, f"on_unsupported={on_unsupported}")
    assert end.value.code == 1  # not a sentence
    said = capfd.readouterr().err
    assert "Traceback" in said and "ValueError: shapes differ" in said


# --- faults


def wait_for(seen: Callable[[], Any], process: subprocess.Popen, seconds: float = 300) -> None:
    """Polled closely, as tiny trainings are over soon."""
    until = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None and time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.005)


LONGER = ("lm.optim.steps=60", "lm.optim.checkpoint=20", "model.depth=2", "model.width=64")


@pytest.mark.slow
def test_a_run_killed_in_training_resumes_and_writes_what_an_unbroken_one_writes(tmp_path):
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    for pattern in ("DiffusionLM", "ControlClassifier", "Predictor"):
        process = start(killed, *LONGER)
        wait_for(lambda: list(killed.glob(f"store/.drafts/{pattern}-*/last.ckpt")), process)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list(killed.glob(f"store/{pattern}-*")) and list(killed.glob(f"store/.drafts/{pattern}-*/last.ckpt"))
    done = run(killed, *LONGER)
    assert done.returncode == 0, done.stderr
    whole = run(unbroken, *LONGER)
    assert whole.returncode == 0, whole.stderr
    assert not [path for path in (killed / "store" / ".drafts").iterdir() if path.is_dir()]
    one, other = samples(newest(killed)), samples(newest(unbroken))
    assert [line | {"nll": 0} for line in one] == [line | {"nll": 0} for line in other]
    assert [line["nll"] for line in one] == pytest.approx([line["nll"] for line in other], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_stopped_by_a_signal_says_so_by_its_exit_code(tmp_path, number, code):
    process = start(tmp_path, "lm.optim.steps=100000", "lm.optim.checkpoint=10", "trainer.compile=false")
    wait_for(lambda: list(tmp_path.glob("store/.drafts/DiffusionLM-*/last.ckpt")), process)
    process.send_signal(number)
    assert process.wait(300) == code
    assert not list(tmp_path.glob("store/DiffusionLM-*"))
    said = (tmp_path / "stdout").read_text()
    assert "of 100000; the same command resumes" in said and "Traceback" not in said


@pytest.mark.slow
def test_a_run_stopped_while_it_writes_ends_without_a_traceback(first, tmp_path):
    process = start(tmp_path, f"paths.store={first[0] / 'store'}", "sampler.steps=4000")
    wait_for(lambda: "writing: guided_diffusion" in (tmp_path / "stdout").read_text(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130 and "Traceback" not in (tmp_path / "stdout").read_text()


@pytest.mark.slow
def test_a_run_killed_while_it_writes_can_be_run_again(first, tmp_path):
    folder, own, _ = first
    store = f"paths.store={folder / 'store'}"
    process = start(tmp_path, store, "sampler.steps=400")
    wait_for(lambda: "writing: guided_diffusion" in (tmp_path / "stdout").read_text(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("outputs/*/runs/*/results.json"))  # no half results
    done = run(tmp_path, store)
    assert done.returncode == 0, done.stderr
    assert results(newest(tmp_path))["trained"] == []
    assert samples(newest(tmp_path)) == samples(own)


@pytest.mark.slow
def test_neither_an_ascii_terminal_nor_a_folder_with_brackets_breaks_a_run(first, tmp_path):
    where = [f"paths.store={first[0] / 'store'}", f"paths.outputs='{tmp_path / 'x[/b]'}'"]
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command(tmp_path, *where), cwd=ROOT, env=ENVIRONMENT | ascii_only, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr
    (file,) = (tmp_path / "x[" / "b]").rglob("results.json")
    assert str(file.parent) in done.stdout
    assert samples(file.parent) == samples(first[1])


def losses(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Model → its loss at every step that was logged."""
    found = {}
    for file in run.glob("logs/*/metrics.csv"):
        if file.parent.name != "results":
            with file.open(encoding="utf-8") as opened:
                found[file.parent.name] = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(opened)]
    return found


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_one_of_them_writes(first, tmp_path):
    done = run(tmp_path, "trainer=ddp", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.rglob("results.json"))) == 1
    own = newest(tmp_path)
    found = results(own)
    models = {"DiffusionLM", "ControlClassifier", "CausalLM", "Predictor", "LstmLM"}
    assert {name.split("-")[0] for name in found["trained"]} == models
    assert set(found["trained"]) == set(results(first[1])["trained"])  # devices enter no address
    assert {path.name for path in (tmp_path / "store").iterdir()} == {".drafts", *found["trained"]}
    assert not list((tmp_path / "store" / ".drafts").iterdir())
    assert len(samples(own)) == 4 + 3 * 4 * 2
    several, one = losses(own), losses(first[1])
    assert several.keys() == one.keys() == set(found["trained"])
    for name, curve in several.items():
        assert [step for step, _ in curve] == [step for step, _ in one[name]] and len(curve) > 5
        assert [loss for _, loss in curve] == pytest.approx([loss for _, loss in one[name]], rel=1e-4), name


@pytest.mark.parametrize(("given", "said"), [
    ("trainer.devices=99999", "this machine has"), ("trainer.devices=0", "allowed is auto, a number from 1"),
    ("trainer.devices=[0,0]", "different numbers"), ("+trainer.strategy=fsdp", "allowed is one of auto, ddp"),
    ("+trainer.num_nodes=0", "a whole number from 1"), ("trainer.precision=half", "allowed is one of"),
    ("+trainer.max_step=9", "no such option"), ("+trainer.overfit_batches=1", "limit.train"),
    ("trainer.accelerator=tpu", "allowed is one of"),
    pytest.param("trainer.accelerator=gpu", "no GPU", marks=NO_GPU),
    ("targets.from='" + "(S *) " * 99 + "'", "there is no such file"), ("~judge.teacher", "judge.teacher is missing"),
])  # fmt: skip
def test_what_a_trainer_or_a_run_cannot_have_is_refused_before_anything_starts(tmp_path, here, given, said):
    with pytest.raises(SystemExit) as end:
        here(tmp_path, "trainer=ddp" if given.startswith("trainer.devices") else "trainer=default", given)
    sentence = str(end.value.code).splitlines()[0]
    assert given.lstrip("+~").partition("=")[0] in sentence and said in sentence
    assert not list((tmp_path / "store").rglob("*"))


def test_a_frontier_at_a_perplexity_that_no_text_has_is_refused(tmp_path, here):
    with pytest.raises(SystemExit, match=r"frontier.perplexity=-1: allowed is a number from 1, or null"):
        here(tmp_path, "experiment=frontier", "frontier.perplexity=-1")


def test_a_store_that_is_a_file_is_one_sentence(tmp_path, here):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"Not a directory .*file"):
        here(tmp_path, f"paths.store={tmp_path / 'file'}")
