"""Guidance: how a control moves the reverse process.

There are two places to act, and each leaves everything as it is unless a guidance overrides it:

    predict   before the transition: the prediction at x_t is made to obey more (a tilt, exact conditioning)
    move      after the draw: x_s is moved (the paper's Langevin steps)

A guidance file opens with its reference and its equation. To the sampler a guidance is a denoiser and a `move`.

B batch · L positions · D embedding width
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import Normal

from diffcontrol.allowed import BY_TASK, Rules, number, optional, whole
from diffcontrol.diffusion.denoiser import Denoiser, Prediction, Wrapper
from diffcontrol.diffusion.sampler import Move
from diffcontrol.refused import Refused
from diffcontrol.steering.base import Weighted


class Guidance:
    """strength: task → weight of its log-probability; `default` is that of tasks which are not named.

    A guidance acts on the steps to times s with `stop` ≤ (s − low)/(1 − low) ≤ `start`, and of these on every
    `stride`-th (Kynkäänniemi et al. 2024, 2404.07724: guidance hurts at the highest noise and idles at the lowest)."""

    allowed: ClassVar[Rules] = {
        "strength": optional(BY_TASK), "strength.*": number(), "start": number(0, 1), "stop": number(0, 1),
        "stride": whole(1),
    }  # fmt: skip
    particles: int = 1  # rows, side by side, for each text; the first of them becomes the text

    def __init__(self, strength: Mapping[str, float] | None = None, start: float = 1.0, stop: float = 0.0,
                 stride: int = 1):  # fmt: skip
        self.check({"start": start, "stop": stop})
        self.strength = {"default": 0.0} | dict(strength or {})
        self.start, self.stop, self.stride = start, stop, stride

    @classmethod
    def check(cls, node: Mapping[str, Any]) -> None:
        """Asked before anything is trained: whether a guidance with this config node acts at all.

        Raises:
            Refused: it does not.
        """
        start, stop = node.get("start", 1.0), node.get("stop", 0.0)
        if start < stop:
            raise Refused(f"guidance.start={start}: it is less than guidance.stop={stop}, so no step would be guided; "
                          "guidance acts from start, the noisier end, to stop")  # fmt: skip

    def predict(self, denoiser: Denoiser, control: Weighted, x_t: Tensor, t: Tensor,
                previous: Prediction | None) -> Prediction:  # fmt: skip
        """What is predicted at x_t [B L D], t [B], with regard to the control."""
        return denoiser(x_t, t, previous)

    def move(self, denoiser: Denoiser, control: Weighted, x_s: Tensor, step: Normal, s: Tensor,
             prediction: Prediction) -> Tensor:  # fmt: skip
        """A draw x_s [B L D] of `step`, the transition to s [B], moved; `prediction` is that of the step before."""
        return x_s

    def bind(self, denoiser: Denoiser, control: Weighted, times: Tensor) -> tuple[Denoiser, Move]:
        """The two places for one control: a denoiser around `denoiser`, and what is done after a draw.

        times: those that the sampler walks through, [steps + 1].
        """
        acting = self.acting(times.tolist(), denoiser.low)
        starts, ends = {t for t, _ in acting}, {s for _, s in acting}
        if acting and acting[-1][1] == float(times[-1]):
            starts.add(acting[-1][1])  # the last look, which decides the words

        def move(x_s: Tensor, step: Normal, s: Tensor, prediction: Prediction) -> Tensor:
            if float(s[0]) not in ends:
                return x_s
            return self.move(denoiser, control, x_s, step, s, prediction)

        return _Guided(denoiser, self, control, starts), move

    def acting(self, times: list[float], low: float) -> list[tuple[float, float]]:
        """The steps (t, s) at which this guidance acts."""
        within = [
            (t, s)
            for t, s in pairwise(times)
            if self.stop - 1e-6 <= (s - low) / (1 - low) <= self.start + 1e-6  # times are rounded to 32 bits
        ]
        return within[:: self.stride]


class _Guided(Wrapper):
    """`denoiser`, and at the times at which the guidance acts what the guidance makes of it."""

    def __init__(self, denoiser: Denoiser, guidance: Guidance, control: Weighted, times: set[float]):
        super().__init__(denoiser)
        self.guidance, self.control, self.times = guidance, control, times

    def __call__(self, x_t: Tensor, t: Tensor, previous: Prediction | None = None) -> Prediction:
        if float(t[0]) not in self.times:
            return self.denoiser(x_t, t, previous)
        return self.guidance.predict(self.denoiser, self.control, x_t, t, previous)


class Unguided(Guidance):
    """Neither."""
