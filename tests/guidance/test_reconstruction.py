import pytest
import torch

from diffcontrol.guidance.reconstruction import Reconstruction
from diffcontrol.steering.base import Control, Weighted
from tests.exact import NOTHING, TABLE, D, First, Gaussian, L, Posterior, step, walk

T = 0.6


class Observed(Control):
    """y = x₀ + noise of variance r is seen: exactly log p(y | x_t), as x₀ given x_t ~ N(x̂₀, 1 − ᾱ_t) in `Gaussian`."""

    def __init__(self, y, r, alpha_bar):
        self.y, self.variance = y, r + 1 - alpha_bar

    def log_prob(self, look):
        return -0.5 * ((look.prediction.x0 - self.y).square() / self.variance).sum((1, 2))


@pytest.fixture
def y():
    return torch.randn(3, L, D, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("r", [0.1, 1.0])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_strength_1_is_bayes_rule_where_all_is_gaussian(y, r, strength):
    """E[x₀ | x_t, y] = x̂₀ + (1 − ᾱ)/(1 − ᾱ + r) · (y − x̂₀); the strength scales the way there."""
    alpha_bar = Gaussian().schedule.alpha_bar(torch.tensor(T))
    *_, free = step(Reconstruction(), NOTHING, denoiser=Gaussian(), t=T)
    control = Weighted([(strength, Observed(y, r, alpha_bar))])
    *_, found = step(Reconstruction(limit=100), control, denoiser=Gaussian(), t=T)
    gain = (1 - alpha_bar) / (1 - alpha_bar + r)
    torch.testing.assert_close(found.x0 - free.x0, strength * gain * (y - free.x0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.logits - free.logits, (found.x0 - free.x0) @ TABLE.T, atol=1e-4, rtol=1e-4)


def test_a_row_moves_no_farther_than_the_limit_and_in_the_same_direction(y):
    y[0] *= 0.01  # of three rows one asks for little
    control = Weighted([(1.0, Observed(y, 0.1, torch.tensor(0.3)))])
    *_, free = step(Reconstruction(), NOTHING, denoiser=Gaussian(), t=T)
    *_, whole = step(Reconstruction(limit=1e9), control, denoiser=Gaussian(), t=T)
    sizes = (whole.x0 - free.x0).square().mean((1, 2)).sqrt()
    limit = sizes.sort().values[:2].mean().item()
    *_, found = step(Reconstruction(limit=limit), control, denoiser=Gaussian(), t=T)
    moves, wholes = found.x0 - free.x0, whole.x0 - free.x0
    torch.testing.assert_close(moves.square().mean((1, 2)).sqrt(), sizes.clamp(max=limit))
    torch.testing.assert_close(moves, wholes * (limit / sizes).clamp(max=1)[:, None, None], atol=1e-5, rtol=1e-4)


def test_the_gradient_runs_through_the_network():
    """The control reads the first position alone; a network that mixes positions is moved at all of them."""

    class Mixing(Gaussian):
        def __call__(self, x_t, t, previous=None):
            return super().__call__(x_t + x_t.mean(1, keepdim=True), t, previous)

    *_, free = step(Reconstruction(), NOTHING, denoiser=Mixing(), t=T)
    *_, found = step(Reconstruction(), First([4, 5, 6]), denoiser=Mixing(), t=T)
    assert ((found.x0 - free.x0).abs().amax(-1) > 1e-4).all()


def test_a_step_costs_one_call_of_the_denoiser():
    denoiser = Posterior()
    walk(Reconstruction(), First([4, 5, 6]), denoiser=denoiser)
    assert denoiser.calls == 31
