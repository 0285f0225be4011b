"""Guided sampling of every chosen method against `paper`: seconds and token evaluations a sample, and what they buy.

    python benchmarks/sampling.py
    python benchmarks/sampling.py task=parts_of_speech 'method=[guided_diffusion,paper,fudge]' targets.n=50

It takes what `run.py` takes. All methods write for the same targets, one after the other, in one process. Models that
are missing are trained first, which is not in the seconds. `vs_paper` is how many times faster than `paper` a row is.
"""

import json
from pathlib import Path
from typing import Any

from common import command, write
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffcontrol import experiment
from diffcontrol.report.layout import overall

COLUMNS = {
    "method": "method",
    "seconds": "s / sample",
    "vs_paper": "× faster than paper",
    "token_evaluations": "token evaluations / sample",
    "strict": "strict %",
    "perplexity": "perplexity",
}


def measure(cfg: DictConfig) -> None:
    experiment.run(cfg)
    folder = Path(HydraConfig.get().runtime.output_dir)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    written = {name: row for name, row in results["methods"].items() if name != "gold"}
    paper = written["paper"]["seconds_per_sample"] if "paper" in written else None
    rows = [
        {
            "method": name,
            "seconds": row["seconds_per_sample"],
            "vs_paper": paper / row["seconds_per_sample"] if paper else None,
            "token_evaluations": row["token_evaluations_per_sample"],
            "strict": 100 * overall(row["success"])["strict"]["mean"],
            "perplexity": row["fluency"]["perplexity"]["mean"],
        }
        for name, row in written.items()
    ]
    n, k = results["targets"]["n"], results["num_samples"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh([row["method"] for row in rows], [row["seconds"] for row in rows])
        for place, row in enumerate(rows):
            axes.text(row["seconds"], place, f" {row['strict']:.0f} % at {row['perplexity']:.1f}", va="center")
        axes.set(xscale="log", xlabel="seconds per sample (beside it: strict success at perplexity)")
        axes.set_title(f"{' + '.join(results['tasks'])}, {n} targets × {k} samples")
        axes.margins(x=0.3)

    note = (f"{n} targets × {k} samples, all of them in chunks as configured. A sample costs less in a full chunk, and "
            "the order of methods matters little: `unguided` goes first and warms up.")  # fmt: skip
    write(rows, COLUMNS, note, draw, tasks=results["tasks"], targets=n, num_samples=k, data=results["data"])


if __name__ == "__main__":
    command(measure, "method=[guided_diffusion,paper,fudge]", "targets.n=10")
