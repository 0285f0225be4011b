import math

import pytest
import torch

from diffcontrol.guidance.balanced import Balanced
from diffcontrol.guidance.base import Unguided
from diffcontrol.guidance.langevin import Langevin
from diffcontrol.steering.base import Control, Weighted
from tests.exact import NOTHING, WORDS, D, First, L, Posterior, step, walk


def sgd(params, lr):
    """Shows the gradient itself."""
    return torch.optim.SGD(params, lr=lr)


class Sloped(Control):
    """log p = log_p at x_s, with a gradient `size` times as large as that of a random direction."""

    def __init__(self, seed, size, log_p):
        self.direction = size * torch.randn(3, L, D, generator=torch.Generator().manual_seed(seed))
        self.log_p = log_p

    def log_prob(self, look):
        slope = (self.direction * look.x_t).sum((1, 2))
        return self.log_p + slope - slope.detach()


def moved(*parts):
    drawn, *_ = step(Unguided(), NOTHING)
    found, *_ = step(Balanced(optimiser=sgd, lr=1e-2, fluency=0.0), Weighted(parts))
    return (found - drawn) / 1e-2


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_strength_is_the_size_of_the_gradient_whatever_its_own(size):
    change = moved((2.0, Sloped(1, size, -50.0)))
    torch.testing.assert_close(change.square().mean((1, 2)).sqrt(), torch.full((3,), 2.0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(change, moved((2.0, Sloped(1, 1.0, -50.0))), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
def test_a_control_that_is_met_lets_go(p):
    change = moved((1.0, Sloped(1, 5.0, math.log(p))))
    torch.testing.assert_close(change.square().mean((1, 2)).sqrt(), torch.full((3,), 1 - p), atol=1e-3, rtol=1e-3)


def test_controls_add_up_and_the_larger_gradient_does_not_have_its_way():
    one, other = (1.0, Sloped(1, 1e4, -9.0)), (1.0, Sloped(2, 1e-2, -9.0))
    torch.testing.assert_close(moved(one, other), moved(one) + moved(other), atol=1e-3, rtol=1e-3)
    drawn, *_ = step(Unguided(), NOTHING)
    plain, *_ = step(Langevin(optimiser=sgd, lr=1e-2, fluency=0.0), Weighted([one, other]))
    alone, *_ = step(Langevin(optimiser=sgd, lr=1e-2, fluency=0.0), Weighted([one]))
    torch.testing.assert_close(plain - drawn, alone - drawn, atol=1e-2, rtol=1e-3)  # as in the paper's update


def test_a_row_without_a_gradient_stays():
    control = Sloped(1, 1.0, -9.0)
    control.direction[1] = 0
    change = moved((1.0, control))
    assert change[1].abs().max() == 0 and change[[0, 2]].abs().amax((1, 2)).min() > 0.1


def test_all_controls_share_one_call_of_the_denoiser():
    denoiser = Posterior()
    control = Weighted([(1.0, First([4, 5, 6])), (1.0, First([5, 6, 7])), (0.5, First([7, 7, 7]))])
    walk(Balanced(inner=2), control, denoiser=denoiser)
    assert denoiser.calls == 31 + 2 * 30


def test_two_controls_are_met_at_once_where_one_shouts():
    """The first words of two, of which one is asked for with a hundred times the gradient."""

    class Loud(Control):
        def __init__(self, targets, position, loudness):
            self.first, self.position, self.loudness = First(targets), position, loudness

        def log_prob(self, look):
            shifted = look.prediction.x0.roll(-self.position, 1)
            seen = type(look)(look.x_t, look.t, lambda: type(look.prediction)(shifted, shifted, shifted))
            return self.loudness * self.first.log_prob(seen)

    one, other = ([WORDS[(row + shift) % len(WORDS)] for row in range(60)] for shift in (0, 1))
    control = Weighted([(5.0, Loud(one, 0, 100.0)), (5.0, Loud(other, 1, 1.0))])
    words = walk(Balanced(inner=3), control, 60)[-1].logits.argmax(-1)
    assert (words[:, 0] == torch.tensor(one)).float().mean() > 0.8
    assert (words[:, 1] == torch.tensor(other)).float().mean() > 0.8
