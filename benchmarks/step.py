"""Where the time of a guided reverse step goes, for every guidance in conf/guidance.

    python benchmarks/step.py
    python benchmarks/step.py task=parts_of_speech sampler.steps=20 '+benchmark={controls: [exact], guidances: [tilt]}'

Each guidance follows the task's learned control (`control=own`) and, where the task has an automaton, the exact one
(`control=exact`). The parts are what the code calls them: the network's forward pass; the control (the head, or the
automaton's sums); the backward pass through both; the transition, its draw and the decoding; and the rest, which is the
guidance's own arithmetic. The networks are not trained, as how long they take does not depend on their weights.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import ROOT, Untrained, asked, command, composed, now, untrained, write
from omegaconf import DictConfig

from diffcontrol.chain import Chain
from diffcontrol.refused import Refused

PARTS = ("denoiser", "control", "backward", "transition", "rest")
COLUMNS = {"guidance": "guidance", "control_by": "control", "milliseconds": "ms / step", "share": "× unguided"} | {
    part: f"{part} ms" for part in PARTS
}
GUIDANCES = sorted(path.stem for path in (ROOT / "conf" / "guidance").glob("*.yaml"))


class Stopwatch:
    """Seconds of each part; while a part runs within another one, the outer one stands still."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stack = ["rest"]
        self.since = now()

    def _turn(self) -> None:
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) - self.since
        self.since = now()
        self.seconds[self.stack[-1]] += self.since

    def start(self) -> None:
        self.seconds, self.stack, self.since = {}, ["rest"], now()

    def stop(self) -> dict[str, float]:
        self._turn()
        return {part: self.seconds.get(part, 0.0) for part in PARTS}

    @contextmanager
    def watching(self, *where: tuple[Any, str, str]) -> Iterator[None]:
        """Times the calls of owner.name as a part, for each (owner, name, part)."""
        known = [(owner, name, vars(owner).get(name)) for owner, name, _ in where]
        for owner, name, part in where:
            setattr(owner, name, self._timed(getattr(owner, name), part))
        try:
            yield
        finally:
            for owner, name, before in reversed(known):
                if before is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)

    def _timed(self, function: Any, part: str) -> Any:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self.stack.pop()

        return timed


def measure(cfg: DictConfig) -> None:
    wanted = asked(cfg, guidances=GUIDANCES, controls=["own", "exact"])
    guidances, controls = wanted["guidances"], wanted["controls"]
    rows, store = [], Untrained(composed()["trainer"])
    for guidance in guidances:
        for control in controls if guidance != "unguided" else ["–"]:
            chosen = [f"guidance={guidance}", *([f"control={control}"] if control != "–" else [])]
            full = composed(*chosen)
            try:
                rows.append({"guidance": guidance, "control_by": control, **parts(store, full, cfg.targets.n)})
            except Refused as refused:  # the task has no automaton
                print(f"control={control} is left out: {refused}")
                controls = [c for c in controls if c != control]
    free = next((row["milliseconds"] for row in rows if row["guidance"] == "unguided"), None)
    for row in rows:
        row["share"] = row["milliseconds"] / free if free else None

    def draw(figure: Any) -> None:
        figure.set_size_inches(8, 1 + 0.35 * len(rows))
        axes = figure.subplots()
        names, left = [f"{row['guidance']} ({row['control_by']})" for row in rows], [0.0] * len(rows)
        for part in PARTS:
            axes.barh(names, [row[part] for row in rows], left=left, label=part)
            left = [a + row[part] for a, row in zip(left, rows, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel=f"milliseconds a step of {cfg.targets.n} texts")
        axes.legend()

    note = (f"A chunk of {cfg.targets.n} texts at full length, random weights; the last look is part of the steps' "
            "mean. particles: several rows for each text.")  # fmt: skip
    write(rows, COLUMNS, note, draw, tasks=list(cfg.task), texts=cfg.targets.n, steps=cfg.sampler.steps)


def parts(store: Untrained, cfg: dict[str, Any], texts: int) -> dict[str, float]:
    """Milliseconds a step, and of each of its parts."""
    method: Any
    method, requests = untrained(store, cfg, "guided_diffusion", texts)
    stopwatch = Stopwatch()
    kinds = {type(part) for _, part in method.control(requests[:1]).parts}
    where = [
        (method.lm, "forward", "denoiser"), (torch.autograd, "grad", "backward"),
        (method.sampler, "transition", "transition"), (method.sampler, "draw", "transition"),
        (type(method.decoding), "__call__", "transition"), (Chain, "factors", "control"),
        *((kind, "log_prob", "control") for kind in kinds),
    ]  # fmt: skip
    with stopwatch.watching(*where):
        for _ in range(2):  # the first time warms up
            stopwatch.start()
            method.write(requests, method.draws(requests, 1), lambda share: None)
            seconds = stopwatch.stop()
    steps = method.sampler.steps
    each = {part: 1000 * value / steps for part, value in seconds.items()}
    return {"milliseconds": sum(each.values()), **each}


if __name__ == "__main__":
    command(measure, "method=[guided_diffusion]", "targets.n=20", "sampler.steps=10", "data.size=2000")
