"""What a run says of itself, in its results and to its loggers: its command, settings and strengths, and its name."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from hydra.core.hydra_config import HydraConfig

from diffcontrol.logger import loggers
from diffcontrol.recipe import is_recipe

STARTED = datetime.now()  # one time for all runs of a sweep, which thereby are a group
UNNAMED = ("task", "method", "logger", "paths", "trainer")  # overrides that no logged run is named by


def described(cfg: Mapping[str, Any], tasks: Iterable[str], targets: int) -> dict[str, Any]:
    """The entries of results.json that say what was asked for."""
    source, hydra = cfg["targets"]["from"], HydraConfig.get()
    return {
        "command": list(hydra.overrides.task), "tasks": list(tasks), "data": hydra.runtime.choices["data"],
        "seed": cfg["seed"], "num_samples": cfg["num_samples"],
        "targets": {"from": source if isinstance(source, str) else "list", "n": targets},
        "strength": cfg["strength"], "settings": settings(),
    }  # fmt: skip


def own_strength(node: Mapping[str, Any], tasks: Iterable[str]) -> dict[str, float]:
    """How strongly a method's node says to control these tasks: by task, with a prefix where the strengths are those of
    a part of it, as `guidance.syntax_tree`; and its `scale`."""
    found = {"scale": node["scale"]} if isinstance(node.get("scale"), int | float) else {}
    for key, value in node.items():
        if isinstance(value, Mapping) and not is_recipe(value):
            if key == "strength" and "default" in value:
                found |= {task: value.get(task, value["default"]) for task in tasks}
            else:
                found |= {f"{key}.{name}": number for name, number in own_strength(value, tasks).items()}
    return found


def settings() -> dict[str, str]:
    """What the command line set, but for what results.json says elsewhere or what changes no result. Of the groups
    `task`, `data` and `method` the choice stands elsewhere, and values within them stand here."""
    elsewhere = ("seed", "targets", "strength", "num_samples", "logger", "paths", "trainer")
    pairs = (o.lstrip("+~").partition("=") for o in overrides(elsewhere))
    return {key: value for key, _, value in pairs if key not in ("task", "data", "method")}


def overrides(but: Sequence[str]) -> list[str]:
    """What the command line set, as it stands there, but for these top-level keys."""
    given = HydraConfig.get().overrides.task
    return [o for o in given if o.lstrip("+~").partition("=")[0].split(".")[0] not in but]


def run_loggers(cfg: Mapping[str, Any], name: str, job: str) -> list[Any]:
    """The loggers of a training (job train) or of the whole run (evaluate); none where none is configured, as from
    Python, where there is no command line either."""
    if not cfg.get("logger"):
        return []
    what = name if job == "train" else ",".join(cfg["method"])
    title = " ".join(["+".join(cfg["task"]), what, *overrides(UNNAMED)])[:128]  # W&B takes no more
    return loggers(cfg["logger"], cfg, name=name, title=title, group=f"{STARTED:%Y-%m-%d_%H-%M-%S}", job=job)
