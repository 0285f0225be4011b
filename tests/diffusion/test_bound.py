"""The bound where it is known: a denoiser that knows p(word | x_t) has −log p, any other one more."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffcontrol.diffusion.bound import bound, signal_to_noise, time_of
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt
from tests.exact import TABLE, V

TEXTS = torch.tensor([[4, 5, 6], [4, 7, 6], [8, 5, 5], [9, 9, 9]])
P = torch.tensor([0.5, 0.3, 0.15, 0.05])
ENTROPY = -(P * P.log()).sum().item()
SCHEDULES = [Sqrt(), Cosine(), Linear()]


class Knowing:
    """The exact denoiser of TEXTS with probabilities p, which trusts what it sees `trust` times as much as it may."""

    def __init__(self, p=P, schedule=None, snr=6.0, trust=1.0):
        self.p, self.trust, self.schedule, self.seen = p, trust, schedule or Sqrt(), []
        self.low = time_of(self.schedule, torch.tensor(snr, dtype=torch.float64)).item()

    def table(self):
        return TABLE

    def __call__(self, x_t, t, previous=None):
        self.seen.append(previous)
        alpha_bar = self.schedule.alpha_bar(t)[:, None, None]
        likelihood = (alpha_bar.sqrt() / (1 - alpha_bar) * x_t) @ TABLE.T
        spelled = F.one_hot(TEXTS, V).to(x_t)
        which = (self.p.log() + self.trust * torch.einsum("blv,nlv->bn", likelihood, spelled)).softmax(-1)
        probs = torch.einsum("bn,nlv->blv", which, spelled)
        return Prediction(probs @ TABLE, probs.clamp(min=1e-30).log(), probs)


def per_text(denoiser, draws=64, copies=250, **how):
    """The mean bound of each of TEXTS, [4]."""
    ids = TEXTS.repeat_interleave(copies, 0)
    return bound(denoiser, ids, draws=draws, **how).total.view(len(TEXTS), copies).mean(1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_of_a_denoiser_that_knows_it_is_the_negative_logarithm_of_each_texts_probability(schedule):
    torch.testing.assert_close(per_text(Knowing(schedule=schedule)), -P.double().log(), atol=0.08, rtol=0)


def test_of_a_denoiser_that_knows_another_distribution_it_is_the_cross_entropy_with_that_one():
    other = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(per_text(Knowing(other)), -other.double().log(), atol=0.08, rtol=0)


@pytest.mark.parametrize("trust", [0.3, 0.6, 2.0])
def test_a_denoiser_that_is_wrong_pays_more_than_the_entropy(trust):
    assert (P * per_text(Knowing(trust=trust))).sum() > ENTROPY + 0.05


def test_words_that_are_read_off_much_noise_cost_what_they_say_of_one_another():
    """The last look takes every word by itself, so it has to come where nothing is left to decide."""
    early, late = (bound(Knowing(snr=snr), TEXTS.repeat_interleave(100, 0), draws=32) for snr in (0.1, 6.0))
    mean = lambda values: (P * values.view(4, -1).mean(1)).sum().item()  # noqa: E731
    assert mean(early.total) > mean(late.total) + 0.2
    assert mean(early.reconstruction) > mean(late.reconstruction) + 0.2 and mean(late.reconstruction) < 0.01
    assert mean(early.diffusion) < mean(late.diffusion) - 0.2


def test_the_prior_term_is_the_divergence_of_the_noisiest_texts_from_pure_noise():
    class Noisy(Sqrt):
        floor = 0.2

    denoiser = Knowing(schedule=Noisy())
    q = torch.distributions.Normal(math.sqrt(0.2) * TABLE[TEXTS], math.sqrt(0.8))
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(bound(denoiser, TEXTS, draws=1).prior.float(), expected)
    assert bound(Knowing(), TEXTS, draws=1).prior.abs().max() < 1e-4


def test_looking_again_gives_the_network_its_own_prediction():
    denoiser = Knowing()
    once, twice = bound(denoiser, TEXTS, draws=2), bound(denoiser, TEXTS, draws=2, looks=2)
    torch.testing.assert_close(once.total, twice.total)  # which this one does not read
    assert [previous is None for previous in denoiser.seen] == [True] * 3 + [True, False] * 3


def test_it_is_the_same_each_time_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    assert torch.equal(bound(Knowing(), TEXTS, draws=3).total, bound(Knowing(), TEXTS, draws=3).total)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(bound(Knowing(), TEXTS, draws=3).total, bound(Knowing(), TEXTS, draws=3, seed=1).total)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_times_are_those_of_their_signal_to_noise_ratio(schedule):
    wanted = torch.tensor([1e-3, 0.1, 1.0, 20.0], dtype=torch.float64)
    found = [signal_to_noise(schedule, t) for t in time_of(schedule, wanted).tolist()]
    assert found == pytest.approx(wanted.tolist(), rel=1e-6)
