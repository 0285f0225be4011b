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
    assert vocabulary.decode([START, cat, dog, END, cat, END]) == ["cat", "dog"]


def test_specials_within_a_text_stay_visible():
    """A text of a model that writes PAD or START between words is not the text without them."""
    vocabulary = Vocabulary(WORDS)
    cat, dog = vocabulary.ids["cat"], vocabulary.ids["dog"]
    for special, name in ((PAD, "PAD"), (START, "START"), (UNK, "UNK")):
        assert vocabulary.decode([START, cat, special, dog, END, PAD]) == ["cat", name, "dog"]
        assert vocabulary.decode([START, special, dog, END, PAD]) == [name, "dog"]
        assert vocabulary.decode([START, cat, special, END, PAD]) == ["cat", name]
        assert vocabulary.decode([START, cat, special, dog]) == ["cat", name, "dog"]  # a text that does not end


def test_only_start_in_front_and_the_padding_are_left_out():
    vocabulary = Vocabulary(WORDS)
    cat, dog = vocabulary.ids["cat"], vocabulary.ids["dog"]
    assert vocabulary.decode([cat, dog, END]) == ["cat", "dog"]  # what is written after a prompt has no START
    assert vocabulary.decode([PAD, dog, END]) == ["PAD", "dog"]
    for padding in range(4):  # a text without END is the same however many positions were computed behind it
        assert vocabulary.decode([START, cat, PAD, dog] + [PAD] * padding) == ["cat", "PAD", "dog"]
    for nothing in ([], [END], [START], [START, END, cat], [START, PAD, PAD], [PAD]):
        assert vocabulary.decode(nothing) == []


def test_of_unknown_words_those_that_are_known_otherwise_are_written():
    vocabulary = Vocabulary(WORDS)
    cat = vocabulary.ids["cat"]
    assert vocabulary.decode([START, cat, UNK, END], {0: "START", 2: "zebra", 3: "END"}) == ["cat", "zebra"]


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
