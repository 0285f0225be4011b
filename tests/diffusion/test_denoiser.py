import pytest
import torch
from torch.nn import functional as F

from diffcontrol.diffusion.denoiser import Anchored, Clamped, Prediction, Tempered, Transformer
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


@pytest.mark.parametrize("wrap", [lambda d: Tempered(d, 0.5), Clamped], ids=["tempered", "clamped"])
def test_wrappers_are_denoisers_and_hand_on_what_they_get(wrap, x_t, t):
    inner = Peek()
    outer = wrap(wrap(inner))
    assert outer.schedule is inner.schedule and outer.low == inner.low and outer.table() is TABLE
    previous = inner(x_t, t)
    outer(x_t, t, previous)
    assert inner.given == (x_t, t, previous)


def test_tempered_is_the_expected_word_vector(x_t, t):
    logits = Peek()(x_t, t).logits
    torch.testing.assert_close(Tempered(Peek(), 1.0)(x_t, t).x0, logits.softmax(-1) @ TABLE)
    torch.testing.assert_close(Tempered(Peek(), 1e-4)(x_t, t).x0, TABLE[logits.argmax(-1)])
    torch.testing.assert_close(Tempered(Peek(), 1e6)(x_t, t).x0, TABLE.mean(0).expand(3, 5, D), atol=1e-5, rtol=0)
    torch.testing.assert_close(Tempered(Peek(), 0.3)(x_t, t).logits, logits)  # the words chosen at last stay the same


def test_clamped_is_the_nearest_word_vector_up_to_start(x_t, t):
    x0 = Clamped(Peek(), start=0.5)(x_t, t).x0
    for row, position in [(r, p) for r in range(2) for p in range(5)]:
        distances = [(x_t[row, position] - vector).square().sum().item() for vector in TABLE]
        assert torch.equal(x0[row, position], TABLE[distances.index(min(distances))])
    assert torch.equal(x0[2], x_t[2])  # at 0.8 it is too early
    always = Clamped(Peek())(x_t, torch.ones(3)).x0  # as released
    assert all((always[r, p] == TABLE).all(-1).any() for r in range(3) for p in range(5))


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


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = Transformer(inputs=D, width=16, depth=2, heads=2, positions=9)
    for block in network.blocks:  # as after training: at first time has no effect
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    return network.eval()


def test_transformer_reads_texts_up_to_its_length(transformer, x_t, t):
    assert transformer(x_t, t).shape == (3, 5, 16)
    assert transformer(torch.randn(2, 9, D), t[:2]).shape == (2, 9, 16)


def test_transformer_knows_the_time_of_every_row(transformer, x_t):
    same = x_t[:1].expand(3, 5, D)
    hidden = transformer(same, torch.tensor([0.2, 0.8, 0.2]))
    torch.testing.assert_close(hidden[0], hidden[2])
    assert (hidden[0] - hidden[1]).abs().max() > 1e-2
    close = transformer(same, torch.tensor([0.001, 0.002, 0.001]))  # the released 2,000 steps lie 0.0005 apart
    assert (close[0] - close[1]).abs().max() > 1e-3


def test_transformer_looks_both_ways_and_knows_places(transformer, x_t, t):
    hidden = transformer(x_t, t)
    later, earlier = x_t.clone(), x_t.clone()
    later[:, 4] += 1
    earlier[:, 0] += 1
    assert (transformer(later, t) - hidden)[:, 0].abs().max() > 1e-3
    assert (transformer(earlier, t) - hidden)[:, 4].abs().max() > 1e-3
    assert (transformer(x_t.flip(1), t).flip(1) - hidden).abs().max() > 1e-3


def test_rows_do_not_see_each_other(transformer, x_t, t):
    torch.testing.assert_close(transformer(x_t, t)[1:2], transformer(x_t[1:2], t[1:2]))
