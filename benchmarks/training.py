"""Training tokens a second of the diffusion LM as configured, against plain fp32 training on padded texts.

    python benchmarks/training.py
    python benchmarks/training.py model=small trainer.precision=bf16-mixed '+benchmark={steps: 100}'

`configured` trains as `run.py` does: the window of `lm.window`, and precision and compilation as `trainer` says.
`plain` reads all positions of every text in fp32, not compiled. Tokens are START, words and END, no PAD. Both go
through the store and Lightning, into a folder that is thrown away, and are stopped after a few steps. FLOP are those of
matrix products as PyTorch counts them in a step, forward and backward; beside them stands what a large product reaches.
"""

import tempfile
from contextlib import suppress
from typing import Any

import torch
from common import asked, changed, command, now, write
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from diffcontrol.diffusion.lm import DiffusionLM
from diffcontrol.store import Store
from diffcontrol.text import PAD
from diffcontrol.training import Trainable

STEPS, WARM = 60, 10
FLOP_STEPS = 4  # one of four reads any text, the others short ones
PLAIN = {"lm.window": 0, "trainer.precision": "32-true", "trainer.compile": False}
COLUMNS = {"training": "training", "tokens_per_second": "tokens / s", "ratio": "× plain", "milliseconds": "ms / step",
           "padding": "PAD %", "gigaflops": "GFLOP / s", "utilisation": "% of matmul", "precision": "precision",
           "compiled": "compiled"}  # fmt: skip


class Enough(Exception):  # noqa: N818  it is no error
    """All steps that are to be timed were taken."""


class Timed(DiffusionLM):
    """Notes when each step ended and how many tokens it read."""

    stop = STEPS
    latest: "Timed"  # the one that was trained last; the store gives no model that is half trained
    ends: list[float]
    read: list[tuple[int, int]]  # tokens, positions
    conditions: tuple[str, bool]  # precision, whether it is compiled

    def on_train_start(self) -> None:
        Timed.latest, self.ends, self.read = self, [now()], []
        compiled = any(network._compiled_call_impl is not None for network in self.compilable())
        self.conditions = (str(self.trainer.precision), compiled)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ends.append(now())
        self.read.append((int((batch != PAD).sum()), batch.numel()))
        if len(self.read) >= self.stop:
            raise Enough


def measure(cfg: DictConfig) -> None:
    Timed.stop = asked(cfg, steps=STEPS)["steps"]
    settings: dict[str, dict[str, Any]] = {"configured": {}, "plain": PLAIN}
    rows = [{"training": name, **trained(changed(cfg, changes))} for name, changes in settings.items()]
    matmul = {"32-true": matmul_flops(torch.float32)}
    for row in rows:
        if row["precision"] not in matmul:
            matmul[row["precision"]] = matmul_flops(torch.bfloat16)
        row["ratio"] = row["tokens_per_second"] / rows[-1]["tokens_per_second"]
        row["utilisation"] = 100 * 1e9 * row["gigaflops"] / matmul[row["precision"]]

    def draw(figure: Any) -> None:
        names = [row["training"] for row in rows]
        for axes, key, label in zip(figure.subplots(1, 2), ("tokens_per_second", "utilisation"),
                                    ("tokens a second", "% of matmul FLOP/s"), strict=True):  # fmt: skip
            axes.bar(names, [row[key] for row in rows])
            axes.set_ylabel(label)

    first = min(WARM, Timed.stop // 2)
    note = f"{Timed.stop} steps, the first {first} of them not timed. PAD is not counted as a token."
    write(rows, COLUMNS, note, draw, matmul_gigaflops={k: v / 1e9 for k, v in matmul.items()},
          model=OmegaConf.to_container(cfg.model), batch_size=cfg.lm.optim.batch_size)  # fmt: skip


def trained(cfg: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second and FLOP a second of a training."""
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        store = Store(folder, trainer=cfg["trainer"] | {"enable_progress_bar": False})
        store.fit(cfg["lm"] | {"_target_": f"{Timed.__module__}.Timed"})
    module = Timed.latest
    first = min(WARM, len(module.read) // 2)
    seconds = module.ends[-1] - module.ends[first]
    tokens, positions = (sum(counts) for counts in zip(*module.read[first:], strict=True))
    steps = len(module.read) - first
    flops = sum(flops_of_step(module, step) for step in range(first, first + FLOP_STEPS)) / FLOP_STEPS
    return {
        "tokens_per_second": tokens / seconds, "milliseconds": 1000 * seconds / steps,
        "padding": 100 * (1 - tokens / positions), "gigaflops": flops * steps / seconds / 1e9,
        "precision": module.conditions[0], "compiled": module.conditions[1],
    }  # fmt: skip


def flops_of_step(module: Trainable, step: int) -> float:
    """FLOP of the matrix products of one step, forward and backward."""
    module.train_alone()
    batch = module.collate(module.steps().indices(step)).to(module.device)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        torch.stack(list(module.losses(batch).values())).sum().backward()
    module.zero_grad()
    return counter.get_total_flops()


def matmul_flops(dtype: torch.dtype, size: int = 1024) -> float:
    """FLOP a second of a large matrix product, the best of a few."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    least = float("inf")
    for _ in range(6):
        started = now()
        a @ b
        least = min(least, now() - started)
    return 2 * size**3 / least


if __name__ == "__main__":
    command(measure, "data.size=6000")
