"""The command `diffcontrol task=semantic_content`, which is `python run.py task=semantic_content` in a clone."""

import errno
import logging
import os
import sys
from io import TextIOWrapper

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

from diffcontrol import places, resolvers
from diffcontrol.refused import Refused

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # of what the program can do nothing about

resolvers.register()


@hydra.main(version_base="1.3", config_path=str(places.conf()), config_name="config")
def main(cfg: DictConfig) -> float:
    """Runs what the command line describes and returns the number that a sweep optimises."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the locale is ASCII, a × is not worth a traceback
    if os.getcwd() not in sys.path:  # a package of the user's own may lie in the current folder; it hides no other
        sys.path.append(os.getcwd())
    try:
        return get_method(cfg.run)(cfg)  # imported late, so that --help and a mistyped option answer at once
    except Refused as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        logging.getLogger(__name__).debug("refused", exc_info=True)
        raise SystemExit(f"diffcontrol: {error}\n(HYDRA_FULL_ERROR=1 shows where)") from None
    except OSError as error:
        if error.errno not in DISK or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise SystemExit(
            f"diffcontrol: {error.strerror}{where}; when that is mended, the same command goes on"
        ) from None
    except KeyboardInterrupt:  # in training `fitting.Stopped` says at which step
        print("diffcontrol: stopped; the same command goes on with the models that are trained", file=sys.stderr)
        raise SystemExit(130) from None
