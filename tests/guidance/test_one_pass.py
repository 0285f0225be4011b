"""Langevin steps along the gradient at x_t."""

import pytest
import torch

from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.guidance.one_pass import OnePass
from diffcontrol.steering.base import Control, Weighted
from tests.exact import Posterior, steps_of, walk


class Spreads(Control):
    """Keeps the spread that it is told at every look."""

    def __init__(self):
        self.seen = []

    def log_prob(self, look):
        self.seen.append(None if look.spread is None else float(look.spread.max()))
        return look.x_t.sum((1, 2))


def test_the_control_is_told_the_spread_that_x_t_was_drawn_with():
    """`control=pull` divides by it, as released; x_1 has no transition before it."""
    control, sampler, denoiser = Spreads(), DDIM(6), Posterior()
    walk(OnePass({"default": 1.0}), Weighted([(1.0, control)]), denoiser=denoiser, sampler=sampler)
    schedule = denoiser.schedule
    expected = []
    for t, s in steps_of(sampler, denoiser.low):
        a, b = (float(schedule.alpha_bar(torch.tensor([u]))) for u in (t, s))
        expected.append(((1 - b) / (1 - a) * (1 - a / b)) ** 0.5)  # eq. 16 of Song et al. 2021 at η = 1
    assert control.seen[0] is None
    assert control.seen[1:] == pytest.approx(expected[:-1], rel=1e-4)
