"""For which tasks some data have targets, which the user is told if they have none for the chosen task."""

import importlib
import inspect
import pkgutil
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig

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
        others = offered(task, corpus, corpus.splits[split])
        advice = f"; they have targets for {', '.join(others)}: {_command(others)}" if others else ""
        raise Refused(f"task={name}: the data ({split}) have no target for it{why and f' ({why})'}{advice}")


def offered(task: ControlTask, corpus: Corpus, examples: Sequence[Example]) -> list[str]:
    """Names of the tasks, of those in the folder of `task`, that find a target among the examples. Tasks that a
    target of the data's own meets come before those that any text does."""
    folder = type(task).__module__.rpartition(".")[0]
    if not folder:  # a module of the user's own, beside run.py
        return []
    package = importlib.import_module(folder)
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        named = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        made: list[Any] = [kind for kind in named.values() if isinstance(kind, type) and issubclass(kind, ControlTask)
                and kind.__module__ == f"{package.__name__}.{module.name}" and _needs_only_data(kind)]  # fmt: skip
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
    """The command of this run, with the first of these tasks in place of its own."""
    given = [override for override in HydraConfig.get().overrides.task
             if override.partition("=")[0] != "task" and not override.lstrip("+~").startswith("task.")]  # fmt: skip
    return shlex.join(["python", "run.py", *given, f"task={others[0]}"])
