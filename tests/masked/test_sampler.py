from functools import partial

import pytest
import torch

from diffcontrol.draws import Draws
from diffcontrol.masked.guidance import Unguided
from diffcontrol.masked.sampler import Ancestral, ended, positions_in_use
from diffcontrol.text import END, PAD
from tests.masked.tabular import FIRST, Tabular, asked, frequencies

N = 40000
ERROR = 4 / N**0.5 * 0.5  # four standard errors of a frequency at most


def written(lm, sampler, ids, seed=0):
    ids = ids.clone()
    predict = partial(Unguided().predict, asked(lm, rows=len(ids)))
    shares = list(sampler(ids, lm.mask, predict, Draws(range(N * seed, N * seed + len(ids)))))
    assert shares[-1] == 1 and shares == sorted(shares)
    return ids


@pytest.mark.parametrize("steps", [None, 200])
def test_ancestral_sampling_reproduces_the_joint(steps):
    lm = Tabular()
    ids = written(lm, Ancestral(steps), torch.full((N, 3), lm.mask))
    assert (frequencies(lm, ids) - lm.joint).abs().max() < ERROR


def test_one_step_draws_every_place_by_itself():
    lm = Tabular()
    ids = written(lm, Ancestral(1), torch.full((N, 3), lm.mask))
    shares = lm.one_hot(lm.texts).transpose(0, 1).mul(lm.joint[:, None]).sum(1)  # of each word in each place
    alone = torch.stack([shares[place, lm.texts[:, place]] for place in range(3)]).prod(0)
    assert (frequencies(lm, ids) - alone).abs().max() < ERROR
    assert (alone - lm.joint).abs().max() > 2 * ERROR


@pytest.mark.parametrize("steps", [None, 200])
def test_known_words_stay_and_the_rest_follows_them(steps):
    lm = Tabular()
    known = torch.tensor([lm.mask, FIRST + 1, lm.mask])
    ids = written(lm, Ancestral(steps), known.expand(N, 3))
    assert (ids[:, 1] == FIRST + 1).all()
    assert (frequencies(lm, ids) - lm.posterior(known)).abs().max() < ERROR


def test_places_are_written_at_times_that_are_even_and_their_own():
    turns = Ancestral(10).turns(torch.ones(N, 2, dtype=torch.bool), Draws(range(N)))
    together = torch.bincount(turns[:, 0] * 10 + turns[:, 1], minlength=100) / N
    assert (together - 0.01).abs().max() < 0.003


def test_one_at_a_time_is_one_place_of_each_text_a_step():
    masked = torch.rand(50, 8, generator=torch.Generator().manual_seed(1)) < 0.6
    turns = Ancestral(None).turns(masked, Draws(range(50)))
    for row, places in zip(turns, masked, strict=True):
        assert sorted(row[places].tolist()) == list(range(int(places.sum())))


def test_the_network_reads_a_text_only_where_a_step_writes_in_it():
    lm = Tabular()
    written(lm, Ancestral(1000), torch.full((50, 3), lm.mask))
    assert lm.calls <= 50 * 3
    lm.calls = 0
    written(lm, Ancestral(1000), torch.tensor([[FIRST, FIRST, lm.mask]] * 50))
    assert lm.calls == 50


def test_what_is_written_stays():
    lm, ids = Tabular(), torch.full((20, 3), Tabular().mask)
    predict = partial(Unguided().predict, asked(lm, rows=20))
    before = ids.clone()
    for _ in Ancestral(7)(ids, lm.mask, predict, Draws(range(20))):
        assert torch.equal(ids[before != lm.mask], before[before != lm.mask])
        before = ids.clone()
    assert (ids != lm.mask).all()


def test_the_same_seeds_draw_the_same_texts():
    lm, start = Tabular(), torch.full((20, 3), Tabular().mask)
    assert torch.equal(written(lm, Ancestral(5), start, 1), written(lm, Ancestral(5), start, 1))
    assert not torch.equal(written(lm, Ancestral(5), start, 1), written(lm, Ancestral(5), start, 2))


def test_temperature_and_top_p_are_of_the_draw():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(N, 4)
    uniform = torch.rand(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = lambda **options: torch.bincount(Ancestral(**options).draw(logits, uniform), minlength=4) / N  # noqa: E731
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    torch.testing.assert_close(share(), logits[0].exp(), atol=ERROR, rtol=0)
    torch.testing.assert_close(share(temperature=0.5), squared / squared.sum(), atol=ERROR, rtol=0)
    torch.testing.assert_close(share(top_p=0.7), torch.tensor([0.625, 0.375, 0, 0]), atol=ERROR, rtol=0)
    torch.testing.assert_close(share(top_p=0.01), torch.tensor([1.0, 0, 0, 0]), atol=0, rtol=0)


def test_a_word_without_probability_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]] * 2)
    assert Ancestral().draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 1]


def test_behind_the_end_all_is_pad():
    mask = 9
    ids = torch.tensor([[0, mask, END, mask, 5], [0, PAD, mask, mask, mask], [0, mask, 7, mask, mask]])
    assert ended(ids, mask).tolist() == [[0, mask, END, PAD, 5], [0, PAD, PAD, PAD, PAD], [0, mask, 7, mask, mask]]
    assert positions_in_use(torch.tensor([[0, 5, END, PAD, PAD], [0, END, PAD, PAD, PAD]])) == 4


@pytest.mark.parametrize("options", [{"steps": 0}, {"temperature": 0}, {"top_p": 0}, {"top_p": 1.1}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Ancestral(**options)
