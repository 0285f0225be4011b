"""One experiment on one page: train what is missing, write with every method on the same targets, score, report."""

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from rich.text import Text

from diffcontrol import allowed, dashboard, fitting, offers, ranks, report
from diffcontrol.data.corpus import Corpus
from diffcontrol.evaluation import Evaluation, annotated, differences, evaluate, quality
from diffcontrol.launching import launched
from diffcontrol.logger import headline, log_results
from diffcontrol.method import Method
from diffcontrol.recording import described, own_strength, run_loggers
from diffcontrol.refused import Refused
from diffcontrol.requests import SPLIT_OF, choose, sources
from diffcontrol.store import Store, commit
from diffcontrol.task import ControlTask, Request
from diffcontrol.written import Written, alone_in

log = logging.getLogger(__name__)
STEPS_SHOWN = 10  # of a reverse process, in report.html
TRACED = 3  # requests for which log p(c | x_t) is logged at every step
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
    "targets.seed": allowed.whole(), "chunk": allowed.whole(1),
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


def run(cfg: DictConfig) -> float:
    """Runs the experiment that a config describes and returns the mean strict success of its first method.

    Raises:
        Refused: the config asks for something that cannot be done.
    """
    return compare(resolved(cfg))


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


def compare(cfg: dict[str, Any]) -> float:
    """Writes with every method on the same targets, scores, reports; returns what `run` returns.

    Raises:
        Refused: as `prepare`, or another run is at work in the same folder.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if not ranks.is_first():  # several devices train; one writes
        return _compare(cfg, folder)
    with alone_in(folder):
        try:
            return _compare(cfg, folder)
        except BaseException:
            if any((folder / "written").glob("*.jsonl")):
                log.warning("what is written is kept: the same command with hydra.run.dir=%s goes on from it", folder)
            raise


def _compare(cfg: dict[str, Any], folder: Path) -> float:
    ready = prepare(cfg)
    share = launched(cfg["trainer"])
    methods = {name: ready.store.build(node) for name, node in ready.methods.items()}
    if not (ranks.is_first() or share.rank):  # it trained, and cannot write into the first one's folder
        return math.nan
    written = {}
    for name, method in methods.items():
        node = ready.methods[name]
        written[name] = Written(folder / "written", name, node, ready.requests, cfg["num_samples"], share)
        written[name].write(method)
    if not ranks.is_first():
        return math.nan
    evaluations = _evaluations(ready, methods, written)
    results = _results(cfg, ready, methods, evaluations)
    requests = ready.requests
    samples = [sample for name, evaluation in evaluations.items() for sample in evaluation.samples(name, requests)]

    def denoising() -> list[dict[str, Any]]:
        steps = [
            {"method": name, "tasks": dict(requests[0].targets), "t": t, "words": words}
            for name, method in methods.items()
            for t, words in method.denoising(requests[0], STEPS_SHOWN)
        ]
        return annotated(steps, ready.tasks, ready.judges)

    def trajectories() -> list[dict[str, Any]]:
        return dashboard.trajectories(methods, requests[:TRACED])

    _write(cfg, folder, results, annotated(samples, ready.tasks, ready.judges), denoising, trajectories)
    return headline(results)["strict"]


def _evaluations(ready: Prepared, methods: Mapping[str, Method], written: Mapping[str, Written]
                 ) -> dict[str, Evaluation]:  # fmt: skip
    """Scores of what every method wrote, and of the targets' own sentences where there are any (gold)."""
    found: dict[str, Evaluation] = {}
    if gold := sources(ready.requests):
        found["gold"] = evaluate(gold, ready.requests, ready.tasks, ready.judges)
        found["gold"].extra = {"seconds_per_sample": 0.0, "token_evaluations_per_sample": 0.0, "models": {}}
    for name, method in methods.items():
        node, kept = ready.methods[name], written[name]
        found[name] = evaluate(kept.all(), ready.requests, ready.tasks, ready.judges)
        found[name].extra = {
            "seconds_per_sample": kept.seconds / kept.count,
            "token_evaluations_per_sample": kept.token_evaluations / kept.count,
            "models": ready.store.addresses(node), "strength": own_strength(node, ready.tasks),
            "parameters": _parameters(method), "training_seconds": ready.store.seconds(node),
        }  # fmt: skip
    return found


