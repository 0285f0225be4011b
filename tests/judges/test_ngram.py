"""KneserNey: a toy worked by hand, distributions that sum to one, words and contexts never seen."""

import math

import pytest

from diffcontrol.data.corpus import Corpus, Example, content_digest
from diffcontrol.judges.ngram import NEVER_FOLLOW, KneserNey
from diffcontrol.text import END, START, UNK
from tests.fakes import FakeCorpus


class Given(Corpus):
    length = 8

    def __init__(self, *texts: str):
        self.texts = texts

    def read(self, split: str) -> list[Example]:
        return [Example(tuple(text.split())) for text in self.texts]

    @property
    def digest(self) -> str:
        return content_digest(self.splits["train"])


def test_a_bigram_model_worked_by_hand():
    corpus = Given("a b", "a b", "a c")
    a, b = corpus.vocabulary.ids["a"], corpus.vocabulary.ids["b"]
    judge = KneserNey(corpus, order=2)
    # Different words stand before a: 1 (START), b: 1, c: 1, END: 2, so n1 = 3, n2 = 1 and the discount is 3/5. Outcomes
    # are a, b, c, UNK and END.
    shorter = (1 - 3 / 5 + 3 / 5 * 4 * (1 / 5)) / 5
    assert judge.probability(b, ()) == pytest.approx(shorter)
    # Seen once: a c, c END; twice: a b, b END. The discount is 2 / (2 + 2 · 2); b and c follow a, three times in all.
    assert judge.probability(b, (a,)) == pytest.approx((2 - 1 / 3 + 1 / 3 * 2 * shorter) / 3)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_what_may_follow_any_context_has_probabilities_that_sum_to_one(order):
    corpus = FakeCorpus()
    judge, word = KneserNey(corpus, order), corpus.vocabulary.ids
    outcomes = [i for i in range(len(corpus.vocabulary)) if i not in NEVER_FOLLOW]
    texts = [[START, word["a"], word["red"], word["cat"]], [UNK, UNK, word["big"], word["dog"]], [word["the"]] * 4]
    for context in (tuple(text[:size][-(order - 1) :]) for text in texts for size in range(1, order)):
        assert sum(judge.probability(i, context) for i in outcomes) == pytest.approx(1)
        assert min(judge.probability(i, context) for i in outcomes) > 0
    assert sum(judge.probability(i, ()) for i in outcomes) == pytest.approx(1)


def test_a_word_that_ends_many_phrases_is_likelier_in_a_new_place_than_a_frequent_one_of_a_single_phrase():
    corpus = Given("san francisco", "san francisco", "san francisco", "san francisco", "red cat", "big cat", "old dog")
    judge, word = KneserNey(corpus, order=2), corpus.vocabulary.ids
    assert judge.probability(word["cat"], (word["old"],)) > judge.probability(word["francisco"], (word["old"],))


def test_nll_is_the_sum_over_words_and_end():
    corpus = FakeCorpus()
    judge, word = KneserNey(corpus, order=3), corpus.vocabulary.ids
    sums, counts = judge.nll([["a", "cat"], [], ["zebra"], ["a"] * 50])
    a, cat = word["a"], word["cat"]
    chain = [(a, (START,)), (cat, (START, a)), (END, (a, cat))]
    assert sums[0] == pytest.approx(-sum(math.log(judge.probability(*step)) for step in chain))
    assert sums[2] == pytest.approx(-math.log(judge.probability(UNK, (START,)) * judge.probability(END, (START, UNK))))
    assert counts == [3, 1, 2, corpus.length - 1]


def test_it_prefers_texts_as_it_has_seen_them():
    corpus = FakeCorpus()
    sums, counts = KneserNey(corpus).nll([*(e.words for e in corpus.splits["test"]), ["sees", "a", "the", "red"]])
    per_word = [total / count for total, count in zip(sums, counts, strict=True)]
    assert max(per_word[:-1]) < per_word[-1]
