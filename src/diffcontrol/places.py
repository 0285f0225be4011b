"""Where what ships with the code lies, in a clone or in an installed wheel: the configuration and trained weights."""

import logging
from functools import cache
from pathlib import Path

from diffcontrol.refused import Refused

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parent
CLONE = PACKAGE.parents[1]


def conf() -> Path:
    """The folder conf/: that of the wheel, which has it within the package, or else that of the clone."""
    packed = PACKAGE / "conf"
    return packed if packed.is_dir() else CLONE / "conf"


def options(group: str) -> list[str]:
    """The options of a group of the configuration; none if it is no group."""
    return sorted(path.stem for path in (conf() / group).glob("*.yaml"))


def refuse_null(argument: str) -> None:
    """Checks an override as group=null, which Hydra answers with a traceback.

    Raises:
        Refused: a group is set to null.
    """
    group, _, value = argument.partition("=")
    if group == "logger" and value == "null":
        raise Refused("logger=null: write logger=[] for none")
    if value == "null" and (known := options(group)):
        raise Refused(f"{argument}: {group} is a group, and one of its options is needed: {', '.join(known)}; leave it "
                      "out for the default")  # fmt: skip


def shipped() -> str | None:
    """The folder of the weights that ship with the repository; None where there is none, as in an installed wheel.
    Then a warning says so, once a process."""
    folder = CLONE / "pretrained"
    if folder.is_dir():
        return str(folder)
    _warn()
    return None


@cache
def _warn() -> None:
    log.warning(
        "No trained weights are installed with diffcontrol, so every model that is not in the store is trained here; "
        "paths.pretrained=<the folder pretrained/ of a clone> or paths.pretrained=hf://owner/name names them, and "
        "paths.pretrained=null means that all is to be trained."
    )
