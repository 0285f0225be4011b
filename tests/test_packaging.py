"""An installed wheel: the command `diffcontrol` runs from any folder, without a clone."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from diffcontrol import places
from tests.composing import CONF

ROOT = CONF.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
    "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}  # fmt: skip


def test_a_clone_finds_its_own_configuration_and_weights():
    assert places.conf() == CONF and places.shipped() == str(ROOT / "pretrained")


def test_without_the_weights_one_sentence_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(places, "CLONE", tmp_path)
    places._warn.cache_clear()
    assert places.shipped() is None and places.shipped() is None
    (said,) = caplog.messages
    assert "paths.pretrained=<the folder" in said and "hf://owner/name" in said
    places._warn.cache_clear()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this working copy. pip has to find its build backend, so offline there may be none."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)],
                          env=ENVIRONMENT, capture_output=True, text=True)  # fmt: skip
    if done.returncode and (
        "satisfies the requirement hatchling" in done.stderr or "No module named pip" in done.stderr
    ):
        pytest.skip(f"pip cannot build here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_configuration_and_no_more_than_the_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name.removeprefix("diffcontrol/conf/") for name in names if name.startswith("diffcontrol/conf/")}
    own = {str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] != "local"}
    assert packed == own
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tasks = {f"diffcontrol/tasks/{path.name}" for path in (ROOT / "tasks").glob("*.py")}
    assert tasks < set(names) and "diffcontrol/tasks/__init__.py" in names
    assert {name.split("/")[0] for name in names} == {"diffcontrol", f"diffcontrol-{version}.dist-info"}


@pytest.mark.slow
def test_the_installed_command_runs_in_an_empty_folder(wheel, tmp_path):
    environment, folder = tmp_path / "venv", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (Path(site) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")  # the libraries; no editable clone
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    done = subprocess.run([environment / "bin" / "diffcontrol", "experiment=tiny", "trainer.accelerator=cpu"],
                          cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("No trained weights are installed with diffcontrol") == 1
    (found,) = folder.glob("outputs/**/results.json")
    assert json.loads(found.read_text())["trained"] and (folder / "store").is_dir()
    assert {path.name for path in folder.iterdir()} == {"outputs", "store"}
