"""One change at a time to guided diffusion, and what it does to guided and unguided texts: a table of ablations.

    python benchmarks/ablations.py
    python benchmarks/ablations.py task=syntax_tree '+benchmark={groups: [sampled]}'
    python benchmarks/ablations.py task=syntax_tree targets.n=30 '+benchmark={rows: [no self-conditioning, noise 1]}'

`trained` rows train a language model and a classifier each, and so does the row that they are compared with, all with
`budget=quick`: a quarter of an hour a row on one core of two. `sampled` rows write with the models that ship. Models
stay in the store and rows in the run's folder, so after a stop the same command with `hydra.run.dir=<folder>` goes on.
Targets are of the dev set, where settings are chosen.
"""

from functools import partial
from typing import Any

from common import asked, command, judged_alike, measured, reach, scored, write
from omegaconf import DictConfig

from diffcontrol.preparing import prepare
from diffcontrol.refused import Refused

PLAIN = "as configured"
TRAINED: dict[str, list[str]] = {
    PLAIN: [],
    "L_e2e-simple for cross-entropy": ["objective=end_to_end"],
    "no self-conditioning": ["objective.self_conditioning=0"],
    "self-conditioning in nine of ten steps": ["objective.self_conditioning=0.9"],
    "input x_t alone, no likelihood": ["objective.likelihood=false"],
    "no convolutions": ["+model.kernel=1"],
    "embeddings of 16": ["model.embedding=16"],
    "embeddings of 64": ["model.embedding=64"],
    "linear schedule": ["schedule=linear"],
    "cosine schedule": ["schedule=cosine"],
    "all times in training": ["schedule.margin=null"],
    "AdamW for Muon": ["lm.optim.muon=0", "lm.optim.lr=2e-3"],
    "classifier with a network of its own": ["encoder=noisy"],
}
SAMPLED: dict[str, list[str]] = {
    "10 steps": ["sampler.steps=10"],
    "50 steps": ["sampler.steps=50"],
    "200 steps": ["sampler.steps=200"],
    "guided at every step": ["guidance.stride=1"],
    "lengths of its own, temperature 1.3": ["lengths=model"],
    "temperature 1": ["decoding.temperature=1"],
    "noise 1": ["sampler.noise=1"],
    "temperature 1, noise 1": ["decoding.temperature=1", "sampler.noise=1"],
    "x̂₀ always clamped": ["decoding.clamp=1"],
    "deterministic (DDIM, η = 0)": ["sampler.eta=0"],  # η = 1, the default, is DDPM
    "Langevin, one inner step": ["guidance=langevin", "guidance.inner=1"],
    "Langevin, three inner steps": ["guidance=langevin", "guidance.inner=3"],
    "balanced gradients": ["guidance=balanced"],
    "tilt": ["guidance=tilt"],
    "reconstruction": ["guidance=reconstruction"],
    "particles": ["guidance=particles"],
}
GROUPS = {"trained": (["budget=quick"], TRAINED), "sampled": ([], {PLAIN: []} | SAMPLED)}
COLUMNS = {"group": "group", "changed": "changed", "strict": "strict %", "perplexity": "perplexity",
           "grammatical": "grammatical %", "free_perplexity": "unguided perplexity",
           "free_grammatical": "unguided grammatical %", "token_evaluations": "token evaluations / sample",
           "seconds": "s / sample", "minutes": "minutes of training"}  # fmt: skip


def measure(cfg: DictConfig) -> None:
    names = [name for _, rows in GROUPS.values() for name in rows]
    wanted = asked(cfg, rows=names, groups=list(GROUPS))
    for key, known in (("rows", names), ("groups", GROUPS)):
        if unknown := set(wanted[key]) - set(known):
            raise Refused(f"+benchmark.{key}={sorted(unknown)}: allowed are {', '.join(dict.fromkeys(known))}")
    rows = [
        measured({"group": group, "changed": name, "overrides": overrides}, partial(row, *shared, *overrides))
        for group, (shared, changes) in GROUPS.items()
        for name, overrides in changes.items()
        if group in wanted["groups"] and name in wanted["rows"]
    ]

    def draw(figure: Any) -> None:
        figure.set_size_inches(9, 1.5 + 0.3 * len(rows))
        for axes, key in zip(figure.subplots(1, 2, sharey=True), ("strict", "perplexity"), strict=True):
            error = reach(rows, key, f"{key}_low", f"{key}_high")
            axes.errorbar([row[key] for row in rows], range(len(rows)), xerr=error, fmt="o")
            axes.set(xlabel=COLUMNS[key], yticks=range(len(rows)))
            axes.set_yticklabels([f"{row['changed']} ({row['group']})" for row in rows])
        axes.invert_yaxis()

    n, k = cfg.targets.n, cfg.num_samples
    note = (f"{n} targets ({cfg.targets['from']}) × {k} samples; 95 % intervals stand in the JSON file and the figure. "
            "Compare rows of a group: the trained ones have models of budget=quick.")  # fmt: skip
    write(rows, COLUMNS, note, draw, tasks=list(cfg.task), targets=n, num_samples=k)


def row(*overrides: str) -> dict[str, Any]:
    """What guided diffusion of these overrides writes, and its language model alone."""
    cfg = judged_alike(*overrides)
    ready = prepare(cfg)
    guided, free = (scored(ready, name, cfg["num_samples"]) for name in ("guided_diffusion", "unguided"))
    seconds = ready.store.seconds(ready.methods["guided_diffusion"])
    return guided | {f"free_{key}": value for key, value in free.items()} | {"minutes": seconds / 60}


if __name__ == "__main__":
    command(measure, "targets.from=dev", "method=[guided_diffusion]")
