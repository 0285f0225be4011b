"""What happens at the end of a sweep."""

import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

REFUSED = "refused.txt"  # in the folder of a run that was refused: its overrides, and why


class Gather(Callback):
    """Gathers the runs of a sweep into one report in its folder, as `python -m diffcontrol.report` does. A sweep over
    tasks has a folder of one name for each of them below `paths.outputs`. Where runs were refused, it says which and
    why, and the sweep ends with an exit code of 1."""

    def __init__(self) -> None:
        self.started = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from diffcontrol.report.__main__ import main  # late, as it draws in Matplotlib, which --help need not wait for

        own = Path(config.hydra.sweep.dir).absolute()
        outputs = Path(config.paths.outputs).absolute()
        alike = outputs.glob(f"*/{own.parent.name}/{own.name}") if outputs == own.parent.parent.parent else ()
        folders = sorted({own, *alike})
        for folder in folders:
            if any(folder.rglob("results.json")):
                main([str(folder)])
        files = sorted(file for folder in folders for file in folder.rglob(REFUSED))
        if said := [file.read_text(encoding="utf-8") for file in files if file.stat().st_mtime >= self.started - 1]:
            raise SystemExit(f"diffcontrol: {len(said)} of the sweep's runs were refused:\n{''.join(said).rstrip()}")
