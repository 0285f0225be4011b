"""What longer training buys each kind of language model: its free texts after every budget of conf/budget.

    python benchmarks/budgets.py
    python benchmarks/budgets.py targets.n=50 '+benchmark={budgets: [quick, default], models: [diffusion, causal]}'

Models: the diffusion LM, the masked diffusion LM and the causal LM, each with its own recipe, all of them unguided.
Those that are missing are trained, for hours with `budget=long`. They stay in the store and rows in the run's folder,
so after a stop the same command with `hydra.run.dir=<folder>` goes on.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from common import asked, command, judged_alike, measured, scored, write
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffcontrol.preparing import Prepared, prepare
from diffcontrol.refused import Refused

BUDGETS = ("quick", "default", "long")
COLUMNS = {"model": "model", "budget": "budget", "steps": "steps", "minutes": "minutes of training",
           "perplexity": "perplexity", "perplexity_low": "from", "perplexity_high": "to",
           "entropy": "word entropy, bits", "grammatical": "grammatical %", "seconds": "s / sample"}  # fmt: skip


def unguided(cfg: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Kind of model → the node of a method that writes with it alone."""
    alone = {"_target_": "diffcontrol.methods.constrained.Constrained", "lm": cfg["causal_lm"], "tasks": {},
             "chunk": cfg["chunk"], "seed": cfg["seed"]}  # fmt: skip
    return {
        "diffusion": cfg["method"]["unguided"],
        "masked": cfg["method"]["masked_unguided"],
        "causal": alone,
    }


def measure(cfg: DictConfig) -> None:
    wanted = asked(cfg, budgets=list(BUDGETS), models=["diffusion", "masked", "causal"])
    rows = []
    for budget in wanted["budgets"]:
        full = judged_alike(f"budget={budget}")
        nodes, ready = unguided(full), cache(partial(prepare, full))
        if unknown := set(wanted["models"]) - set(nodes):
            raise Refused(f"+benchmark.models={sorted(unknown)}: allowed are {', '.join(nodes)}")
        for model in wanted["models"]:
            what = {"model": model, "budget": budget, "steps": nodes[model]["lm"]["optim"]["steps"]}
            rows.append(measured(what, partial(trained, ready, model, nodes[model], full["num_samples"])))

    def draw(figure: Any) -> None:
        figure.set_size_inches(9, 4)
        for axes, key in zip(figure.subplots(1, 2), ("perplexity", "entropy"), strict=True):
            for model in wanted["models"]:
                own = [row for row in rows if row["model"] == model]
                axes.plot([row["minutes"] for row in own], [row[key] for row in own], "o-", label=model)
            axes.set(xscale="log", xlabel="minutes of training", ylabel=COLUMNS[key])
        axes.legend()

    n, k = cfg.targets.n, cfg.num_samples
    note = f"{n} × {k} unguided texts of each; 95 % intervals. Minutes are those of provenance."
    write(rows, COLUMNS, note, draw, data=HydraConfig.get().runtime.choices["data"], targets=n, num_samples=k)


def trained(ready: Callable[[], Prepared], model: str, node: dict[str, Any], samples: int) -> dict[str, Any]:
    """What a model writes, and how long it was trained."""
    prepared = ready()
    prepared.methods[model] = node
    return scored(prepared, model, samples) | {"minutes": prepared.store.seconds(node) / 60}


if __name__ == "__main__":
    command(measure, "method=[masked]", "targets.n=100")
