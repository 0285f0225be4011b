"""Time and peak memory of one method against the number of targets, of samples, of positions, and the width.

    python benchmarks/scaling.py
    python benchmarks/scaling.py method=fudge '+benchmark={targets: [5, 50], width: [64, 256]}'

One of the four varies at a time; the others stay at 10 targets, 2 samples, and the length and width of the config.
The networks are not trained, as how long they take does not depend on their weights. As no text of theirs ends, all
positions are computed to the last step: trained networks take less, by what `Sampler` leaves out behind a text's end.
"""

from collections.abc import Callable
from typing import Any

import torch
from common import Untrained, asked, changed, command, now, untrained, write
from omegaconf import DictConfig, OmegaConf
from torch.profiler import ProfilerActivity, profile

TARGETS, SAMPLES = 10, 2
VARIED = {"targets": [5, 10, 25, 50], "samples": [1, 2, 5, 10], "positions": [16, 24, 42], "width": [64, 128, 256]}
KEYS = {"positions": "data.length", "width": "model.width"}
COLUMNS = {"varied": "varied", "value": "value", "seconds": "s", "per_sample": "s / sample",
           "token_evaluations": "token evaluations / sample", "megabytes": "peak MB"}  # fmt: skip


def measure(cfg: DictConfig) -> None:
    varied = asked(cfg, **VARIED)
    name = next(str(name) for name in cfg.method if name != "unguided")
    store = Untrained(changed(cfg, {})["trainer"])
    rows = [point(store, cfg, name, key, value) for key, values in varied.items() for value in values]

    def draw(figure: Any) -> None:
        figure.set_size_inches(3 * len(varied), 5)
        panels = figure.subplots(2, len(varied), squeeze=False, sharey="row")
        for column, key in enumerate(varied):
            own = [row for row in rows if row["varied"] == key]
            for panel, of in zip(panels[:, column], ("seconds", "megabytes"), strict=True):
                panel.plot([row["value"] for row in own], [row[of] for row in own], marker="o")
                panel.set(ylim=(0, None))
            panels[1, column].set_xlabel(key)
        panels[0, 0].set_ylabel("seconds")
        panels[1, 0].set_ylabel("peak memory of tensors, MB")
        figure.suptitle(f"{name}, untrained")

    note = ("Random weights: no text ends, so all positions are computed to the last step. Memory is that of tensors, "
            "without the models' own, of diffusion while two steps of the sampler are taken.")  # fmt: skip
    write(rows, COLUMNS, note, draw, method=name, tasks=list(cfg.task), sampler=OmegaConf.to_container(cfg.sampler))


def point(store: Untrained, cfg: DictConfig, name: str, key: str, value: int) -> dict[str, Any]:
    """One row: everything as configured but for one number."""
    settings = {KEYS[key]: value} if key in KEYS else {}
    targets, samples = (value if key == "targets" else TARGETS), (value if key == "samples" else SAMPLES)
    full = changed(cfg, settings)
    method, requests = untrained(store, full, name, targets)
    method.generate(requests[:1], 1)  # warms up
    before = sum(getattr(model, "token_evaluations", 0) for model in method.models())
    started = now()
    method.generate(requests, samples)
    seconds, count = now() - started, len(requests) * samples
    evaluations = sum(getattr(model, "token_evaluations", 0) for model in method.models()) - before
    brief, requests = untrained(store, changed(cfg, settings | {"sampler.steps": 2}), name, targets)
    peak = peak_bytes(lambda: brief.generate(requests, samples))
    return {"varied": key, "value": value, "targets": len(requests), "samples": samples, "seconds": seconds,
            "per_sample": seconds / count, "token_evaluations": evaluations / count,
            "megabytes": peak / 1e6}  # fmt: skip


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most that tensors made by `work` held at once."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


if __name__ == "__main__":
    command(measure, "method=[guided_diffusion]", "data.size=2000")
