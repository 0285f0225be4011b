"""Many runs: where they lie, the launchers and sweepers of the extras, and one store for runs at the same time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffcontrol.cli import installed
from tests.composing import CONF, raw

EXTRAS = {  # extra → its plugin, and what chooses it
    "joblib": ("hydra_joblib_launcher", ["hydra/launcher=joblib"]),
    "submitit": ("hydra_submitit_launcher", ["hydra/launcher=submitit_slurm"]),
    "optuna": ("hydra_optuna_sweeper", ["hparams_search=optuna"]),
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def there(extra: str) -> bool:
    return installed(EXTRAS[extra][0])


def need(extra: str) -> None:
    if not there(extra):
        pytest.skip(f"pip install 'diffcontrol[{extra}]'")


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_composes(extra):
    need(extra)
    hydra = raw(*EXTRAS[extra][1]).hydra
    assert EXTRAS[extra][0] in hydra.launcher._target_ + hydra.sweeper._target_


def test_a_search_looks_for_the_highest_success_on_dev_targets():
    need("optuna")
    cfg = raw("hparams_search=optuna")
    assert cfg.hydra.sweeper.direction == "maximize" and cfg.targets["from"] == "dev"
    assert set(cfg.hydra.sweeper.params) == {"strength.scale", "sampler.steps"}


def test_runs_and_sweeps_lie_apart_and_no_two_share_a_folder():
    one, other = raw("task=[length,attribute]"), raw("task=[length,attribute]")
    for cfg in (one, other):
        cfg.hydra.job.num = 3
    assert Path(one.hydra.run.dir).parent == Path("outputs/length+attribute/runs")
    assert Path(one.hydra.sweep.dir).parent == Path("outputs/length+attribute/sweeps") and one.hydra.sweep.subdir == "3"
    assert one.hydra.run.dir != other.hydra.run.dir and one.hydra.sweep.dir != other.hydra.sweep.dir


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_the_runs_of_a_sweep_share_a_store_and_end_in_one_report(tmp_path, launcher):
    if launcher != "basic":
        need(launcher.partition("_")[0])
    command = [sys.executable, "run.py", "-m", "experiment=tiny", "seed=1,2", "method=[guided_diffusion]",
               f"hydra/launcher={launcher}", f"paths.store={tmp_path / 'store'}",
               f"paths.outputs={tmp_path / 'outputs'}", "trainer.accelerator=cpu"]  # fmt: skip
    done = subprocess.run(command, cwd=CONF.parent, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("outputs/semantic_content/sweeps/*/*/results.json"))
    assert [path.parent.name for path in runs] == ["0", "1"]
    found = [json.loads(path.read_text()) for path in runs]
    assert [run["seed"] for run in found] == [1, 2]
    trained = [name for run in found for name in run["trained"]]
    there = {path.name for path in (tmp_path / "store").iterdir() if path.name != ".drafts"}
    assert len(trained) == len(set(trained)) and set(trained) == there  # each model once, by one of the two
    (summary,) = tmp_path.glob("outputs/semantic_content/sweeps/*/summary.md")
    assert "guided_diffusion" in summary.read_text() and str(tmp_path) in done.stdout


@pytest.mark.slow
def test_a_sweep_in_which_one_run_is_refused_shows_the_others(tmp_path):
    folder = tmp_path / "sweep"
    command = [sys.executable, "run.py", "-m", "experiment=tiny", "seed=1.5,1", "method=[fudge]",
               "trainer.accelerator=cpu", f"paths.store={tmp_path / 'store'}", f"hydra.sweep.dir={folder}"]  # fmt: skip
    done = subprocess.run(command, cwd=CONF.parent, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of the sweep's runs were refused:" in done.stderr, done.stderr
    assert "seed=1.5: allowed is a whole number" in (folder / "summary.md").read_text()
    assert (folder / "1" / "results.json").exists() and not (folder / "0" / "results.json").exists()
    again = [argument.replace("seed=1.5,1", "seed=2,1") for argument in command]
    done = subprocess.run(again, cwd=CONF.parent, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and not list(folder.rglob("refused.txt")), done.stderr
    assert "refused" not in (folder / "summary.md").read_text()


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_run_that_is_refused_and_ends_with_an_error(tmp_path):
    command = [sys.executable, "run.py", "-m", "experiment=tiny", "targets.n=-1,-2", "trainer.accelerator=cpu",
               f"paths.store={tmp_path / 'store'}", f"paths.outputs={tmp_path / 'outputs'}"]  # fmt: skip
    done = subprocess.run(command, cwd=CONF.parent, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "2 of the sweep's runs were refused" in done.stderr, done.stderr
    said = sorted(path.read_text() for path in tmp_path.glob("outputs/*/sweeps/*/*/refused.txt"))
    assert [f"targets.n=-{i}: " in text for i, text in enumerate(said, 1)] == [True, True]
    assert "Traceback" not in done.stderr
