"""Hands final results to a Lightning logger: each gets what it has a method for, so a new logger needs no branch."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

ROWS = 1000  # of the sample table: enough to read; samples.jsonl holds all


def log_results(logger: Any, results: Mapping, samples: Iterable[Mapping], folder: Path) -> None:
    """Metrics to every logger; the sample table and the plot to those that take tables and images; then closes it."""
    if not logger:
        return
    logger.log_metrics(flatten(results["methods"]))
    if hasattr(logger, "log_table"):
        columns, rows = sample_table(islice(samples, ROWS))
        logger.log_table("samples", columns=columns, data=rows)
    plot = Path(folder) / "tradeoff.png"
    if hasattr(logger, "log_image") and plot.exists():
        logger.log_image("tradeoff", images=[str(plot)])
    close(logger)


def close(logger: Any) -> None:
    """Writes out and ends the logger's run: W&B has one run a process, which the next logger would else go on with."""
    logger.save()
    logger.finalize("success")
    if callable(finish := getattr(logger.experiment, "finish", None)):
        finish()


def flatten(methods: Mapping) -> dict[str, float]:
    """`fudge/success/length/strict` → mean, for every number of every method; intervals stay in results.json."""
    flat: dict[str, float] = {}
    for key, value in methods.items():
        if isinstance(value, Mapping):
            inner = {"": value["mean"]} if "ci95" in value else flatten(value)
            flat |= {f"{key}/{name}".rstrip("/"): number for name, number in inner.items()}
        elif isinstance(value, int | float):
            flat[key] = float(value)
    return flat


def sample_table(samples: Iterable[Mapping]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: method, row, sample, text, target and scores of each task, nll, grammatical where judged."""
    flat = [_flat_sample(sample) for sample in samples]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    return columns, [[row.get(name) for name in columns] for row in flat]


def _flat_sample(sample: Mapping) -> dict[str, Any]:
    row: dict[str, Any] = {name: sample.get(name) for name in ("method", "row", "sample")}
    row["text"] = " ".join(sample.get("words", ()))
    row |= {f"target/{task}": str(target) for task, target in sample.get("tasks", {}).items()}
    row |= {f"score/{name}": number for name, number in flatten(sample.get("scores", {})).items()}
    return row | {name: sample[name] for name in ("nll", "grammatical") if name in sample}
