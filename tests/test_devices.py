"""Several processes take the steps that one takes: losses, weights and one entry in the store."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffcontrol import hardware, ranks
from diffcontrol.drafts import make_once
from tests.composing import raw

ROOT = Path(__file__).parents[1]
TRAIN = """
import sys
from pytorch_lightning.loggers import CSVLogger
from diffcontrol import hardware
from diffcontrol.store import Store
from tests.test_devices import recipes

hardware.has_bf16 = lambda device: False  # in bf16 Muon makes steps of rounding errors

root, devices = sys.argv[1], int(sys.argv[2])
strategy = "ddp" if devices > 1 else "auto"
trainer = {"accelerator": "cpu", "devices": devices, "strategy": strategy, "enable_progress_bar": False}
own = Store(root, trainer=trainer, logger=lambda name: [CSVLogger(root + "-logs", name, "")])
for recipe in recipes():
    own.fit(recipe)
"""


def recipes() -> list[dict]:
    """A diffusion LM whose batches are cropped now and then, a classifier on it, and a causal LM: a mean over words."""
    data = {"_target_": "tests.fakes.FakeCorpus", "n": 64, "length": 12, "seed": 0}
    optim = {"steps": 30, "batch_size": 9, "lr": 3e-3, "warmup": 5, "ema": 0.9, "checkpoint": 20}
    sizes = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    lm = {
        "_target_": "diffcontrol.diffusion.lm.DiffusionLM", "data": data, "model": {**sizes, "embedding": 8},
        "objective": {"_target_": "diffcontrol.diffusion.objective.CrossEntropy"}, "window": 8,
        "schedule": {"_target_": "diffcontrol.diffusion.schedule.Sqrt"}, "optim": {**optim, "muon": 0.01},
    }  # fmt: skip
    classifier = {
        "_target_": "diffcontrol.steering.classifier.ControlClassifier", "lm": lm, "data": data, "optim": optim,
        "task": {"_target_": "tests.fakes.FakeTask", "words": ["red", "cat"], "data": data},
        "encoder": {"_target_": "diffcontrol.steering.classifier.DenoiserEncoder"},
    }  # fmt: skip
    causal = {"_target_": "diffcontrol.autoregressive.causal_lm.CausalLM", "data": data, "model": sizes, "optim": optim}
    return [lm, classifier, causal]


def losses(logs: Path) -> dict[str, list[float]]:
    """Model → its losses, as they were logged."""
    found = {}
    for file in logs.glob("*/metrics.csv"):
        with file.open(encoding="utf-8") as opened:
            found[file.parent.name] = [float(row["loss"]) for row in csv.DictReader(opened)]
    return found


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_weights_of_one(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for name, devices in (("one", 1), ("two", 2)):
        done = subprocess.run([sys.executable, "train.py", str(tmp_path / name), str(devices)], cwd=tmp_path, env=env,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one-logs"), losses(tmp_path / "two-logs")
    assert one.keys() == two.keys() and len(one) == 3
    for name, curve in one.items():
        assert len(curve) == 30 and two[name] == pytest.approx(curve, rel=1e-4), name
        weights = [load_file(tmp_path / run / name / "weights.safetensors") for run in ("one", "two")]
        for key, weight in weights[0].items():
            torch.testing.assert_close(weights[1][key], weight, rtol=0.02, atol=2e-3)
        said = json.loads((tmp_path / "two" / name / "provenance.json").read_text())
        assert said["world"] == 2
    assert list((tmp_path / "two" / ".drafts").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True], ids=["models to train", "models that are there"])
def test_two_processes_write_the_texts_of_one(tmp_path, trained):
    store = tmp_path / "store"

    def ran(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        done = subprocess.run(
            [sys.executable, "run.py", "experiment=tiny", "task=length", "method=[guided_diffusion]", "targets.n=6",
             "chunk=2", "paths.pretrained=null", f"paths.store={store}", f"hydra.run.dir={folder}",
             "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", *overrides],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return folder

    def texts(folder: Path) -> list[dict]:
        return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]

    if trained:
        ran("before")
    two = ran("two", "trainer=ddp", "trainer.devices=2")
    assert {file.name for file in (two / "written").iterdir()} == {
        f"{name}{rank}.jsonl" for name in ("unguided", "guided_diffusion") for rank in ("", ".rank1")
    }
    assert texts(two) == texts(ran("one"))


@pytest.mark.gpu
def test_a_tiny_run_trains_and_writes_on_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, "run.py", "experiment=tiny", "trainer.accelerator=gpu", "paths.pretrained=null",
         f"paths.store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("*/provenance.json")]
    assert {one["device"] for one in said if "device" in one} == {"cuda:0"}
    assert json.loads((tmp_path / "run/results.json").read_text())["methods"]["guided_diffusion"]


@pytest.mark.parametrize(("wanted", "found"), [
    (1, [0]), (2, [0, 1]), ("2", [0, 1]), ([0, 3], [0, 3]), ("0, 3", [0, 3]), ("auto", [0]),
    (0, []), (-1, []), (1.5, []), (True, []), ([0, 0], []), ([], []), ("two", []), (None, []),
])  # fmt: skip
def test_which_devices_are_asked_for(wanted, found):
    assert hardware.devices(wanted, torch.device("cpu")) == found


@pytest.mark.parametrize(("environment", "first"), [
    ({}, True), ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False),
    ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),  # the first process of the second machine
    ({"SLURM_PROCID": "3"}, False), ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False), ({"RANK": "0"}, True),
])  # fmt: skip
def test_one_process_of_all_machines_writes(monkeypatch, environment, first):
    for name in ranks.RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.is_first() is first


@pytest.mark.parametrize("ours", [True, False])
def test_other_processes_join_a_training_that_their_own_run_began_and_wait_for_one_of_another(
    tmp_path, monkeypatch, ours
):
    joined, drafts = [], tmp_path / ".drafts"
    drafts.mkdir()
    (drafts / "a.begun").write_text(f"{os.getppid() if ours else 1}\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    asked = []

    def waited(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            (tmp_path / "a").mkdir()

    monkeypatch.setattr("diffcontrol.drafts.time.sleep", waited)
    folder, made = make_once(tmp_path, "a", lambda draft: pytest.fail("made twice"), joined.append)
    assert folder == tmp_path / "a" and not made
    assert joined == ([drafts / "a"] if ours else [])


GPUS = (ROOT / "docs" / "gpus.md").read_text(encoding="utf-8") if (ROOT / "docs" / "gpus.md").exists() else ""
COMMANDS = [line.split("#")[0].strip() for line in GPUS.splitlines() if "python run.py" in line and line[:1] == " "]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_on_gpus_composes(command):
    words = command[command.index("run.py") :].split()[1:]
    if any(word.startswith("hydra/launcher=submitit") for word in words):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    cfg = raw(*(word.strip("'") for word in words if word != "-m" and "seed=1,2" not in word))
    assert cfg.trainer.accelerator in ("auto", "gpu", "cpu")
