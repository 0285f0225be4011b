"""What stands before the first method writes: tasks, texts, requests, judges, and the methods that are applicable.

Whatever cannot be done is said here, before anything of a method is trained.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from diffcontrol import allowed, logger, offers, trainer_options
from diffcontrol.data.corpus import Corpus
from diffcontrol.method import Method
from diffcontrol.recording import run_loggers
from diffcontrol.refused import Refused
from diffcontrol.requests import ON_INVALID, SPLIT_OF, choose
from diffcontrol.store import Store
from diffcontrol.task import ControlTask, Request

log = logging.getLogger(__name__)
NOISE = (  # what Lightning and transformers say of things that are meant
    "Checkpoint directory .* exists and is not empty",
    "The number of training batches .* is smaller than the logging interval",
    ".*does not have many workers",
    "You're resuming from a checkpoint that ended before the epoch ended",  # batches are functions of the step
    "Be aware that when using `ckpt_path`",
    r"Found \d+ module\(s\) in eval mode",
    "Total length of .* across ranks is zero",
    ".*TreeCRF.* does not define `arg_constraints`",
    "`isinstance.treespec, LeafSpec.` is deprecated",
)
VALUES = {
    "num_samples": allowed.whole(1), "seed": allowed.whole(), "targets.n": allowed.optional(allowed.whole(1)),
    "targets.seed": allowed.whole(), "chunk": allowed.whole(1), "targets.on_invalid": ON_INVALID,
    "on_unsupported": allowed.error_or_skip("a method that is not applicable"),
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """Everything that stands before the first method writes."""

    store: Store
    tasks: dict[str, ControlTask]
    corpus: Corpus
    requests: list[Request]
    judges: dict[str, Any]
    methods: dict[str, Any]  # name → config node, of those that are applicable to the tasks


def check_table(cfg: Mapping[str, Any]) -> None:
    """For whoever makes a table, before anything is trained.

    Raises:
        Refused: the judge of fluency is missing, or the package of a logger.
    """
    logger.check(cfg["logger"] or {})
    if not (cfg["judge"] or {}).get("teacher"):
        raise Refused("judge: judge.teacher is missing, but its perplexity stands in every table; leave judge as it is")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation in it resolved. Nothing behind this line sees OmegaConf.

    Raises:
        Refused: one of our resolvers refused.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except InterpolationResolutionError as error:  # OmegaConf puts what a resolver raises into exceptions of its own
        found: BaseException | None = error
        while found and not isinstance(found, Refused):
            found = found.__context__
        raise found or Refused(f"the configuration cannot be resolved: {str(error).splitlines()[0]}") from None


def prepare(cfg: dict[str, Any], store: Store | None = None) -> Prepared:
    """Builds all but the methods, and says what cannot be done before anything of theirs is trained.

    store: where models are found and trained; None: the one that the config describes.

    Raises:
        Refused: a target is invalid, a method is not applicable, or something that is needed is missing.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    _check_values(cfg)
    store = store or store_of(cfg)
    tasks = {name: store.build(node) for name, node in cfg["task"].items()}
    corpus = store.build(cfg["data"])
    _ = corpus.vocabulary  # which a data set may refuse to make
    # A treebank trains its parser once its annotations are asked for; then the methods are looked at first.
    late = asked_from(cfg, store).made_by_store
    requests = [] if late else requests_of(cfg, store, tasks)
    methods = applicable(cfg["method"], tasks, corpus, cfg["on_unsupported"])
    requests = requests_of(cfg, store, tasks) if late else requests
    # The judges come before the methods are built: a missing parser is found before a model of theirs is trained.
    judges = {"grammar": corpus.grammar(), **store.build(cfg["judge"])}
    return Prepared(store, tasks, corpus, requests, judges, methods)


def asked_from(cfg: Mapping[str, Any], store: Store) -> Corpus:
    """The texts whose annotations are asked for: those of `targets.data`, or the data's own."""
    return store.build(cfg["targets"].get("data", cfg["data"]))


def requests_of(cfg: Mapping[str, Any], store: Store, tasks: Mapping[str, ControlTask]) -> list[Request]:
    """What `targets` of a config asks for.

    Raises:
        Refused: a target is invalid, or there is none.
    """
    wanted, corpus = cfg["targets"], asked_from(cfg, store)
    if isinstance(wanted["from"], str) and wanted["from"] in SPLIT_OF:
        offers.check(tasks, corpus, SPLIT_OF[wanted["from"]])
    return choose(tasks, corpus, wanted["from"], wanted["n"], wanted["seed"], wanted["on_invalid"])


def store_of(cfg: Mapping[str, Any]) -> Store:
    """The store that a config describes.

    Raises:
        Refused: there is no such folder of pretrained models.
    """
    paths = cfg["paths"]
    return Store(paths["store"], paths["pretrained"], cfg["trainer"], lambda name: run_loggers(cfg, name, "train"))


def _check_values(cfg: dict[str, Any]) -> None:
    """Everything that can be told of the numbers themselves, before any of them is used."""
    if not cfg["task"]:
        raise Refused("task=[]: at least one task is needed")
    for name, rule in VALUES.items():
        value: Any = cfg
        for key in name.split("."):
            allowed.group(value, name)
            value = value[key]
        rule.check(name, value)
    trainer_options.check(cfg["trainer"])
    allowed.check({part: cfg[part] for part in ("data", "task", "judge", "method")})


def applicable(nodes: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus,
               on_unsupported: str) -> dict[str, Any]:  # fmt: skip
    """The config nodes of the methods that are applicable to the tasks.

    on_unsupported: what happens to a method that is not: error, or skip (a warning says that it is left out, and why).

    Raises:
        Refused: a method is not applicable.
    """
    found = {}
    for name, node in nodes.items():
        try:
            Method.check_node(node, tasks, corpus)
        except Refused as refused:
            if on_unsupported == "error":
                raise
            log.warning("method %s is left out: %s", name, refused)
        else:
            found[name] = node
    return found
