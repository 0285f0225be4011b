import pytest
import torch

from diffcontrol.guidance.tilt import Tilt
from diffcontrol.steering.base import Control, Weighted
from tests.exact import NOTHING, TABLE, D, First, L, Linear, Posterior, step, walk


@pytest.fixture
def a():
    return torch.randn(3, L, D, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("strength", [0.3, 2.0])
@pytest.mark.parametrize("inner", [1, 4])
def test_of_a_linear_control_it_is_bayes_rule(a, strength, inner):
    """p(w | x_t, c) ∝ p(w | x_t) · exp(strength · ⟨a, E_w⟩), however many readings share the tilt."""
    *_, free = step(Tilt(), NOTHING)
    *_, found = step(Tilt(inner=inner), Weighted([(strength, Linear(a))]))
    posterior = (free.logits + strength * a @ TABLE.T).softmax(-1)
    torch.testing.assert_close(found.logits.softmax(-1), posterior, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.x0, posterior @ TABLE, atol=1e-4, rtol=1e-4)


def test_a_word_like_the_prediction_gains_nothing(a):
    *_, free = step(Tilt(), NOTHING)
    *_, found = step(Tilt(), Weighted([(1.0, Linear(a))]))
    expected = (a @ TABLE.T) - (a * free.x0).sum(-1, keepdim=True)
    gained = (found.logits - free.logits)[..., 4:]  # specials are at −10,000, where floats lie 0.001 apart
    torch.testing.assert_close(gained, expected[..., 4:], atol=1e-4, rtol=1e-3)


def test_no_word_gains_or_loses_more_than_the_limit(a):
    *_, free = step(Tilt(), NOTHING)
    *_, found = step(Tilt(limit=0.5), Weighted([(100.0, Linear(a))]))
    change = (found.logits - free.logits)[..., 4:]  # specials are at −10,000, where floats lie 0.001 apart
    assert change.abs().max() == pytest.approx(0.5, abs=1e-4)
    *_, thrice = step(Tilt(inner=3, limit=0.5), Weighted([(100.0, Linear(a))]))
    assert 0.5 < (thrice.logits - free.logits)[..., 4:].abs().max() <= 1.5 + 1e-4


def test_a_step_costs_one_call_of_the_denoiser_however_often_the_control_is_read():
    denoiser, control = Posterior(), First([4, 5, 6])
    walk(Tilt(inner=3), control, denoiser=denoiser)
    assert denoiser.calls == 31 and len(control.times) == 3 * 31  # the last look, too


def test_hidden_states_and_x_t_are_held_fixed():
    """A control of them alone changes nothing; the gradient does not run through the network."""

    class Hidden(Control):
        def log_prob(self, look):
            return look.prediction.hidden.sum((1, 2)) + look.x_t.sum((1, 2)) + look.prediction.logits.sum((1, 2))

    *_, free = step(Tilt(), NOTHING)
    *_, found = step(Tilt(), Weighted([(5.0, Hidden())]))
    assert torch.equal(found.logits, free.logits) and torch.equal(found.x0, free.x0)
