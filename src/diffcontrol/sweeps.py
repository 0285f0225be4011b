"""What happens at the end of a sweep."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

REFUSED = "refused.txt"  # in the folder of a run that was refused: its overrides, and why


class Gather(Callback):
    """Gathers the runs of a sweep into one report in its folder, as `python -m diffcontrol.report` does. A sweep over
    tasks has a folder of one name for each of them. Where a run was refused, the sweep ends with an exit code of 1."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from diffcontrol.report.__main__ import main  # late, as it draws in Matplotlib, which --help need not wait for

        own = Path(config.hydra.sweep.dir).absolute()
        alike = own.parents[2].glob(f"*/{own.parent.name}/{own.name}") if len(own.parents) > 2 else ()
        for folder in sorted({own, *alike}):
            if any(folder.rglob("results.json")):
                main([str(folder)])
        if refused := [file for folder in {own, *alike} for file in folder.rglob(REFUSED)]:
            raise SystemExit(f"diffcontrol: {len(refused)} of the sweep's runs were refused, see above")
