"""For which tasks some data have targets, which the user is told if they have none for the chosen task."""

import importlib
import inspect
import pkgutil
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from diffcontrol import places
from diffcontrol import tasks as tasks_that_ship
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.refused import Refused
from diffcontrol.task import ControlTask


def check(tasks: Mapping[str, ControlTask], corpus: Corpus, split: str) -> None:
    """Whether each task finds a target in some example of the split.

    Raises:
        Refused: one finds none; the sentence says which tasks would, and what to type.
    """
    for name, task in tasks.items():
        why = _nothing(task, corpus.splits[split])
        if why is None:
            continue
        others = offered(corpus, corpus.splits[split])
        advice = f"; they have targets for {', '.join(others)}: {_command(others)}" if others else ""
        raise Refused(f"task={name}: the data ({split}) have no target for it{why and f' ({why})'}{advice}")


def offered(corpus: Corpus, examples: Sequence[Example]) -> list[str]:
    """Names of the tasks that ship and find a target among the examples. Tasks that a target of the data's own meets
    come before those that any text does."""
    found = []
    for module in pkgutil.iter_modules(tasks_that_ship.__path__):
        if module.name not in places.options("task"):
            continue
        name = f"{tasks_that_ship.__name__}.{module.name}"
        made: list[Any] = [kind for kind in vars(importlib.import_module(name)).values() if isinstance(kind, type)
                and issubclass(kind, ControlTask) and kind.__module__ == name and _needs_only_data(kind)]  # fmt: skip
        if made and _nothing(made[0](corpus), examples) is None:
            plain = [Example(example.words) for example in examples[:1]]
            found.append((_nothing(made[0](corpus), plain) is None, module.name))
    return [name for _, name in sorted(found)]


def _needs_only_data(kind: type) -> bool:
    try:
        inspect.signature(kind).bind(None)
    except TypeError:
        return False
    return True


def _nothing(task: ControlTask, examples: Iterable[Example]) -> str | None:
    """Why no example has a target, empty where there is no more to say; None if one has."""
    try:
        return None if any(task.targets(task.annotate(example)) for example in examples) else ""
    except Refused as refused:
        return str(refused)


def _command(others: Sequence[str]) -> str:
    """The command of this run, with the first of these tasks in place of its own; the task alone where Hydra runs
    nothing."""
    chosen = f"task={others[0]}"
    if not HydraConfig.initialized():
        return chosen
    own, started = HydraConfig.get(), sys.argv[0]
    words = ["python", started] if Path(started).name == "run.py" else ["diffcontrol"]
    for source in own.runtime.config_sources:
        if source.provider == "command-line":
            words += ["--config-dir", source.path]
    words += [override for override in own.overrides.hydra if _key(override) == "hydra.searchpath"]
    words += [override for override in own.overrides.task if _key(override).split(".")[0] != "task"]
    return shlex.join([*words, chosen])


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
