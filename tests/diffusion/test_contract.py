"""What every option of conf/sampler and conf/decoding must keep, on exact denoisers.

A new sampler or decoding is found here by its file.
"""

import pytest
import torch
from hydra.utils import instantiate

from diffcontrol.diffusion.denoiser import Prediction
from diffcontrol.diffusion.sampler import Sampler
from diffcontrol.diffusion.schedule import Cosine, Linear, Sqrt
from diffcontrol.draws import Draws
from diffcontrol.text import END, PAD, START
from tests.composing import composed, options
from tests.exact import TABLE, D, Gaussian, Texts, V

TEXTS = torch.tensor([
    [START, 4, 5, END, PAD, PAD],
    [START, 6, END, PAD, PAD, PAD],
    [START, 7, 8, 9, END, PAD],
    [START, 4, 4, 4, END, PAD],
])  # fmt: skip


@pytest.fixture(scope="module", params=options("sampler"))
def make(request):
    """The sampler of a file, with some of its arguments changed."""
    node = composed(f"sampler={request.param}")["sampler"]
    return lambda **changes: instantiate({**node, **changes})


@pytest.fixture(scope="module", params=options("decoding"))
def decoding(request):
    return instantiate(composed(f"decoding={request.param}")["decoding"])


def walk(sampler, denoiser, shape=(64, 6, D), seed=0, **how):
    draws = Draws(range(1000 * seed, 1000 * seed + shape[0]))
    *_, last = sampler(denoiser, draws.normal(*shape[1:]), draws, **how)
    return last


def test_its_times_fall_from_1_to_the_least_one_in_use(make):
    for low in (0.0, 0.2):
        times = make(steps=7).times(low)
        assert isinstance(make(), Sampler) and times.shape == (8,)
        assert times[0] == 1 and times[-1].item() == pytest.approx(low, abs=1e-6) and (times.diff() < 0).all()


@pytest.mark.parametrize("schedule", [Sqrt(), Cosine(), Linear()], ids=lambda s: type(s).__name__)
def test_the_exact_denoiser_of_unit_gaussians_gives_unit_gaussians(make, schedule):
    x = walk(make(steps=400, noise=1.0), Gaussian(schedule), (64, 32, 16)).x0
    assert x.mean().item() == pytest.approx(0, abs=0.02) and x.var().item() == pytest.approx(1, abs=0.09)


def test_exact_knowledge_of_a_few_texts_gives_these_texts_and_all_of_them(make):
    found = walk(make(steps=100, noise=1.0), Texts(TEXTS), (80, 6, D)).logits.argmax(-1)
    found = torch.nn.functional.pad(found, (0, 6 - found.shape[1]), value=PAD)
    counts = (found[:, None] == TEXTS).all(-1).sum(0)
    assert counts.sum() == 80 and counts.min() >= 8  # of 20 expected


def test_a_row_depends_on_itself_alone(make):
    sampler, schedule = make(), Sqrt()
    x_t, x0 = torch.randn(3, 4, D), torch.randn(3, 4, D)
    t, s = torch.tensor([0.9, 0.5, 0.3]), torch.tensor([0.8, 0.1, 0.29])
    whole = sampler.transition(schedule, x_t, t, s, x0)
    assert whole.mean.shape == whole.stddev.shape == x_t.shape
    assert whole.mean.isfinite().all() and whole.stddev.isfinite().all() and (whole.stddev >= 0).all()
    alone = sampler.transition(schedule, x_t[1:2], t[1:2], s[1:2], x0[1:2])
    torch.testing.assert_close(whole.mean[1:2], alone.mean)
    torch.testing.assert_close(whole.stddev[1:2], alone.stddev)


def test_noise_scales_the_draw_and_neither_mean_nor_spread(make):
    arguments = (Sqrt(), torch.randn(2, 3, D), torch.full((2,), 0.6), torch.full((2,), 0.5), torch.randn(2, 3, D))
    full, half = make(noise=1.0), make(noise=0.5)
    one, other = full.transition(*arguments), half.transition(*arguments)
    assert torch.equal(one.mean, other.mean) and torch.equal(one.stddev, other.stddev)
    draws = [sampler.draw(one, Draws(range(2))) - one.mean for sampler in (full, half)]
    torch.testing.assert_close(draws[0], 2 * draws[1])


def test_the_same_seeds_give_the_same_texts(make):
    one, other, third = (walk(make(steps=5), Texts(TEXTS), seed=seed).x0 for seed in (0, 0, 1))
    assert torch.equal(one, other) and (one.shape != third.shape or not torch.equal(one, third))


# --- decodings


@pytest.fixture
def prediction():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3, 5, V, generator=generator)
    return Prediction(logits.softmax(-1) @ TABLE, logits, torch.randn(3, 5, 2, generator=generator))


def test_a_decoding_gives_an_x0_for_every_position_of_its_own_row(decoding, prediction):
    t = torch.tensor([0.1, 0.5, 1.0])
    found = decoding(prediction, t, TABLE)
    assert found.shape == prediction.x0.shape and found.isfinite().all()
    row = Prediction(prediction.x0[1:2], prediction.logits[1:2], prediction.hidden[1:2])
    torch.testing.assert_close(found[1:2], decoding(row, t[1:2], TABLE))


def test_a_decoding_leaves_the_prediction_as_it_is(decoding, prediction):
    """Controls and self-conditioning read it, and the words are chosen by its logits."""
    before = [tensor.clone() for tensor in (prediction.x0, prediction.logits, prediction.hidden)]
    decoding(prediction, torch.full((3,), 0.5), TABLE)
    assert all(map(torch.equal, before, (prediction.x0, prediction.logits, prediction.hidden)))


def test_where_the_network_is_certain_a_decoding_gives_that_word(decoding):
    words = torch.tensor([[4, 5, 6], [7, 8, 9]])
    logits = 1e4 * (torch.nn.functional.one_hot(words, V) - 1.0)
    found = decoding(Prediction(TABLE[words], logits, TABLE[words]), torch.full((2,), 0.3), TABLE)
    torch.testing.assert_close(found, TABLE[words], atol=1e-4, rtol=1e-4)
