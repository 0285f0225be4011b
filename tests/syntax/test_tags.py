import pytest

from diffcontrol.data.restaurants import Restaurants
from diffcontrol.syntax.tags import OF_TAG, UNIVERSAL, universal


def of(text: str) -> list[str]:
    """Universal tags of word/TAG pairs."""
    words, tags = zip(*(pair.rsplit("/", 1) for pair in text.split()), strict=True)
    return list(universal(tags, words))


def test_it_agrees_with_the_gold_tags_of_the_embedded_data():
    for example in Restaurants(size=1500, dev=0, test=0).splits["train"]:
        assert universal(example.tags, example.words) == example.universal


@pytest.mark.parametrize(("text", "tags"), [
    ("It/PRP is/VBZ cheap/JJ", "PRON AUX ADJ"),
    ("it/PRP has/VBZ been/VBN rated/VBN", "PRON AUX AUX VERB"),
    ("it/PRP has/VBZ a/DT rating/NN", "PRON VERB DET NOUN"),
    ("they/PRP do/VBP not/RB serve/VB fish/NN", "PRON AUX PART VERB NOUN"),
    ("they/PRP do/VBP fish/NN well/RB", "PRON VERB NOUN ADV"),
    ("does/VBZ it/PRP also/RB sell/VB wine/NN", "AUX PRON ADV VERB NOUN"),
    ("Has/VBZ n't/RB closed/VBN", "AUX PART VERB"),
    ("want/VBP to/TO book/VB", "VERB PART VERB"),
    ("close/RB to/TO the/DT river/NN", "ADV ADP DET NOUN"),
    ("while/IN near/IN town/NN", "SCONJ ADP NOUN"),
    ("as/IN it/PRP is/VBZ", "SCONJ PRON AUX"),
    ("as/IN a/DT treat/NN", "ADP DET NOUN"),
    ("this/DT is/VBZ that/WDT serves/VBZ", "PRON AUX PRON VERB"),
    ("this/DT old/JJ pub/NN", "DET ADJ NOUN"),
    ("their/PRP$ staff/NN fill/VB up/RP", "PRON NOUN VERB ADP"),
    ("£/$ 20/CD !/. nothing/NN", "SYM NUM PUNCT PRON"),
    ("The/DT Mill/NNP 's/POS food/NN may/MD please/VB", "DET PROPN PART NOUN AUX VERB"),
])  # fmt: skip
def test_words_and_neighbours_decide_where_the_penn_tag_does_not(text, tags):
    assert of(text) == tags.split()


def test_every_tag_has_a_universal_one_and_unknown_ones_are_x():
    assert set(OF_TAG.values()) <= set(UNIVERSAL) and len(UNIVERSAL) == 17
    assert of("hm/XYZ") == ["X"]
    assert universal((), ()) == ()


def test_every_word_needs_a_tag():
    with pytest.raises(ValueError, match="1 tags for 2 words"):
        universal(["DT"], ["the", "pub"])
