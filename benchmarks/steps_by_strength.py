"""Success and perplexity of guided diffusion over the number of steps, at several strengths: what effort buys.

    python benchmarks/steps_by_strength.py
    python benchmarks/steps_by_strength.py task=syntax_tree '+benchmark={steps: [10, 25], scales: [0.3, 1]}'

Effort is counted in token evaluations a sample: positions pushed forward through the network. `scale` multiplies the
configured strength. Targets are of the dev set, where settings are chosen.
"""

from functools import partial
from typing import Any

from common import asked, changed, command, measured, scored, write
from omegaconf import DictConfig

from diffcontrol.preparing import prepare

STEPS, SCALES = (8, 12, 18, 25, 50, 100, 200), (0.3, 1.0, 3.0)
COLUMNS = {"scale": "× strength", "steps": "steps", "token_evaluations": "token evaluations / sample",
           "seconds": "s / sample", "strict": "strict %", "strict_low": "from", "strict_high": "to",
           "perplexity": "perplexity", "perplexity_low": "from ", "perplexity_high": "to ",
           "grammatical": "grammatical %"}  # fmt: skip


def measure(cfg: DictConfig) -> None:
    wanted = asked(cfg, steps=list(STEPS), scales=list(SCALES))
    ready = prepare(changed(cfg, {}))
    rows = []
    for scale in wanted["scales"]:
        for steps in wanted["steps"]:
            full = changed(cfg, {"strength.scale": scale, "sampler.steps": steps})
            ready.methods["guided_diffusion"] = full["method"]["guided_diffusion"]
            score = partial(scored, ready, "guided_diffusion", cfg.num_samples)
            rows.append(measured({"scale": scale, "steps": steps}, score))

    def draw(figure: Any) -> None:
        figure.set_size_inches(9, 4)
        for axes, key in zip(figure.subplots(1, 2), ("strict", "perplexity"), strict=True):
            for scale in wanted["scales"]:
                own = [row for row in rows if row["scale"] == scale]
                effort = [row["token_evaluations"] for row in own]
                axes.plot(effort, [row[key] for row in own], "o-", label=f"{scale:g} × strength")
                axes.fill_between(effort, [row[f"{key}_low"] for row in own], [row[f"{key}_high"] for row in own],
                                  alpha=0.15)  # fmt: skip
            axes.set(xscale="log", xlabel="token evaluations a sample", ylabel=COLUMNS[key])
        axes.legend()

    n, k = cfg.targets.n, cfg.num_samples
    note = f"{n} targets ({cfg.targets['from']}) × {k} samples; 95 % intervals over targets."
    write(rows, COLUMNS, note, draw, tasks=list(cfg.task), targets=n, num_samples=k)


if __name__ == "__main__":
    command(measure, "targets.from=dev", "method=[guided_diffusion]")
