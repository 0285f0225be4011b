"""What conf/ can say beyond Hydra's own means. `register` is called once, before a configuration is composed."""

from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from diffcontrol import allowed
from diffcontrol.places import shipped
from diffcontrol.refused import Refused

OPEN = ("columns", "fields", "forms", "labels", "rename")  # of data=table


def register() -> None:
    """Makes `${task_names:}`, `${one_or_several:a,b}`, `${only_if:flag,nodes}`, `${per_task:template}` (or
    `${per_task:template,lm}`), `${strengths:group,default}`, `${own_model_seed:3}`, `${limited:texts,split}` and
    `${shipped:}` known to OmegaConf, and `open_table` to Hydra; calling it again changes nothing."""
    resolvers: dict[str, Callable[..., Any]] = {
        "task_names": task_names,
        "one_or_several": one_or_several,
        "only_if": only_if,
        "per_task": per_task,
        "strengths": strengths,
        "own_model_seed": own_model_seed,
        "shipped": shipped,
        "limited": limited,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, use_cache=False, replace=True)
    # A config that says nothing but that these dictionaries take keys which no file names: data.labels.tone=tone
    ConfigStore.instance().store("open_table", {key: _open() for key in OPEN})


def _open() -> DictConfig:
    return OmegaConf.create({}, flags={"struct": False})


def task_names(*, _root_: DictConfig) -> str:
    """The chosen tasks, joined by a plus sign."""
    return "+".join(_root_.task)


def one_or_several(one: Any, several: Any, *, _root_: DictConfig) -> Any:
    """`one` where a single task is chosen, `several` where texts are to meet several at once."""
    return one if len(_root_.task) < 2 else several


def only_if(flag: Any, nodes: Any) -> dict[str, Any]:
    """`nodes` where the flag is set, none elsewhere: models that a method needs only then are neither trained nor
    counted among its models."""
    return _plain(nodes) if flag else {}


def per_task(template: str, lm: str = "", *, _root_: DictConfig) -> dict[str, Any]:
    """For every chosen task what the template `template` describes: task → node.

    A template is a top-level node of the configuration, as conf/predictor/default.yaml makes one. Its `task` becomes
    the task, and its `data` the data that the task reads (or `models_read.<task>`). What
    `task_overrides.<task>.<template>` says is merged into it, or replaces it if it describes an object itself (has a
    `_target_`). A template with `for_every_task: true` was chosen on the command line for all tasks, so it is not
    replaced. So no task names the models that methods train for it, and no method names a task.

    lm: a top-level node, the language model that stands in place of the templates' own; a node that has none gets none.

    The dictionary is plain and resolved, as OmegaConf does not resolve again what a resolver returns.

    Raises:
        Refused: the configuration has no such template, or a task overrides what the template does not have.
    """
    if not isinstance(_root_.get(template), DictConfig):
        raise Refused(f"${{per_task:{template}}}: the configuration has no template {template!r} at its top level")
    base = _plain(_root_[template])
    for_every_task = base.pop("for_every_task", False)
    overrides = _root_.get("task_overrides") or {}
    found = {}
    for name in _root_.task:
        own = _plain((overrides.get(name) or {}).get(template) or {})
        own.pop("for_every_task", None)
        if "_target_" not in own:
            node = _merged(base, _declared(own, base, f"task_overrides.{name}.{template}"))
        else:
            node = dict(base if for_every_task else own)
        node["task"] = _plain(_root_.task[name])
        reads = (_root_.get("models_read") or {}).get(name) or _root_.task[name].get("data")
        if "data" in node and reads is not None:
            node["data"] = _plain(reads)
        if lm and "lm" in node:
            node["lm"] = _plain(_root_[lm])
        found[name] = node
    return found


def _declared(own: dict[str, Any], base: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`own`, if the template has all its keys."""
    for key in own:
        if key not in base:
            raise Refused(f"{where}.{key}: the template has no {key}, only {', '.join(k for k in base if k[0] != '_')}")
    return own


def limited(texts: int, split: str, *, _root_: DictConfig) -> int:
    """`texts`, or `limit.<split>` where that is less.

    Raises:
        Refused: `limit` is a single value, or `limit.<split>` is no whole number from 1.
    """
    limit = _settings(_root_, "limit", f"limit.{split}").get(split)
    allowed.optional(allowed.whole(1)).check(f"limit.{split}", limit)
    return texts if limit is None else min(texts, limit)


def strengths(group: str, default: float, *, _root_: DictConfig) -> dict[str, float]:
    """task → strength, as `strength.<group>` says; `default` for tasks that it does not name. So a new task needs no
    number, and a new guidance no edit of a task.

    Raises:
        Refused: `strength` or `strength.<group>` is a single value.
    """
    groups = _settings(_root_, "strength", f"strength.{group}")
    return {"default": default} | _settings(groups, group, f"strength.{group}.{next(iter(_root_.task), 'default')}")


def own_model_seed(own: int, *, _root_: DictConfig) -> int:
    """A recipe's own seed, moved by the run's `model_seed` so far that it is never another recipe's: a causal LM with
    the seed of the teacher would be the teacher.

    Raises:
        Refused: the run's `model_seed` is no whole number.
    """
    chosen = _root_.get("model_seed", 0)
    if not isinstance(chosen, int) or isinstance(chosen, bool):
        raise Refused(f"model_seed={chosen}: a whole number is needed")
    return own + 100 * chosen


def _settings(node: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    """What is set in the group `node[key]`, none where there is no such group; `name` is one of its settings."""
    found = {} if node.get(key) is None else node[key]
    allowed.group(found, name)
    return _plain(found)


def _plain(node: Any) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)  # type: ignore


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`one` with what `other` says, key by key; of a node that describes another object only the latter is kept."""
    found = dict(one)
    for key, value in other.items():
        mine = found.get(key)
        if isinstance(mine, Mapping) and isinstance(value, Mapping) and "_target_" not in value:
            value = _merged(mine, value)
        found[key] = value
    return found
