"""Lightning loggers: built for each training and for the evaluation, and handed the final results.

Each gets what it has a method for, so a new logger needs no branch.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from diffcontrol.refused import Refused
from diffcontrol.report.layout import REFERENCES, overall

QUIET = [  # loggers whose constructors start no run yet
    f"pytorch_lightning.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger", "WandbLogger")
]
ROWS = 1000  # of the sample table, shared by all methods: enough to read; samples.jsonl holds all


def loggers(nodes: Mapping[str, Mapping], config: Mapping, **said: str) -> list[Any]:
    """The loggers of one training or evaluation, each of which knows the configuration as flat keys.

    nodes: logger → its config node; a value `<name>` in it is filled in with what is `said` of that name.

    Raises:
        Refused: a logger's package is not installed.
    """
    made = []
    for key, node in nodes.items():
        filled = {k: said.get(v[1:-1], v) if isinstance(v, str) and v[:1] == "<" else v for k, v in node.items()}
        logger = _made(key, filled)
        logger.log_hyperparams(flat(config))
        made.append(logger)
    return made


def check(nodes: Mapping[str, Mapping]) -> None:
    """Before anything is trained: makes each of the QUIET loggers once, to see that it can be made.

    Raises:
        Refused: a logger's package is not installed.
    """
    for key, node in nodes.items():
        if node.get("_target_") in QUIET:
            _made(key, node)


def _made(key: str, node: Mapping) -> Any:
    try:
        return instantiate(node)
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise Refused(f"logger={key}: its package is not installed; pip install 'diffcontrol[{key}]'") from None
        raise


def flat(config: Mapping) -> dict[str, Any]:
    """`lm/optim/lr` → value; lists as text. W&B advises against dots in such names."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{name}": leaf for name, leaf in flat(value).items()}
        else:
            found[str(key)] = str(value) if isinstance(value, list | tuple) else value
    return found


def log_results(loggers: Iterable[Any], results: Mapping, samples: Sequence[Mapping], folder: Path,
                trajectories: Callable[[], Sequence[Mapping]] = tuple) -> None:  # fmt: skip
    """Metrics to every logger; tables (of samples, of trajectories, of how well classifiers read noisy texts) and the
    plot to those that take tables and images; then closes them. `trajectories` computes its table, where one is taken.

    Beside every method's numbers stand those of the first that is no reference, by one name in all runs (`strict`,
    `perplexity`), so that a panel over a sweep can compare them.
    """
    plot = Path(folder) / "tradeoff.png"
    for logger in loggers:
        logger.log_metrics({**flatten(results["methods"]), **headline(results), **classifier_metrics(results)})
        if hasattr(logger, "log_table"):
            columns, rows = sample_table(first_of_each(samples, ROWS))
            logger.log_table("samples", columns=columns, data=rows)
            for name, lines in (("trajectories", trajectories()), ("classifiers", results.get("classifiers", ()))):
                if lines:
                    logger.log_table(name, columns=list(lines[0]), data=[list(line.values()) for line in lines])
        if hasattr(logger, "log_image") and plot.exists():
            logger.log_image("tradeoff", images=[str(plot)])
        close(logger)


def classifier_metrics(results: Mapping) -> dict[str, float]:
    """`classifier/guided_diffusion/length/accuracy/t=0.5` → how often the control classifier of a method and task is
    right at that noise level."""
    return {
        f"classifier/{row['method']}/{row['task']}/accuracy/t={row['t']}": row["accuracy"]
        for row in results.get("classifiers", ())
    }


def headline(results: Mapping) -> dict[str, float]:
    """Mean strict success, of all tasks at once, and fluency, of the first method that is no reference, or else of the
    last one, the unguided one."""
    names = list(results["methods"])
    method = results["methods"][next((name for name in names if name not in REFERENCES), names[-1])]
    fluency = flatten(method.get("fluency", {}))
    return {
        "strict": overall(method["success"])["strict"]["mean"],
        **{k: fluency[k] for k in ("perplexity", "grammatical") if k in fluency},
    }


def close(*loggers: Any) -> None:
    """Writes out and ends the loggers' runs: W&B has one run a process, which the next logger would else go on with."""
    for logger in loggers:
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


def first_of_each(samples: Sequence[Mapping], most: int) -> list[Mapping]:
    """The first samples of each method, all equally many at most, together `most`."""
    share = max(1, most // max(1, len({sample.get("method") for sample in samples})))
    seen: Counter[Any] = Counter()
    return [sample for sample in samples if (seen.update([name := sample.get("method")]) or seen[name] <= share)]


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
