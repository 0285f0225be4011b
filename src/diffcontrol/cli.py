"""The command `diffcontrol task=semantic_content`, which is `python run.py task=semantic_content` in a clone."""

import errno
import logging
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from diffcontrol import places, ranks, resolvers
from diffcontrol.refused import Refused
from diffcontrol.sweeps import REFUSED

# what of a disk is not ours to mend
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)

resolvers.register()
HYDRAS = (".hydra", "run.log")  # what Hydra writes into the folder of a run before the run starts
PLUGINS = {  # what chooses a plugin of Hydra's on the command line → its package, and our extra that installs it
    "hparams_search=optuna": ("hydra_optuna_sweeper", "optuna"),
    "hydra/sweeper=optuna": ("hydra_optuna_sweeper", "optuna"),
    "hydra/launcher=joblib": ("hydra_joblib_launcher", "joblib"),
    "hydra/launcher=submitit_local": ("hydra_submitit_launcher", "submitit"),
    "hydra/launcher=submitit_slurm": ("hydra_submitit_launcher", "submitit"),
}
PRINTING = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")  # and no more
DEMO = "demo"  # `diffcontrol demo …` serves the live page of diffcontrol.demo


def main() -> None:
    """What the command `diffcontrol` does: the live page where its first word is `demo`, else what Hydra composes."""
    if sys.argv[1:2] != [DEMO]:
        check(sys.argv[1:])
        printing = any(argument.partition("=")[0] in PRINTING for argument in sys.argv[1:])
        with read_as_far_as_wanted() if printing else nullcontext():
            run()
        return
    from diffcontrol.demo import main as demo  # late, as it imports PyTorch

    try:
        demo(sys.argv[2:])
    except Refused as error:
        raise SystemExit(f"diffcontrol: {error}") from None


@contextmanager
def read_as_far_as_wanted() -> Iterator[None]:
    """Where whoever reads what is printed has read enough, as `head` has, the process ends without a traceback."""
    if not hasattr(signal, "SIGPIPE"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        sys.stdout.flush()
        signal.signal(signal.SIGPIPE, before)


def check(arguments: Sequence[str]) -> None:
    """Says in a sentence what Hydra would answer with a traceback, or with what it did not find.

    Raises:
        SystemExit: a plugin is not installed, a group or a folder is set to null, or a folder cannot be made: a file
            stands there, or nothing may be written there.
    """
    for argument in filter(PLUGINS.get, arguments):
        package, extra = PLUGINS[argument]
        if not installed(package):
            raise SystemExit(f"diffcontrol: {argument} needs pip install 'diffcontrol[{extra}]'")
    for argument in arguments:
        try:
            places.refuse_null(argument)
        except Refused as error:
            raise SystemExit(f"diffcontrol: {error}") from None
        key, _, value = argument.partition("=")
        if key in places.FOLDERS and "$" not in value:
            try:
                there = next(path for path in (Path(value), *Path(value).absolute().parents) if path.exists())
            except OSError as error:  # the name is too long, or a folder above it may not be entered
                why = f"no folder can be made there ({error.strerror})"
                raise SystemExit(f"diffcontrol: {key}={value}: {why}") from None
            if not there.is_dir():
                raise SystemExit(f"diffcontrol: {key}={value}: a folder is needed, but {there} is a file")
            if not os.access(there, os.W_OK | os.X_OK):
                raise SystemExit(f"diffcontrol: {key}={value}: nothing may be written in {there}")


def installed(plugin: str) -> bool:
    """Whether a plugin of Hydra's is there."""
    return bool(find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{plugin}"))


@hydra.main(version_base="1.3", config_path=str(places.conf()), config_name="config")
def run(cfg: DictConfig) -> float:
    """Runs what the command line describes and returns the number that a sweep optimises."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the locale is ASCII, a × is not worth a traceback
    if os.getcwd() not in sys.path:  # a package of the user's own may lie in the current folder; it hides no other
        sys.path.append(os.getcwd())
    (Path(HydraConfig.get().runtime.output_dir) / REFUSED).unlink(missing_ok=True)  # of the same command before
    try:
        return get_method(cfg.run)(cfg)  # imported late, so that --help and a mistyped option answer at once
    except Refused as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        logging.getLogger(__name__).debug("refused", exc_info=True)
        folder = Path(HydraConfig.get().runtime.output_dir)
        if others_go_on():
            return refused(folder, error)
        leave_nothing(folder)
        raise SystemExit(f"diffcontrol: {error}\n(set HYDRA_FULL_ERROR=1 to see where in the program)") from None
    except OSError as error:
        if error.errno not in DISK or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise SystemExit(
            f"diffcontrol: {error.strerror}{where}; fix this and run the same command again: it continues"
            " where it stopped"
        ) from None
    except KeyboardInterrupt:  # in training `fitting.Stopped` says at which step
        print(
            "diffcontrol: stopped; run the same command again to continue with the models that are trained",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


def others_go_on() -> bool:
    """Whether this is a run of a sweep of which each stands for itself. A search needs a number of every run."""
    own = HydraConfig.get()
    return own.mode == RunMode.MULTIRUN and "direction" not in own.sweeper


def refused(folder: Path, error: Refused) -> float:
    """Keeps why a run of a sweep was refused in the run's folder, from which `sweeps.Gather` tells it; returns the
    result of such a run, which is no number."""
    if ranks.is_first():
        said = f"{' '.join(HydraConfig.get().overrides.task)}: {error}"
        (folder / REFUSED).write_text(said + "\n", encoding="utf-8")
        print(f"diffcontrol: {said}", file=sys.stderr)
    return math.nan


def leave_nothing(folder: Path) -> None:
    """Removes the folder of a run that was refused before it did anything, that is where nothing stands in it but what
    Hydra writes before the run starts. Folders above it that are empty then go, too."""
    if not ranks.is_first() or {path.name for path in folder.iterdir()} - set(HYDRAS):
        return
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder.absolute():
            handler.close()
    for name in HYDRAS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # of one that is not empty, or that somebody is in
        for empty in (folder, *folder.parents[:3]):
            if empty.absolute() == Path.cwd():
                break
            empty.rmdir()
