"""MAUVE: texts like people's score high, shuffled and repeated ones low; what is said where packages are missing."""

import random

import pytest

from diffcontrol.judges import mauve
from diffcontrol.judges.mauve import Mauve
from diffcontrol.refused import Refused
from tests.composing import composed
from tests.fakes import FakeCorpus


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(mauve, "find_spec", lambda name: None if name == "mauve" else object())
    with pytest.raises(Refused, match=r"judge=mauve needs mauve, .*; pip install 'diffcontrol\[mauve\]'"):
        Mauve(FakeCorpus())


def test_it_stands_beside_the_other_judges():
    assert set(composed("judge=mauve")["judge"]) == {*composed()["judge"], "mauve"}


def test_it_tells_people_from_word_salad_and_from_repetition():
    pytest.importorskip("mauve", reason="pip install 'diffcontrol[mauve]'")
    pytest.importorskip("sentence_transformers")
    corpus = FakeCorpus()
    judge = Mauve(corpus, references=100, repeats=2)
    people = [example.words for example in corpus.splits["train"][:100]]
    salad = [random.Random(i).sample(list(words), len(words)) for i, words in enumerate(people)]
    scores = [judge.score(texts) for texts in (people, salad, people[:1] * 100)]
    assert 1 >= scores[0] > scores[1] > scores[2] > 0
    assert judge.score(people[:1]) is None
