"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose matrix is made orthogonal at every step.

`torch.optim.Muon` orthogonalises in bf16. A processor without bf16 emulates it, and then a step of our language model
takes ten times as long, so there this one does the same iteration in fp32, for all matrices of one shape at once.

The step of a matrix grows with √max(1, rows / columns), rows being what it puts out. GPT-2 keeps its matrices the other
way round, so that in causal LMs, experts and infillers the factor falls on those that narrow in place of those that
widen. It makes no difference there (docs/log.md).
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffcontrol import hardware


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the same state; in fp32 where the hardware has no bf16, where of its arguments
    `adjust_lr_fn` has to be left at its default."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if hardware.has_bf16(self.param_groups[0]["params"][0].device):
            return super().step(closure)
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for matrices in _by_shape(p for p in group["params"] if p.grad is not None):
                self._step_alike(matrices, group)
        return loss

    def _step_alike(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices of one shape."""
        updates = []
        for p in matrices:
            if "momentum_buffer" not in (state := self.state[p]):
                state["momentum_buffer"] = torch.zeros_like(p)
            momentum = state["momentum_buffer"]
            gradient = torch.as_tensor(p.grad)
            momentum.lerp_(gradient, 1 - group["momentum"])
            updates.append(gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum)
        rows, columns = matrices[0].shape
        lr = group["lr"] * math.sqrt(max(1.0, rows / columns))
        directions = orthogonalised(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        for p, direction in zip(matrices, directions, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=lr)


def _by_shape(matrices: Any) -> list[list[Tensor]]:
    found: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for matrix in matrices:
        found[matrix.shape].append(matrix)
    return list(found.values())


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices [N R C] with singular values near 1 in place of their own, by Newton–Schulz's quintic iteration."""
    a, b, c = coefficients
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT
