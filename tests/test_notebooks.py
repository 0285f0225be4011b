"""Notebooks run from top to bottom: by their cell `settings` on a tiny model, in the place of those that ship."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from omegaconf import OmegaConf

from tests.composing import CONF
from tests.test_docs import numbers

NOTEBOOKS = sorted((CONF.parent / "notebooks").glob("*.ipynb"))
TINY = [f"++{key}={value}" for key, value in numbers(OmegaConf.load(CONF / "experiment" / "tiny.yaml"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the models of all notebooks are trained."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_defines_nothing_twice(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells) and cells[0].source.startswith("# ")
    (settings,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    assert settings.source.startswith("settings = []")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CONF.parent / "src"), str(CONF.parent)]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(path, as_version=4)
    here = [*TINY, f"paths.store={folder / 'store'}", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = f"settings = {here}"
        cell.source = cell.source.replace("../outputs/notebook", str(folder / "outputs"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
