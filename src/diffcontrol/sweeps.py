"""What happens at the end of a sweep."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Gather(Callback):
    """Gathers the runs of a sweep into one report in its folder, as `python -m diffcontrol.report` does. A sweep over
    tasks has a folder of one name for each of them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from diffcontrol.report.__main__ import main  # late, as it draws in Matplotlib, which --help need not wait for

        own = Path(config.hydra.sweep.dir).absolute()
        alike = own.parents[2].glob(f"*/{own.parent.name}/{own.name}") if len(own.parents) > 2 else ()
        for folder in sorted({own, *alike}):
            if any(folder.rglob("results.json")):
                main([str(folder)])
