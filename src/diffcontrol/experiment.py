"""One experiment on one page: train what is missing, write with every method on the same targets, score, report."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.text import Text

from diffcontrol import dashboard, ranks, report
from diffcontrol.evaluation import Evaluation, annotated, differences, evaluate, quality
from diffcontrol.launching import launched
from diffcontrol.logger import headline, log_results
from diffcontrol.method import Method
from diffcontrol.preparing import Prepared, check_table, prepare, resolved
from diffcontrol.recording import described, own_strength, run_loggers
from diffcontrol.requests import sources
from diffcontrol.store import commit
from diffcontrol.training import Trainable
from diffcontrol.written import WRITTEN, Written, alone_in

STEPS_SHOWN = 10  # of a reverse process, in report.html
TRACED = 3  # requests for which log p(c | x_t) is logged at every step


def run(cfg: DictConfig) -> float:
    """Runs the experiment that a config describes and returns the mean strict success of its first method.

    Raises:
        Refused: the config asks for something that cannot be done.
    """
    return compare(resolved(cfg))


def compare(cfg: dict[str, Any]) -> float:
    """Writes with every method on the same targets, scores, reports; returns what `run` returns.

    Raises:
        Refused: as `prepare`, or another run is at work in the same folder.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if not ranks.is_first():  # several devices train; one writes
        return _compare(cfg, folder)
    with alone_in(folder):
        return _compare(cfg, folder)


def _compare(cfg: dict[str, Any], folder: Path) -> float:
    check_table(cfg)
    ready = prepare(cfg)
    share = launched(cfg["trainer"])
    written = {
        name: Written(folder / WRITTEN, name, ready.store.canonical(node), ready.requests, cfg["num_samples"], share)
        for name, node in ready.methods.items()
    }
    methods = {name: ready.store.build(node) for name, node in ready.methods.items()}
    if not (ranks.is_first() or share.rank):  # it trained, and cannot write into the first one's folder
        return math.nan
    for name, method in methods.items():
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


def _parameters(method: Method) -> int:
    """Of all networks that it writes with, each counted once."""
    running = [
        part for model in method.models() for part in (model.running() if isinstance(model, Trainable) else [model])
    ]
    return sum({id(p): p.numel() for part in running for p in part.parameters()}.values())


def _write(cfg: dict[str, Any], folder: Path, results: dict[str, Any], samples: list,
           denoising: Callable[[], list], trajectories: Callable[[], list]) -> None:  # fmt: skip
    OmegaConf.save(OmegaConf.create(cfg), folder / "config.yaml")
    report.write(folder, results, samples, denoising)
    log_results(run_loggers(cfg, "results", "evaluate"), results, samples, folder, trajectories)
    console = report.console()
    console.print(report.table(results), report.excerpt(results, samples), sep="\n")
    console.print("Results saved to", Text(str(folder), "bold"), "(report.html is the one to read)", soft_wrap=True)
    report.keep(console, folder)
