from dataclasses import replace

import pytest
import torch

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.text import UNK
from tests.exact import TABLE, D, V


@pytest.fixture
def prediction():
    """x̂₀ of its own, which the logits do not know of."""
    generator = torch.Generator().manual_seed(1)
    x0, logits = torch.randn(3, 5, D, generator=generator), torch.randn(3, 5, V, generator=generator)
    return Prediction(x0, logits, x0)


@pytest.fixture
def t():
    return torch.tensor([0.2, 0.5, 0.8])


def expected_vector(logits):
    """Under the softmax over all words but UNK."""
    others = [word for word in range(V) if word != UNK]
    return logits[..., others].softmax(-1) @ TABLE[others]


def nearest(x0):
    distances = (x0[..., None, :] - TABLE).square().sum(-1)
    return TABLE[distances.argmin(-1)]


def test_temperature_1_without_clamping_is_the_networks_own_estimate(prediction, t):
    assert Rounding()(prediction, t, TABLE) is prediction.x0


def test_another_temperature_is_the_expected_word_vector(prediction, t):
    logits = prediction.logits
    prediction = replace(prediction, x0=logits.softmax(-1) @ TABLE)
    torch.testing.assert_close(Rounding(0.5)(prediction, t, TABLE), expected_vector(2 * logits))
    likeliest = logits.index_fill(-1, torch.tensor(UNK), -torch.inf).argmax(-1)
    torch.testing.assert_close(Rounding(1e-4)(prediction, t, TABLE), TABLE[likeliest])
    mean = TABLE[[word for word in range(V) if word != UNK]].mean(0).expand(3, 5, D)
    torch.testing.assert_close(Rounding(1e6)(prediction, t, TABLE), mean, atol=1e-5, rtol=0)


def test_what_moved_the_estimate_away_from_the_words_stays_at_every_temperature(prediction, t):
    own = prediction.x0 - prediction.logits.softmax(-1) @ TABLE
    for temperature in (0.5, 1.0001, 1.3):
        expected = expected_vector(prediction.logits / temperature) + own
        torch.testing.assert_close(Rounding(temperature)(prediction, t, TABLE), expected)


def test_clamping_takes_the_nearest_word_vector_from_its_time_on(prediction, t):
    found = Rounding(clamp=0.5)(prediction, t, TABLE)
    assert torch.equal(found[:2], nearest(prediction.x0)[:2])
    assert torch.equal(found[2], prediction.x0[2])  # at 0.8 it is too early
    assert torch.equal(Rounding(clamp=1.0)(prediction, torch.ones(3), TABLE), nearest(prediction.x0))  # as released
    assert torch.equal(Rounding(clamp=0.0)(prediction, torch.zeros(3), TABLE), prediction.x0)


def test_what_is_clamped_is_what_the_temperature_left(prediction, t):
    prediction = replace(prediction, x0=prediction.logits.softmax(-1) @ TABLE)
    expected = nearest(expected_vector(prediction.logits / 0.1))
    assert torch.equal(Rounding(0.1, clamp=1.0)(prediction, t, TABLE), expected)


@pytest.mark.parametrize("rounding", [Rounding(), Rounding(0.5), Rounding(1.2, clamp=1.0)])
def test_the_prediction_itself_stays_as_it_is(rounding, prediction, t):
    """Controls and self-conditioning read it, and the words are chosen by its logits."""
    before = [tensor.clone() for tensor in (prediction.x0, prediction.logits, prediction.hidden)]
    rounding(prediction, t, TABLE)
    assert all(map(torch.equal, before, (prediction.x0, prediction.logits, prediction.hidden)))
