"""One experiment: `python run.py task=semantic_content`. What can be chosen lies in conf/."""

import logging
import os
import sys

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

from diffcontrol import resolvers
from diffcontrol.refused import Refused

resolvers.register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    try:
        return get_method(cfg.run)(cfg)  # imported late, so that --help and a mistyped option answer at once
    except Refused as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        logging.getLogger(__name__).debug("refused", exc_info=True)
        raise SystemExit(f"diffcontrol: {error}\n(HYDRA_FULL_ERROR=1 shows where)") from None
    except KeyboardInterrupt:  # in training `fitting.Stopped` says at which step
        print("diffcontrol: stopped; the same command goes on with the models that are trained", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
