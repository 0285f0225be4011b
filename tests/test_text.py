import pytest
import torch

from diffcontrol.text import END, PAD, START, UNK, Vocabulary

WORDS = ("the", "cat", "sees", "a", "dog")


@pytest.mark.parametrize("text", [(), ("cat",), ("the", "cat", "sees", "the", "dog"), WORDS])
def test_decode_undoes_encode(text):
    vocabulary = Vocabulary(WORDS)
    ids = vocabulary.encode(text, 9)
    assert ids.shape == (9,)
    assert ids[0] == START and ids[len(text) + 1] == END and (ids[len(text) + 2 :] == PAD).all()
    assert vocabulary.decode(ids.tolist()) == list(text)
    assert vocabulary.decode(ids) == list(text)  # a tensor, too


def test_unknown_words_stay_visible_as_unk():
    vocabulary = Vocabulary(WORDS)
    ids = vocabulary.encode(["the", "zebra", "sees"], 6)
    assert ids[2] == UNK
    assert vocabulary.decode(ids) == ["the", "UNK", "sees"]


def test_a_text_that_just_fits_keeps_its_end_and_a_longer_one_loses_it():
    vocabulary = Vocabulary(WORDS)
    fits, longer = vocabulary.encode(["cat"] * 4, 6), vocabulary.encode(["cat"] * 5, 6)
    assert fits[-1] == END and vocabulary.decode(fits) == ["cat"] * 4
    assert END not in longer and vocabulary.decode(longer) == ["cat"] * 5
    assert vocabulary.decode(vocabulary.encode(["cat"] * 50, 6)) == ["cat"] * 5


def test_what_follows_the_first_end_is_no_text():
    vocabulary = Vocabulary(WORDS)
    cat, dog = vocabulary.ids["cat"], vocabulary.ids["dog"]
    assert vocabulary.decode([START, cat, PAD, dog, END, cat, END]) == ["cat", "dog"]


@pytest.mark.parametrize("words", [("cat", "dog", "cat"), ("cat", "PAD")])
def test_a_doubled_word_is_refused_by_name(words):
    with pytest.raises(ValueError, match=words[-1]):
        Vocabulary(words)


def test_a_text_that_writes_out_a_special_is_not_cut_by_it():
    texts = [["the", "END", "of", "START", "PAD"]] * 3
    vocabulary = Vocabulary.count(texts)
    assert vocabulary.words[4:] == ("the", "of")
    assert vocabulary.decode(vocabulary.encode(texts[0], 9)) == ["the", "UNK", "of", "UNK", "UNK"]


def test_counted_words_are_those_seen_more_often_in_first_seen_order():
    texts = [["b", "a", "b"], ["a", "c"], ["b", "c", "d"]]
    assert Vocabulary.count(texts, more_than=1).words[4:] == ("b", "a", "c")
    assert Vocabulary.count(texts, more_than=2).words[4:] == ("b",)
    assert torch.equal(Vocabulary.count(texts, more_than=2).encode(["a", "b"], 4), torch.tensor([START, UNK, 4, END]))
