"""One experiment on one page: train what is missing, write with every method on the same targets, score, report."""

import logging
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffcontrol import report
from diffcontrol.data.corpus import Corpus
from diffcontrol.evaluation import Evaluation, differences, evaluate, quality
from diffcontrol.logger import log_results
from diffcontrol.method import Method
from diffcontrol.requests import choose, sources
from diffcontrol.store import Store, commit
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


def run(cfg: DictConfig) -> float:
    """Runs the experiment a config describes and returns the mean strict success of its first method."""
    nodes: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    store, tasks, corpus, requests, judges = prepare(cfg, nodes)
    methods = {name: store.build(node) for name, node in nodes["method"].items()}
    if int(os.environ.get("LOCAL_RANK", 0)):  # several devices train; one writes
        return math.nan
    evaluations: dict[str, Evaluation] = {}
    if gold := sources(requests):
        evaluations["gold"] = evaluate(gold, requests, tasks, judges)
        evaluations["gold"].extra = {"seconds_per_sample": 0.0, "token_evaluations_per_sample": 0.0, "models": {}}
    for name, method in methods.items():
        texts, cost = _timed(name, method, requests, cfg.num_samples)
        evaluations[name] = evaluate(texts, requests, tasks, judges)
        evaluations[name].extra = {**cost, "models": store.addresses(nodes["method"][name])}
    chosen = [name for name in methods if name != "unguided"] or list(methods)
    results = {
        "tasks": list(tasks), "data": HydraConfig.get().runtime.choices["data"], "seed": cfg.seed, "commit": commit(),
        "targets": {"from": _label(nodes["targets"]["from"]), "n": len(requests)}, "num_samples": cfg.num_samples,
        "methods": {name: evaluation.row() for name, evaluation in evaluations.items()},
        "differences": differences(evaluations, chosen[0]),
        "strength": nodes["strength"], "settings": _settings(), "trained": store.trained,
        "judges": quality(judges, corpus),
        "teacher": store.address(nodes["judge"]["teacher"]),
        **({"matched": nodes["matched"]} if nodes["matched"] else {}),
    }  # fmt: skip
    _write(cfg, nodes, folder, results, [s for n, e in evaluations.items() for s in e.samples(n, requests)])
    strict = [results["methods"][chosen[0]]["success"][task]["strict"]["mean"] for task in tasks]
    return sum(strict) / len(strict)


def prepare(cfg: DictConfig, nodes: Any) -> tuple[Store, dict, Corpus, list[Request], dict[str, Any]]:
    """What there is before any method: store, tasks, corpus, requests, judges."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    store = Store(cfg.paths.store, cfg.paths.pretrained, nodes["trainer"], lambda name: _logger(nodes, name))
    tasks = {name: store.build(node) for name, node in nodes["task"].items()}
    corpus = store.build(nodes["data"])
    annotated = store.build(nodes["targets"].get("data", nodes["data"]))
    wanted = cfg.targets
    requests = choose(tasks, annotated, nodes["targets"]["from"], wanted.n, wanted.seed, wanted.refused)
    _serving(nodes, tasks, corpus)  # what cannot be is said before anything is trained
    # before the methods: a parser that is missing is said before they are trained
    judges = {"grammar": corpus.grammar(), **store.build(nodes["judge"])}
    return store, tasks, corpus, requests, judges


def _serving(nodes: Any, tasks: Mapping[str, ControlTask], corpus: Corpus) -> None:
    """Leaves out methods that cannot serve the tasks, if `unserved` is to be skipped.

    Raises:
        ValueError: one cannot, and why; or `unserved` is neither error nor skip.
    """
    if nodes["unserved"] not in ("error", "skip"):
        raise ValueError(f"unserved={nodes['unserved']}: a method that cannot serve the tasks is an error, or skip")
    for name, node in list(nodes["method"].items()):
        try:
            Method.check_node(node, tasks, corpus)
        except ValueError as error:
            if nodes["unserved"] == "error":
                raise
            log.warning("method %s is left out: %s", name, error)
            del nodes["method"][name]


def _timed(name: str, method: Method, requests: list, n: int) -> tuple[list[list[list[str]]], dict[str, float]]:
    before = _evaluations(method)
    started = time.perf_counter()
    texts = method.generate(requests, n, title=name)
    seconds = time.perf_counter() - started
    after = _evaluations(method)
    count = len(requests) * n
    return texts, {"seconds_per_sample": seconds / count, "token_evaluations_per_sample": (after - before) / count}


def _evaluations(method: Method) -> int:
    """Token evaluations of its models so far."""
    return sum(getattr(model, "token_evaluations", 0) for model in method.models())


def _settings() -> dict[str, str]:
    """What the command line set, but for what results.json says elsewhere or what changes no result."""
    elsewhere = ("task", "data", "seed", "targets", "strength", "num_samples", "method", "logger", "paths", "trainer")
    pairs = (override.lstrip("+~").partition("=") for override in HydraConfig.get().overrides.task)
    return {key: value for key, _, value in pairs if key.split(".")[0] not in elsewhere}


def _label(source: Any) -> str:
    return source if isinstance(source, str) else "list"


def _logger(nodes: dict[str, Any], name: str) -> Any:
    return instantiate(nodes["logger"], name=name) if nodes.get("logger") else None


def _write(cfg: DictConfig, nodes: dict[str, Any], folder: Path, results: dict[str, Any], samples: list) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    report.write(folder, results, samples)
    log_results(_logger(nodes, "results"), results, samples, folder)
    console = report.console()
    console.print(report.table(results))
    console.print(f"All of it lies in [bold]{folder}[/bold]", soft_wrap=True, highlight=False)
