from functools import partial

import pytest
import torch

from diffcontrol.draws import Draws
from diffcontrol.masked.guidance import Exact, FirstOrder, Unguided
from diffcontrol.masked.sampler import Ancestral
from diffcontrol.steering.base import Control
from diffcontrol.text import END, PAD, START, UNK
from tests.masked.tabular import FIRST, Property, Tabular, asked, frequencies

N = 15000
ERROR = 4 / N**0.5 * 0.5


class Linear(Control):
    """log p = the sum of a number for each word in each place."""

    def __init__(self, lm):
        self.numbers = torch.randn(lm.places, lm.mask + 1, generator=torch.Generator().manual_seed(5)).double()

    def log_prob(self, look):
        return (look.x_t * self.numbers).sum((1, 2))


@pytest.fixture
def lm():
    return Tabular()


@pytest.fixture
def half(lm):
    """A text whose first word shows, and the other two places."""
    ids = torch.tensor([[FIRST + 2, lm.mask, lm.mask]])
    return ids, ids == lm.mask


def guided(guidance, lm, ids, places, *parts):
    return guidance.predict(asked(lm, *parts, rows=len(ids)), ids, places, list(range(len(ids)))).softmax(-1)


def test_the_time_is_the_share_of_words_that_is_masked_however_long_the_text_is(lm):
    shown, mask = FIRST, lm.mask
    texts = [
        [START, mask, shown, shown, mask, END, PAD, PAD],  # its end is known
        [START, mask, shown, shown, mask, END, PAD, PAD, PAD, PAD, PAD],  # beside a longer one
        [START, *[mask] * 4, END, PAD, PAD],
        [START, *[mask] * 7],  # nothing is known, nor where it ends
        [START, shown, END, PAD],
        [START, END],
    ]
    times = [float(asked(lm).look(lm.one_hot(torch.tensor([ids]))).t) for ids in texts]
    assert times == [0.5, 0.5, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_exact_is_the_equation_word_by_word(lm, half, strength):
    ids, places = half
    control = Property(lm)
    found = guided(Exact(top_k=99), lm, ids, places, (strength, control))
    for place in (1, 2):
        weights = []
        for word in range(FIRST, FIRST + 3):
            changed = ids[0].clone()
            changed[place] = word
            alone = lm.posterior(ids[0])[lm.texts[:, place] == word].sum()
            weights.append(alone * (lm.posterior(changed) @ control.given) ** strength)
        torch.testing.assert_close(found[0, place, FIRST:], torch.stack(weights) / sum(weights))


def test_exact_guidance_one_place_a_step_draws_from_the_posterior(lm):
    control, ids = Property(lm), torch.full((N, 3), lm.mask)
    predict = partial(Exact(top_k=99, block=10**6).predict, asked(lm, (1.0, control), rows=N))
    list(Ancestral(None)(ids, lm.mask, predict, Draws(range(len(ids)))))
    wanted = lm.joint * control.given / (lm.joint * control.given).sum()
    assert (frequencies(lm, ids) - wanted).abs().max() < ERROR
    assert (lm.joint - wanted).abs().max() > 2 * ERROR


def test_two_controls_are_weighed_and_summed(lm, half):
    ids, places = half
    one, other = Property(lm, seed=1), Property(lm, seed=2)
    both = guided(Exact(99), lm, ids, places, (2.0, one), (0.5, other))
    alone = [guided(Exact(99), lm, ids, places, part) for part in ((2.0, one), (0.5, other))]
    plain = guided(Unguided(), lm, ids, places)
    expected = (alone[0] * alone[1] / plain).nan_to_num()
    torch.testing.assert_close(both[places], (expected / expected.sum(-1, keepdim=True))[places])


def test_exact_writes_only_the_likeliest_words(lm, half):
    ids, places = half
    found, plain = guided(Exact(2), lm, ids, places, (1.0, Property(lm))), guided(Unguided(), lm, ids, places)
    for place in (1, 2):
        kept = found[0, place].nonzero()[:, 0].tolist()
        assert sorted(kept) == sorted(plain[0, place].topk(2).indices.tolist())


def test_the_block_does_not_matter(lm, half):
    ids, places = half
    few, many = (guided(Exact(3, block), lm, ids, places, (1.0, Property(lm))) for block in (1, 100))
    torch.testing.assert_close(few, many)


def test_first_order_is_the_slope_from_the_mask_to_each_word(lm, half):
    ids, places = half
    control, z, small = Property(lm), lm.one_hot(half[0]), 1e-6
    tilt = FirstOrder().predict(asked(lm, (1.0, control)), ids, places, [0])
    tilt = tilt - Unguided().predict(asked(lm), ids, places, [0])
    base = control.log_prob(asked(lm).look(z))
    for place in (1, 2):
        for word in range(FIRST, FIRST + 3):
            moved = z.clone()
            moved[0, place, word] += small
            moved[0, place, lm.mask] -= small
            slope = (control.log_prob(asked(lm).look(moved)) - base) / small
            torch.testing.assert_close(tilt[0, place, word], slope[0], atol=1e-5, rtol=1e-4)


def test_first_order_is_exact_where_the_control_is_linear(lm, half):
    ids, places = half
    part = (1.7, Linear(lm))
    first, exact = (guided(guidance, lm, ids, places, part) for guidance in (FirstOrder(), Exact(99)))
    torch.testing.assert_close(first[places], exact[places])


def test_without_strength_nothing_is_tilted(lm, half):
    ids, places = half
    plain = guided(Unguided(), lm, ids, places)
    for guidance in (FirstOrder(), Exact(99)):
        torch.testing.assert_close(guided(guidance, lm, ids, places, (0.0, Property(lm)))[places], plain[places])


def test_an_inner_place_holds_no_special():
    class Flat(Tabular):
        def __call__(self, z):
            prediction = super().__call__(z)
            return type(prediction)(prediction.x0, torch.zeros_like(prediction.logits), z)

    lm = Flat()
    inner = torch.tensor([[True, False, False]])
    found = Unguided().predict(asked(lm, inner=inner), torch.full((1, 3), lm.mask), inner, [0]).softmax(-1)
    assert found[0, 0, :FIRST].max() == 0 and found[0, 1, :FIRST].min() > 0


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="top_k=0"):
        Exact(0)


def test_no_candidate_is_unk_however_likely_it_is(lm, half):
    """With one candidate a place, the likeliest word is written although UNK is likelier."""
    ids, places = half

    class Doubtful(Tabular):
        def __call__(self, z):
            found = super().__call__(z)
            found.logits[..., UNK] = 50.0
            return found

    found = guided(Exact(top_k=1), Doubtful(), ids, places, (1.0, Property(lm)))
    assert (found.argmax(-1)[0, 1:] >= FIRST).all()
