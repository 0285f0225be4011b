"""Damage to what lies in a store: an entry is refused by its name, and a checkpoint is set aside; neither is used."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffcontrol.refused import Refused
from diffcontrol.store import weights
from diffcontrol.store.provenance import sha256
from tests.faults.outcome import LOST, SILENT, SURVIVED, TRACEBACK, Outcome
from tests.faults.processes import same, store
from tests.toys import Faults, toy


def random_bytes(entry: Path) -> None:
    """Under a header that is valid."""
    file = entry / weights.FILE
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    file.write_bytes(content[:header] + bytes(reversed(content[header:])))


def no_numbers(entry: Path) -> None:
    """NaN weights whose checksum is right."""
    file = entry / weights.FILE
    save_file({name: weight * torch.nan for name, weight in load_file(file).items()}, file)
    said = json.loads((entry / "provenance.json").read_text())
    said["sha256"][file.name] = sha256(file)
    (entry / "provenance.json").write_text(json.dumps(said))


def flipped_bit(entry: Path) -> None:
    content = bytearray((entry / weights.FILE).read_bytes())
    content[-9] ^= 1
    (entry / weights.FILE).write_bytes(content)


def truncated(entry: Path) -> None:
    content = (entry / weights.FILE).read_bytes()
    (entry / weights.FILE).write_bytes(content[: len(content) // 2])


def missing(entry: Path) -> None:
    (entry / weights.FILE).unlink()


def other_config(entry: Path) -> None:
    text = (entry / "config.yaml").read_text()
    (entry / "config.yaml").write_text(text.replace("shift: 0.5", "shift: 0.6"))


def empty_provenance(entry: Path) -> None:
    (entry / "provenance.json").write_text("")


def a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.touch()


def dangling_link(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.symlink_to(entry.parent / "nowhere")


DAMAGE: list[Callable[[Path], None]] = [
    random_bytes, no_numbers, flipped_bit, truncated, missing, other_config, empty_provenance, a_file, dangling_link,
]  # fmt: skip


def damaged_entries(folder: Path) -> Iterator[Outcome]:
    sound = store(folder / "sound")
    sound.fit(toy())
    for damage in DAMAGE:
        root = folder / damage.__name__
        shutil.copytree(folder / "sound", root)
        entry = root / sound.address(toy())
        damage(entry)
        try:
            store(root).fit(toy())
            yield Outcome("entry", damage.__name__, SILENT)
        except Refused as refused:
            said = str(refused)
            yield Outcome(
                "entry", damage.__name__, SURVIVED if str(entry) in said and "\n" not in said else SILENT, said
            )
        except Exception as error:
            yield Outcome("entry", damage.__name__, TRACEBACK, repr(error))


def damaged_checkpoint(folder: Path) -> Iterator[Outcome]:
    """The training was killed and its last.ckpt damaged: training starts again, says so, and ends the same."""
    store(folder / "whole").fit(toy())
    root, heard = folder / "damaged", []
    Faults.crash = 13
    try:
        store(root).fit(toy())
    except ConnectionError:
        (file,) = root.glob(".drafts/*/last.ckpt")
        file.write_bytes(file.read_bytes()[:-100])
    finally:
        Faults.crash = None
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffcontrol").addHandler(listener)
    try:
        store(root).fit(toy())
        said = any("checkpoint is damaged" in each for each in heard)
        verdict = LOST if not same(root, folder / "whole", toy()) else SURVIVED if said else SILENT
        yield Outcome("checkpoint", "truncated last.ckpt", verdict, "; ".join(heard))
    except Exception as error:
        yield Outcome("checkpoint", "truncated last.ckpt", TRACEBACK, repr(error))
    finally:
        logging.getLogger("diffcontrol").removeHandler(listener)
