"""Where what ships with the code lies, in a clone or in an installed wheel: the configuration and trained weights."""

import logging
from functools import cache
from pathlib import Path

from diffcontrol.refused import Refused

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parent
CLONE = PACKAGE.parents[1]
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "paths.outputs")  # settings that name one which a run is written into
NEEDED = (*FOLDERS, "paths.store")  # settings that name a folder and may not be left empty


def conf() -> Path:
    """The folder conf/: that of the wheel, which has it within the package, or else that of the clone."""
    packed = PACKAGE / "conf"
    return packed if packed.is_dir() else CLONE / "conf"


def options(group: str) -> list[str]:
    """The options of a group of the configuration; none if it is no group."""
    return sorted(path.stem for path in (conf() / group).glob("*.yaml"))


def refuse_null(argument: str) -> None:
    """Checks an override as group=null or paths.store=null, which ends in a traceback or a folder that is named None.

    Raises:
        Refused: a group or a folder that is needed is set to null.
    """
    group, equals, value = argument.lstrip("+~").partition("=")
    null = value.lower() == "null"
    if group == "logger" and null:
        raise Refused("logger=null: write logger=[] for none")
    if group in NEEDED and equals and (null or not value):
        raise Refused(f"{argument}: {group} is the path of a folder; leave it out for the default")
    if null and (known := options(group)):
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
