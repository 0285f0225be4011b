"""Sums over the states of an automaton, against sums over all texts."""

import itertools
import math

import pytest
import torch

from diffcontrol.automaton import Automaton, Some, Stacked, anything, pattern, words
from diffcontrol.chain import Chain
from diffcontrol.text import END, PAD, START, UNK

V, L = 7, 4  # START, END, UNK, PAD and three words


def phrase() -> Automaton:
    """Texts that contain the words 4 5."""
    rest = Some(anything(V), 0, None)
    return pattern([rest, Some(words([4], V)), Some(words([5], V)), rest], V)


def two_words() -> Automaton:
    return pattern([Some(anything(V), 2, 2)], V)


AUTOMATA = [phrase(), two_words(), phrase() & two_words()]


def enumerated(automaton: Automaton, probs: torch.Tensor) -> tuple[float, torch.Tensor]:
    """p(accepted) and the joint probability of acceptance and each word at each place [L V], text by text."""
    total, joint = 0.0, torch.zeros_like(probs)
    for text in itertools.product(range(V), repeat=L):
        if automaton.accepts(torch.tensor([[START, *text]]))[0]:
            p = float(torch.stack([probs[i, w] for i, w in enumerate(text)]).prod())
            total += p
            for i, w in enumerate(text):
                joint[i, w] += p
    return total, joint


@pytest.fixture(scope="module")
def probs() -> torch.Tensor:
    return torch.rand(len(AUTOMATA), L, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)


def test_the_probability_of_acceptance_is_the_sum_over_all_texts(probs):
    found = Chain(Stacked.of(AUTOMATA), probs).log_prob()
    for row, automaton in enumerate(AUTOMATA):
        assert found[row].exp().item() == pytest.approx(enumerated(automaton, probs[row])[0])


def test_factors_make_the_words_probabilities_those_of_accepted_texts(probs):
    factors = Chain(Stacked.of(AUTOMATA), probs).factors()
    for row, automaton in enumerate(AUTOMATA):
        conditioned = probs[row] * factors[row].exp()
        total, joint = enumerated(automaton, probs[row])
        torch.testing.assert_close(conditioned / conditioned.sum(-1, keepdim=True), joint / total)


def test_the_gradient_of_the_log_probability_is_that_of_finite_differences(probs):
    chain = Stacked.of(AUTOMATA)
    assert torch.autograd.gradcheck(lambda p: Chain(chain, p).log_prob(), probs.clone().requires_grad_(True))


@pytest.mark.parametrize(("natural", "wanted"), [(18, 12), (20, 14), (14, 30), (16, 16)])
def test_states_that_no_text_can_be_in_do_not_hide_the_others(natural, wanted):
    """The state after END goes on through certain PADs without loss, where no text of the wanted length is yet."""
    size, length, sure = 8, 64, 0.995
    probs = torch.full((1, length, size), (1 - sure) / (size - 1))
    probs[0, :natural, 4], probs[0, natural, END], probs[0, natural + 1 :, PAD] = sure, sure, sure
    probs /= probs.sum(-1, keepdim=True)
    probs.requires_grad_(True)
    chain = Chain(Stacked.of([pattern([Some(anything(size), wanted, wanted)], size)]), probs)
    words = [UNK, *range(PAD + 1, size)]  # every id that is a word
    expected = (
        probs[0, :wanted, words].sum(-1).log().sum()
        + probs[0, wanted, END].log()
        + probs[0, wanted + 1 :, PAD].log().sum()
    )
    assert chain.log_prob().item() == pytest.approx(expected.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(chain.log_prob().sum(), probs)
    assert gradient.isfinite().all()
    assert chain.factors().exp()[0, wanted].argmax() == END  # it conditions


def test_the_gradient_towards_a_phrase_that_is_all_but_impossible_is_finite():
    """Five words in a row and END, of a probability of 3e-9 each, are less than float32 holds."""
    size, length = 330, 20
    phrase = pattern([Some(words(range(size), size), 0, length), *(Some(words([w], size), 1, 1) for w in range(5, 10)),
                      Some(words(range(size), size), 0, length)], size)  # fmt: skip
    logits = torch.zeros(1, length, size).index_fill(2, torch.tensor([40]), 40.0).requires_grad_()
    probs = (1 - 1e-6) * logits.softmax(-1) + 1e-6 / size
    found = Chain(Stacked.of([phrase]), probs).log_prob()
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient.isfinite().all() and gradient[..., 5:10].abs().sum() > 0
    assert found.item() == pytest.approx(math.log(length - 5) + 6 * math.log(1e-6 / size), abs=0.01)


def test_texts_of_many_unlikely_words_do_not_underflow():
    size, length = 50, 40
    wanted = pattern([Some(words([4], size), length - 1, length - 1)], size)
    probs = torch.full((1, length, size), 1e-7)
    probs[..., 7] = 1 - 49e-7  # another word is nearly certain everywhere
    found = Chain(Stacked.of([wanted]), probs)
    assert found.log_prob().item() == pytest.approx(40 * torch.tensor(1e-7).log().item(), rel=1e-3)
    assert (found.factors()[0, :-1].argmax(-1) == 4).all()
