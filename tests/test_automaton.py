"""Automata against the definition of what they accept, on all texts of a small vocabulary and on random ones."""

import itertools

import pytest
import torch

from diffcontrol.automaton import DEAD, Automaton, Some, Stacked, anything, classed, explored, pattern, words
from diffcontrol.text import END, PAD, START, UNK

A, B, C = 4, 5, 6
SIZE = 7
LENGTH = 7  # positions
TEXTS = [text for n in range(6) for text in itertools.product([UNK, A, B, C], repeat=n)]
ANY = anything(SIZE)


def laid(texts) -> torch.Tensor:
    return torch.tensor([([START, *text, END] + [PAD] * LENGTH)[:LENGTH] for text in texts])


def accepted(automaton: Automaton) -> set:
    found = automaton.accepts(laid(TEXTS)).tolist()
    return {text for text, good in zip(TEXTS, found, strict=True) if good}


def one(*ids: int) -> Some:
    return Some(words(ids, SIZE))


def contains(text, phrase) -> bool:
    return any(text[i : i + len(phrase)] == phrase for i in range(len(text)))


PATTERNS = {
    "length": ([Some(ANY, 3, 3)], lambda t: len(t) == 3),
    "range": ([Some(ANY, 1, 3)], lambda t: 1 <= len(t) <= 3),
    "all": ([Some(ANY, 0, None)], lambda t: True),
    "nothing": ([], lambda t: t == ()),
    "first": ([one(A), Some(ANY, 0, None)], lambda t: t[:1] == (A,)),
    "tags": ([one(A, B), one(B, C), one(A)], lambda t: len(t) == 3 and t[0] in (A, B) and t[1] in (B, C) and t[2] == A),
    "phrase": ([Some(ANY, 0, None), one(A), one(A), one(B), Some(ANY, 0, None)], lambda t: contains(t, (A, A, B))),
    "gap": ([one(A), Some(ANY, 1, 2), one(B), one(B)], lambda t: 4 <= len(t) <= 5 and t[0] == A and t[-2:] == (B, B)),
    "free": ([one(A), Some(ANY, 1, None), one(A)], lambda t: len(t) >= 3 and t[0] == t[-1] == A),
    "never": ([Some(words([], SIZE))], lambda t: False),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_accepts_what_it_says(name):
    parts, meant = PATTERNS[name]
    assert accepted(pattern(parts, SIZE)) == {text for text in TEXTS if meant(text)}


@pytest.mark.parametrize("pair", itertools.combinations(PATTERNS, 2), ids="+".join)
def test_a_product_accepts_what_both_accept(pair):
    one, two = (pattern(PATTERNS[name][0], SIZE) for name in pair)
    both = one & two
    assert accepted(both) == accepted(one) & accepted(two)
    again = both.minimal()
    assert len(again) == len(both) == len(two & one) and again.table.shape == both.table.shape


def test_as_few_states_and_classes_as_can_be():
    found = pattern(PATTERNS["phrase"][0], SIZE)
    assert len(found) == 2 + 4  # dead, after END, and 0 to 3 words of the phrase
    assert found.table.shape[1] == 6  # A, B, other words, START, END, PAD
    assert len(pattern(PATTERNS["never"][0], SIZE)) == 1 and len(pattern(PATTERNS["all"][0], SIZE)) == 3
    assert (found.table[DEAD] == DEAD).all() and not found.accepting[DEAD]


def test_only_texts_that_are_laid_out_are_accepted():
    found = pattern(PATTERNS["all"][0], SIZE)
    wrong = [[START, A, A, A], [START, A, PAD, END], [A, A, END, PAD], [START, START, END, PAD], [START, END, PAD, A],
             [START, END, END, PAD], [END, PAD, PAD, PAD]]  # fmt: skip
    assert not found.accepts(torch.tensor(wrong)).any()
    assert found.accepts(torch.tensor([[START, END, PAD, PAD], [START, A, UNK, END]])).all()


def test_the_table_of_words_is_that_of_their_classes():
    found = pattern(PATTERNS["gap"][0], SIZE)
    states, ids = torch.meshgrid(torch.arange(len(found)), torch.arange(SIZE), indexing="ij")
    assert torch.equal(found.next, found.step(states, ids))


def test_how_much_is_left():
    found = pattern(PATTERNS["gap"][0], SIZE)
    assert found.left[found.start] == 5  # four words and END
    assert found.left[DEAD] == torch.inf and found.left[found.accepting].eq(0).all()
    assert found.left[found.read(torch.tensor([[A, C]]))] == 3


def test_a_machine_of_ones_own():
    """An even number of A."""
    classes, members = classed([words([A], SIZE)], SIZE)
    found = explored(classes, 0, lambda odd, word: odd ^ int(members[0, word]), lambda odd: odd == 0)
    assert accepted(found) == {text for text in TEXTS if text.count(A) % 2 == 0}
    assert len(found) == 4


def test_stacked_automata_are_the_same():
    automata = [pattern(parts, SIZE) for parts, _ in PATTERNS.values()]
    stacked = Stacked.of(automata)
    rows = torch.arange(len(automata))
    for text in TEXTS[::37]:
        states = stacked.start
        for word in laid([text])[0, 1:].tolist():
            states = stacked.table[rows, states, stacked.classes[:, word]]
        found = stacked.accepting[rows, states].tolist()
        assert found == [meant(text) for _, meant in PATTERNS.values()]
