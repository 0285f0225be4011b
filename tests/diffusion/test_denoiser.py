import pytest
import torch
from torch.nn import functional as F

from diffcontrol.diffusion.decoding import Rounding
from diffcontrol.diffusion.denoiser import Anchored, Prediction, Wrapper
from diffcontrol.diffusion.schedule import Sqrt

V, D = 7, 4
TABLE = F.normalize(torch.randn(V, D, generator=torch.Generator().manual_seed(0)), dim=-1) * D**0.5


class Peek:
    """A denoiser that shows what it was given: x̂₀ is x_t, logits are ⟨x_t, E_w⟩."""

    low = 0.05

    def __init__(self):
        self.schedule, self.given = Sqrt(), None

    def table(self):
        return TABLE

    def __call__(self, x_t, t, previous=None):
        self.given = x_t, t, previous
        return Prediction(x_t, x_t @ TABLE.T, x_t)


@pytest.fixture
def x_t():
    return torch.randn(3, 5, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def t():
    return torch.tensor([0.2, 0.5, 0.8])


def test_what_stands_around_a_denoiser_is_one():
    inner = Peek()
    outer = Wrapper(Wrapper(inner))
    assert outer.schedule is inner.schedule and outer.low == inner.low and outer.table() is TABLE


def test_a_prediction_can_be_cropped_and_cut_off_from_its_graph(x_t):
    x_t = x_t.requires_grad_(True)
    prediction = Peek()(x_t, torch.full((3,), 0.5))
    short = prediction.cropped(2)
    assert short.x0.shape == (3, 2, D) and short.logits.shape == (3, 2, V) and short.hidden.shape == (3, 2, D)
    assert torch.equal(short.logits, prediction.logits[:, :2])
    cut = prediction.detach()
    assert prediction.x0.requires_grad and not any(x.requires_grad for x in (cut.x0, cut.logits, cut.hidden))
    assert torch.equal(cut.logits, prediction.logits)


def anchored(inner, noise):
    known = torch.tensor([[0, 6, 0, 2, 0]]).expand(len(noise), 5)
    mask = torch.tensor([[False, True, False, True, False]]).expand(len(noise), 5)
    return Anchored(inner, known, mask, noise), known, mask


def test_anchored_keeps_known_words_whatever_x_t_is(x_t, t):
    for scale in (0.0, 1.0, 1e3):
        inner = Peek()
        outer, known, mask = anchored(inner, torch.randn(3, 5, D))
        prediction = outer(x_t * scale, t)
        assert torch.equal(prediction.logits.argmax(-1)[mask], known[mask])
        assert torch.equal(prediction.x0[mask], TABLE[known[mask]])
        assert torch.equal(prediction.x0[~mask], scale * x_t[~mask])
        assert torch.equal(inner.given[0][~mask], scale * x_t[~mask])
        assert prediction.logits.softmax(-1).isfinite().all()


@pytest.mark.parametrize("time", [0.05, 0.4, 0.95])
def test_anchored_shows_the_network_the_known_word_as_noisy_as_the_rest(time):
    inner, count = Peek(), 20000
    outer, _, _ = anchored(inner, torch.randn(count, 5, D, generator=torch.Generator().manual_seed(2)))
    outer(torch.full((count, 5, D), 50.0), torch.full((count,), time))
    seen, alpha_bar = inner.given[0][:, 3], inner.schedule.alpha_bar(torch.tensor(time)).item()
    torch.testing.assert_close(seen.mean(0), alpha_bar**0.5 * TABLE[2], atol=0.03, rtol=0)
    torch.testing.assert_close(seen.var(0), torch.full((D,), 1 - alpha_bar), atol=0.03, rtol=0)


def test_anchored_follows_one_draw_of_noise_down_to_the_word():
    inner, noise = Peek(), torch.randn(1, 5, D)
    outer, known, _ = anchored(inner, noise)
    for time in (0.9, 0.5, 0.1):
        outer(torch.randn(1, 5, D), torch.tensor([time]))
        alpha_bar = inner.schedule.alpha_bar(torch.tensor(time))
        epsilon = (inner.given[0] - alpha_bar.sqrt() * TABLE[known]) / (1 - alpha_bar).sqrt()
        torch.testing.assert_close(epsilon[:, [1, 3]], noise[:, [1, 3]], atol=1e-4, rtol=1e-4)


def test_anchored_hands_on_the_prediction_before(x_t, t):
    inner = Peek()
    outer, *_ = anchored(inner, torch.randn(3, 5, D))
    previous = inner(x_t, t)
    outer(x_t, t, previous)
    assert inner.given[1] is t and inner.given[2] is previous


def test_without_noise_the_known_word_is_shown_as_it_is(x_t, t):
    """As released (infill.py): a clean vector among noisy ones."""
    inner = Peek()
    _, known, mask = anchored(inner, x_t)
    Anchored(inner, known, mask, noise=None)(x_t, t)
    assert torch.equal(inner.given[0][:, [1, 3]], TABLE[[6, 2]].expand(3, 2, D))


def test_anchored_reads_the_first_positions_of_a_shorter_x_t(x_t, t):
    inner, noise = Peek(), torch.randn(3, 5, D)
    within = torch.tensor([[True, False, True, False, True]]).expand(3, 5)
    known = torch.tensor([[0, 6, 0, 2, 0]]).expand(3, 5)
    outer = Anchored(inner, known, torch.tensor([[False, True, False, True, False]]).expand(3, 5), noise, within)
    whole = outer(x_t, t)
    for length in (1, 2, 4):
        short = outer(x_t[:, :length], t)
        torch.testing.assert_close(short.x0, whole.x0[:, :length])
        torch.testing.assert_close(short.logits, whole.logits[:, :length])


def test_places_that_hold_a_word_hold_no_special(x_t, t):
    within = torch.tensor([[False, True, False, True, True]]).expand(3, 5)
    nothing = torch.zeros(3, 5, dtype=torch.long), torch.zeros(3, 5, dtype=torch.bool)
    free = Peek()(x_t, t).logits
    logits = Anchored(Peek(), *nothing, torch.randn(3, 5, D), within)(x_t, t).logits
    assert (logits[:, [1, 3, 4]].softmax(-1)[..., :4] == 0).all()
    assert torch.equal(logits[..., 4:], free[..., 4:]) and torch.equal(logits[:, [0, 2]], free[:, [0, 2]])


def test_where_a_word_has_to_stand_the_estimate_holds_no_special(x_t, t):
    """Else the reverse step would move an open place before a fixed END towards PAD, at every temperature."""
    known, mask = torch.zeros(3, 5, dtype=torch.long), torch.zeros(3, 5, dtype=torch.bool)
    within = torch.tensor([[False, True, True, False, False]]).expand(3, 5)
    logits = torch.randn(3, 5, len(TABLE), generator=torch.Generator().manual_seed(3))
    logits[..., 3] += 20.0  # PAD is nearly certain

    class Sure(Peek):
        def __call__(self, x_t, t, previous=None):
            return Prediction(logits.softmax(-1) @ TABLE, logits, x_t)

    prediction = Anchored(Sure(), known, mask, None, within)(x_t, t)
    words = logits[..., 4:].softmax(-1) @ TABLE[4:]
    torch.testing.assert_close(prediction.x0[within], words[within])
    torch.testing.assert_close(prediction.x0[~within], (logits.softmax(-1) @ TABLE)[~within])
    warmer = Rounding(1.3)(prediction, t, TABLE)
    torch.testing.assert_close(warmer[within], ((logits[..., 4:] / 1.3).softmax(-1) @ TABLE[4:])[within])
