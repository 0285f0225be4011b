"""Langevin steps along the gradient at x_t."""

from itertools import pairwise

import pytest
import torch

from diffcontrol.diffusion.sampler import DDIM
from diffcontrol.guidance.one_pass import OnePass
from diffcontrol.steering.base import Control, Weighted
from tests.exact import D, L, Posterior, steps_of, walk


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


@pytest.mark.parametrize(("steps", "stride"), [(12, 1), (12, 2), (48, 1), (48, 3)])
def test_all_steps_together_move_a_text_by_the_distance(steps, stride):
    """A control that always pulls one way, and no pull back: however many steps there are, they go equally far."""
    sampler, denoiser = DDIM(steps), Posterior()
    times = sampler.times(denoiser.low)
    guidance = OnePass({"default": 1.0}, distance=2.5, fluency=0.0, stride=stride)
    looking, move = guidance.bind(denoiser, Weighted([(1.0, Spreads())]), times)
    x, moved = torch.zeros(1, L, D), 0.0
    for t, s in pairwise(times):
        prediction = looking(x, t.expand(1))
        step = sampler.transition(denoiser.schedule, x, t.expand(1), s.expand(1), prediction.x0)
        moved += move(x, step, s.expand(1), prediction) - x
    assert torch.allclose(moved, torch.full_like(x, 2.5), atol=1e-4)
