"""Configurations as `experiment.run` sees them, for tests.

DIFFCONTROL_CONF names a folder with options of your own, which the contract tests find beside those of conf/.
"""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffcontrol import resolvers

CONF = Path(__file__).parents[1] / "conf"
OWN = [Path(os.environ["DIFFCONTROL_CONF"]).absolute()] if os.environ.get("DIFFCONTROL_CONF") else []
OUTPUT = tempfile.mkdtemp(prefix="diffcontrol-tests-")  # where loggers of composed configs write
atexit.register(shutil.rmtree, OUTPUT, ignore_errors=True)
resolvers.register()


def options(group: str) -> list[str]:
    return sorted(path.stem for folder in (CONF, *OWN) for path in (folder / group).glob("*.yaml"))


def raw(*overrides: str) -> Any:
    """The composed config with Hydra's own part, interpolations unresolved."""
    own = [f"hydra.searchpath=[{','.join(folder.as_uri() for folder in OWN)}]"] if OWN else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*own, *overrides, f"hydra.runtime.output_dir={OUTPUT}"], return_hydra_config=True)


def job(*overrides: str) -> Any:
    """The config that `run.py` gets, interpolations unresolved."""
    cfg = raw(*overrides)
    HydraConfig.instance().set_config(cfg)  # loggers lie in its output_dir
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    return cfg


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """What `experiment.run` resolves it to: plain containers."""
    return OmegaConf.to_container(job(*overrides), resolve=True)