def _results(cfg: dict[str, Any], ready: Prepared, methods: Mapping[str, Method],
             evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:  # fmt: skip
    """What results.json says. Differences are taken from the first method that is not the floor."""
    chosen = [name for name in methods if name != "unguided"] or list(methods)
    return {
        **described(cfg, ready.tasks, len(ready.requests)), "commit": commit(),
        "methods": {name: evaluation.row() for name, evaluation in evaluations.items()},
        "differences": differences(evaluations, chosen[0]),
        "trained": ready.store.trained,
        "judges": quality(ready.judges, ready.corpus), "classifiers": dashboard.classifiers(methods),
        "teacher": ready.store.address(cfg["judge"]["teacher"]),
        **({"matched": cfg["matched"]} if cfg["matched"] else {}),
    }  # fmt: skip


def prepare(cfg: dict[str, Any], store: Store | None = None) -> Prepared:
    """Builds all but the methods, and says what cannot be done before anything of theirs is trained.

    store: where models are found and trained; None: the one that the config describes.

    Raises:
        Refused: a target is invalid, a method is not applicable, or something that is needed is missing.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    _check_values(cfg)
    wanted, store = cfg["targets"], store or store_of(cfg)
    tasks = {name: store.build(node) for name, node in cfg["task"].items()}
    corpus = store.build(cfg["data"])
    _ = corpus.vocabulary  # which a data set may refuse to make
    asked_from = store.build(wanted.get("data", cfg["data"]))
    if isinstance(wanted["from"], str) and wanted["from"] in SPLIT_OF:
        offers.check(tasks, asked_from, SPLIT_OF[wanted["from"]])
    requests = choose(tasks, asked_from, wanted["from"], wanted["n"], wanted["seed"], wanted["on_invalid"])
    methods = applicable(cfg["method"], tasks, corpus, cfg["on_unsupported"])
    # The judges come before the methods are built: a missing parser is found before anything is trained.
    judges = {"grammar": corpus.grammar(), **store.build(cfg["judge"])}
    return Prepared(store, tasks, corpus, requests, judges, methods)


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
            value = value[key]
        rule.check(name, value)
    fitting.check(cfg["trainer"])
    allowed.check({part: cfg[part] for part in ("data", "task", "judge", "method")})


def applicable(nodes: Mapping[str, Any], tasks: Mapping[str, ControlTask], corpus: Corpus,
               on_unsupported: str) -> dict[str, Any]:  # fmt: skip
    """The config nodes of the methods that are applicable to the tasks.

    on_unsupported: what happens to a method that is not: error, or skip (a warning says that it is left out, and why).

    Raises:
        Refused: a method is not applicable, or `on_unsupported` is neither error nor skip.
    """
    if on_unsupported not in ("error", "skip"):
        raise Refused(
            f"on_unsupported={on_unsupported}: allowed are error and skip (a method that is not applicable is left out)"
        )
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


def _parameters(method: Method) -> int:
    """Of all networks that it writes with, each counted once."""
    return sum({id(p): p.numel() for model in method.models() for p in model.parameters()}.values())


def _write(cfg: dict[str, Any], folder: Path, results: dict[str, Any], samples: list,
           denoising: Callable[[], list], trajectories: Callable[[], list]) -> None:  # fmt: skip
    OmegaConf.save(OmegaConf.create(cfg), folder / "config.yaml")
    report.write(folder, results, samples, denoising)
    log_results(run_loggers(cfg, "results", "evaluate"), results, samples, folder, trajectories)
    console = report.console()
    console.print(report.table(results), report.excerpt(results, samples), sep="\n")
    console.print("Results saved to", Text(str(folder), "bold"), "(report.html is the one to read)", soft_wrap=True)
    report.keep(console, folder)
