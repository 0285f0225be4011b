"""One experiment: `python run.py task=semantic_content`. What can be chosen lies in conf/."""

import logging
import os
from typing import Any

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

from diffcontrol import resolvers

resolvers.register()


def instead(nodes: Any, key: str, value: Any) -> dict[str, Any]:
    """The same recipes by name, with `value` as the argument `key` of those that have it."""
    plain, new = OmegaConf.to_container(nodes, resolve=True), OmegaConf.to_container(value, resolve=True)
    assert isinstance(plain, dict)
    return {name: {**node, key: new} if key in node else node for name, node in plain.items()}


OmegaConf.register_new_resolver("instead", instead, use_cache=False)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    try:
        return get_method(cfg.run)(cfg)  # imported late, so that --help and a mistyped option answer at once
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        logging.getLogger(__name__).debug("refused", exc_info=True)
        raise SystemExit(f"diffcontrol: {error}\n(HYDRA_FULL_ERROR=1 shows where)") from None


if __name__ == "__main__":
    main()
