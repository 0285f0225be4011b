"""The control tasks, `diffcontrol.tasks.<name>`. In a clone their modules lie in the top-level folder `tasks/`, where
whoever adds a control looks for them, and are found there; an installed wheel has them in this folder."""

from pathlib import Path

_top = Path(__file__).resolve().parents[3] / "tasks"
if _top.is_dir() and (_top.parent / "run.py").is_file():  # a clone, also installed with `pip install -e`
    __path__ = [str(_top)]
