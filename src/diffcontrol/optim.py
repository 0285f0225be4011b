"""How a model is trained, as its recipe says: the optimiser's numbers, the optimisers they describe, averaging."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from diffcontrol.allowed import Allowed, Rules, number, one_of, whole
from diffcontrol.muon import Muon


@dataclass(frozen=True)
class Optim:
    """How a model is trained; part of its recipe.

    Fields: `steps` of `batch_size` texts; AdamW (`betas`, `weight_decay` of matrices) at `lr` after `warmup` steps,
    falling to 0 along `decay` (cosine or linear); `muon`: the learning rate of Muon, which then trains the weight
    matrices of the hidden layers in AdamW's stead, on the same course (0: AdamW trains everything); gradient norm
    clipped at `clip` (0: not); weights averaged with decay `ema` (0: not); a checkpoint every `checkpoint` steps.
    """

    steps: int
    batch_size: int
    lr: float
    muon: float = 0.0
    warmup: int = 100
    decay: str = "cosine"
    betas: Sequence[float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    checkpoint: int = 200

    allowed: ClassVar[Rules] = {
        "steps": whole(1), "batch_size": whole(1), "checkpoint": whole(1), "lr": number(above=0), "muon": number(0),
        "warmup": number(0), "weight_decay": number(0), "clip": number(0), "ema": number(0, below=1),
        "decay": one_of("cosine", "linear"),
        "betas": Allowed("two numbers from 0 to below 1", lambda value: _two(value, number(0, below=1))),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name, rule in self.allowed.items():
            rule.check(f"optim.{name}", getattr(self, name))

    def factor(self, step: int) -> float:
        """Learning rate at `step` as a fraction of lr."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        done = min(1.0, step / self.steps)
        fall = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()) if self.decay == "cosine" else 1 - done
        return rise * fall


def _two(value: Any, rule: Allowed) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(rule.test, value))


class Together(Optimizer):
    """Optimisers, each of parameters of its own, as one: Lightning takes one step with one optimiser.

    It also keeps from Lightning that fused AdamW could unscale gradients by itself, for then they could not be clipped.
    """

    def __init__(self, parts: Sequence[Optimizer]):
        self.parts = list(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, own in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(own)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def optimiser(own: Optim, parameters: Iterable[Tensor], hidden: Sequence[Tensor]) -> Together:
    """AdamW on all parameters that learn, or Muon on the `hidden` matrices and AdamW on the others."""
    learning = [p for p in parameters if p.requires_grad]
    known = {id(p) for p in hidden}
    rest = [p for p in learning if id(p) not in known]
    matrices, others = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": own.weight_decay}, {"params": others, "weight_decay": 0.0}]
    parts: list[Optimizer] = [torch.optim.AdamW(groups, lr=own.lr, betas=(own.betas[0], own.betas[1]), fused=True)]
    if hidden:
        parts.append(Muon(list(hidden), lr=own.muon, weight_decay=own.weight_decay))
    return Together(parts)


def averaging(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights. It forgets faster at first, so that the average of a short training is
    not dominated by the initial weights."""

    def average(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        return mean.lerp(new.to(mean.dtype), 1 - kept)

    return WeightAveraging(use_buffers=False, avg_fn=average)
