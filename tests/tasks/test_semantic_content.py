import itertools

import pytest
import torch
from diffcontrol.tasks.semantic_content import SemanticContent

from diffcontrol.data.corpus import SPLITS, Corpus, Example
from diffcontrol.data.restaurants import Restaurants
from diffcontrol.text import Vocabulary
from tests.data.test_table import SHARED, shipped

FORMS = {
    "family": {"yes": ["family friendly", "for children"], "no": ["not family friendly", "adults only"]},
    "rating": {"1": ["1 out of 5", "1 star"], "11": ["11 star"]},
    "food": {"Fast food": ["fast food", "burgers"]},  # the other values count as themselves
}
TRAIN = [
    ({"food": "Italian", "family": "no"}, "Aromi is not family friendly and serves Italian food"),
    ({"food": "Fast food", "rating": "1"}, "a 1 star place for Burgers"),
    ({"food": "Chinese", "family": "yes", "rating": "11"}, "Chinese food for children , 11 star"),
]


class Few(Corpus):
    forms, length, digest = FORMS, 16, "few"

    def read(self, split):
        return [Example(tuple(text.split()), fields) for fields, text in TRAIN]


class Cased(Corpus):
    """Two spellings of a value, one with a colon, one as a table spells what a tokeniser takes apart, one too rare."""

    length, digest = 16, "cased"

    def read(self, split):
        rows = [({"food": "Italian"}, "they serve Italian food ."), ({"food": "italian"}, "they serve italian food ."),
                ({"open": "10:30"}, "it opens at 10:30 ."), ({"price": "£ 20 - 25"}, "it costs £ 20 - 25 ."),
                ({"food": "Breton"}, "they serve rare food .")]  # fmt: skip
        return [Example(tuple(text.split()), fields) for fields, text in rows]

    @property
    def vocabulary(self):
        return Vocabulary(dict.fromkeys(word for example in self.splits["train"] for word in example.words))


def test_values_that_share_a_form_are_both_said_by_it():
    task = SemanticContent(Cased())
    for value in ("Italian", "italian"):
        for text in ("they serve Italian food .", "they serve italian food ."):
            assert strict(task, text, "food", value) == mentioned(task, text, "food", value) == 1
        automaton = task.automaton(task.corpus.vocabulary)(["food", value])
        assert automaton.left[automaton.start].isfinite()


@pytest.mark.parametrize(("given", "found"), [
    ("open: 10:30", ["open", "10:30"]), (["open", ":", "10:30"], ["open", "10:30"]),
    (["price", "£20-25"], ["price", "£ 20 - 25"]), ("price: £20-25", ["price", "£ 20 - 25"]),
])  # fmt: skip
def test_a_value_may_be_spelled_as_in_the_users_table(given, found):
    assert SemanticContent(Cased()).parse(given) == found


def test_a_value_whose_words_are_too_rare_is_refused_and_not_asked_for():
    task = SemanticContent(Cased())
    with pytest.raises(ValueError, match="words of 'Breton' are too rare in the training texts"):
        task.parse(["food", "Breton"])
    assert task.targets([["food", "Breton"], ["food", "Italian"]]) == [["food", "Italian"]]


@pytest.fixture(scope="module")
def task() -> SemanticContent:
    return SemanticContent(Few())


def strict(task, text, field, value) -> float:
    return task.success([text.split()], [[field, value]])["strict"][0]


def mentioned(task, text, field, value) -> float:
    return task.success([text.split()], [[field, value]])["mentioned"][0]


def released(task, text, field, value) -> float:
    return task.success([text.split()], [[field, value]])["released"][0]


@pytest.mark.parametrize(("text", "is_strict", "is_released"), [
    ("Aromi serves Italian food", 1, 1),
    ("Aromi serves Italianate food", 0, 1),  # a substring of a longer word
    ("Aromi serves italian food", 1, 0),  # whatever its case; the released scorer is case-sensitive
    ("Aromi serves food", 0, 0),
    ("Italian", 1, 1),
    ("", 0, 0),
])  # fmt: skip
def test_a_value_counts_as_whole_words(task, text, is_strict, is_released):
    assert strict(task, text, "food", "Italian") == is_strict
    assert released(task, text, "food", "Italian") == is_released


@pytest.mark.parametrize(("text", "yes", "no"), [
    ("it is family friendly .", 1, 0),
    ("it is not family friendly .", 0, 1),  # the longest form wins
    ("not family friendly but for children", 1, 1),  # each on its own
    ("family friendly , not family friendly", 1, 1),
    ("not family friendly not family friendly", 0, 1),
    ("family , friendly", 0, 0),
    ("adults only", 0, 1),
])  # fmt: skip
def test_a_form_within_a_longer_form_of_another_value_does_not_count(task, text, yes, no):
    assert mentioned(task, text, "family", "yes") == yes
    assert mentioned(task, text, "family", "no") == no
    both = yes and no  # a text that contradicts itself says neither
    assert strict(task, text, "family", "yes") == (yes and not both)
    assert strict(task, text, "family", "no") == (no and not both)


def test_released_finds_no_in_another_and_in_not(task):  # as its published numbers do
    assert released(task, "another place", "family", "no") == 1
    assert strict(task, "another place", "family", "no") == 0


@pytest.mark.parametrize(("text", "one", "eleven"), [("1 star", 1, 0), ("11 star", 0, 1), ("a 1 out of 5", 1, 0)])
def test_a_form_is_not_found_within_a_word(task, text, one, eleven):
    assert strict(task, text, "rating", "1") == one
    assert strict(task, text, "rating", "11") == eleven


def test_a_form_counts_for_its_own_field_alone(task):
    assert strict(task, "burgers", "food", "Fast food") == 1
    assert strict(task, "burgers", "food", "Chinese") == 0
    assert strict(task, "burgers", "rating", "1") == 0


SORREL = {"name": "Sorrel", "near": "Iron Bridge", "price": "cheap", "family": "yes", "rating": "one star"}
WRITTEN = [
    (SORREL, "Sorrel is cheap and family friendly near the Iron Bridge and has one star ."),
    ({"name": "Indian Queen", "food": "Indian", "near": "Sorrel", "rating": "two stars"},
     "the Indian Queen near Sorrel serves Indian food , two stars"),
    ({"family": "no"}, "adults only"),
]  # fmt: skip


class Places(Few):
    forms = {"family": {"yes": ["family friendly", "children are welcome"], "no": ["adults only"]}}  # noqa: RUF012

    def read(self, split):
        return [Example(tuple(text.split()), fields) for fields, text in WRITTEN]


@pytest.fixture(scope="module")
def places() -> SemanticContent:
    return SemanticContent(Places())


@pytest.mark.parametrize(("text", "field", "value", "said"), [
    ("it has one star", "rating", "one star", 1),
    ("it has one star and one star", "rating", "one star", 1),
    ("it has one star and gets two stars", "rating", "one star", 0),
    ("it has one star and gets two stars", "rating", "two stars", 0),
    # in its role
    ("it is near the Iron Bridge", "near", "Iron Bridge", 1),
    ("close to Iron Bridge it lies", "near", "Iron Bridge", 1),
    ("Opposite the iron bridge it lies", "near", "Iron Bridge", 1),
    ("the Iron Bridge is near", "near", "Iron Bridge", 0),
    ("Iron Bridge is cheap", "near", "Iron Bridge", 0),
    ("it is cheap . the Iron Bridge has one star", "near", "Iron Bridge", 0),
    ("the Iron Bridge is near the Iron Bridge", "near", "Iron Bridge", 0),
    ("it is called the Iron Bridge", "near", "Iron Bridge", 0),
    ("a pub near Sorrel is cheap", "name", "Sorrel", 0),
    ("a pub called Sorrel is cheap", "name", "Sorrel", 1),
    # a name of both fields
    ("a pub near Sorrel is cheap", "near", "Sorrel", 1),
    ("Sorrel is cheap", "near", "Sorrel", 0),
    ("Sorrel is near the Iron Bridge", "near", "Iron Bridge", 1),
    ("the Indian Queen lies near Sorrel", "name", "Indian Queen", 1),
    # a value within another field's
    ("the Indian Queen is cheap", "food", "Indian", 0),
    ("the Indian Queen serves Indian food", "food", "Indian", 1),
    # denied
    ("children are welcome", "family", "yes", 1),
    ("family friendly . children are n't welcome", "family", "yes", 0),
    ("family friendly . children are not welcome", "family", "yes", 0),
    ("it is not cheap", "price", "cheap", 0),
    ("it is not far , and cheap", "price", "cheap", 1),
    ("Cheap , but never cheap", "price", "cheap", 0),
    ("not adults only", "family", "no", 0),
])  # fmt: skip
def test_strict_is_what_a_reader_takes_the_text_to_say(places, text, field, value, said):
    scores = places.success([text.split()], [[field, value]])
    assert scores["strict"] == [said]
    assert scores["mentioned"] == [1]


@pytest.mark.parametrize(("text", "field", "value"), [
    ("the pub gets five stars and has a rating of three stars .", "rating", "three stars"),
    ("families are welcome . children are n't welcome .", "family", "yes"),
    ("The Iron Bridge is a mid-priced tavern .", "near", "Iron Bridge"),
])  # fmt: skip
def test_what_methods_wrote_to_meet_a_target_without_saying_it(embedded, text, field, value):
    scores = embedded.success([text.split()], [[field, value]])
    assert (scores["mentioned"], scores["strict"]) == ([1], [0])


def test_a_classifier_sees_what_is_mentioned_but_only_what_is_said_is_asked_for(places):
    torn = Example(("Sorrel", "has", "one", "star", "or", "two", "stars"), SORREL)
    assert places.annotate(torn) == [["name", "Sorrel"], ["rating", "one star", "unsaid"]]
    assert places.targets(places.annotate(torn)) == [["name", "Sorrel"]]
    head = places.head(6)
    hidden = torch.randn(1, 5, 6)
    whole = head.loss(hidden, [[["name", "Sorrel"], ["rating", "one star"]]])
    assert head.loss(hidden, [places.annotate(torn)]) == whole


@pytest.fixture(scope="module")
def embedded() -> SemanticContent:
    return SemanticContent(Restaurants(size=2000, dev=200, test=200, seed=7))


def all_said(task) -> None:
    """Every mention that a text of the data is annotated with counts, so that gold has 100 % by strict."""
    for split in SPLITS:
        rows = [(e.words, pair) for e in task.corpus.splits[split] for pair in task.annotate(e)]
        assert all(len(pair) == 2 for _, pair in rows)
        scores = task.success([words for words, _ in rows], [pair for _, pair in rows])
        assert len(rows) > len(task.corpus.splits[split]) and set(scores["strict"]) == set(scores["mentioned"]) == {1}


def test_the_embedded_texts_say_all_that_they_mention(embedded):
    all_said(embedded)


@pytest.mark.slow
def test_the_embedded_texts_in_their_full_number_say_all_that_they_mention():
    all_said(SemanticContent(Restaurants()))


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "e2e").is_dir(), reason=f"E2E does not lie in {SHARED / 'e2e'}")
def test_of_what_e2e_mentions_hardly_anything_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("datasets").config, "HF_DATASETS_CACHE", tmp_path)
    task = SemanticContent(shipped(SHARED / "e2e"))
    rows = [
        (example.words, task.annotate(example)) for split in ("dev", "test") for example in task.corpus.splits[split]
    ]
    asked = [(words, target) for words, annotation in rows for target in task.targets(annotation)]
    unsaid = [pair for _, annotation in rows for pair in annotation if len(pair) > 2]
    assert len(asked) > 38000 and len(unsaid) < 0.015 * len(asked)
    assert all(task.targets(annotation) for _, annotation in rows)  # every text can still be a source
    scores = task.success([words for words, _ in asked], [target for _, target in asked])
    assert set(scores["strict"]) == {1}


def test_scores_are_one_a_text_in_order(task):
    texts = ["Italian", "Chinese", "Italian burgers"]
    scores = task.success([text.split() for text in texts], [["food", "Italian"]] * 2 + [["food", "Fast food"]])
    assert scores == {"strict": [1, 0, 0], "released": [1, 0, 0], "mentioned": [1, 0, 1]}  # the third has Italian too
    with pytest.raises(ValueError, match=r"shorter|longer"):
        task.success([["Italian"]], [["food", "Italian"]] * 2)


@pytest.mark.parametrize(
    "given", [["food", "Fast food"], ("food", "Fast food"), "food: Fast food", "food : Fast food",
              ["food", ":", "Fast", "food"], {"pos": ["START", "X", "END"], "attr": ["food", ":", "Fast", "food"]}],
)  # fmt: skip
def test_a_target_is_a_pair_a_string_or_the_released_form(task, given):
    assert task.parse(given) == ["food", "Fast food"]


@pytest.mark.parametrize(("given", "said"), [
    (["fod", "Italian"], "no field 'fod'; known are family, food, rating"),
    (["food", "Thai"], "food has no value 'Thai'; known are Chinese, Fast food, Italian"),
    ("Italian", "Italian.* is not a target; write .field, value."),
    (["food"], "not a target"), (["food", "Fast", "food"], "not a target"), ([], "not a target"),
    (3, "3 is not a target"), (None, "None is not a target"), ({"food": "Italian"}, "not a target"),
])  # fmt: skip
def test_what_is_no_target_is_refused_with_what_is_known(task, given, said):
    with pytest.raises(ValueError, match=f"semantic_content: .*{said}"):
        task.parse(given)


def test_an_annotation_is_what_the_text_says_whatever_was_meant(task):
    said = Example(("an", "Italian", "place", "for", "children"), {"food": "Italian", "family": "no", "rating": "1"})
    assert task.annotate(said) == [["food", "Italian"], ["family", "yes"]]  # as the text says, rating not at all
    unknown = Example(("a", "Thai", "place"), {"food": "Thai", "near": "Thai"})
    assert task.annotate(unknown) == []  # neither can be asked for: no model has ever seen it
    for example in task.corpus.splits["train"]:
        assert dict(task.annotate(example)) == example.fields
        assert task.targets(task.annotate(example)) == task.annotate(example)


def test_targets_are_prompts_for_those_who_read_words(task):
    assert task.serialize(["food", "Fast food"]) == ["food", ":", "Fast", "food"]
    assert task.parse(task.serialize(["food", "Fast food"])) == ["food", "Fast food"]


def test_the_head_knows_every_pair_of_the_training_data(task):
    assert set(task.pairs) == {
        ("family", "no"), ("family", "yes"), ("food", "Chinese"), ("food", "Fast food"), ("food", "Italian"),
        ("rating", "1"), ("rating", "11"),
    }  # fmt: skip
    head = task.head(6)
    log_prob = head.log_prob(torch.randn(7, 5, 6), [list(pair) for pair in task.pairs])
    assert log_prob.shape == (7,) and (log_prob < 0).all()


class Overlapping(Few):
    """Forms that overlap with one another and with themselves."""

    forms = {"f": {"1": ["a b", "b a b"], "2": ["b b a", "c"], "3": ["a a b c", "b c"]}}  # noqa: RUF012

    def read(self, split):
        return [Example(("a", "b", "c", "d"), {"f": value}) for value in "123"]


@pytest.mark.parametrize("value", "123")
def test_the_automaton_knows_which_of_overlapping_forms_count(value):
    task = SemanticContent(Overlapping())
    make, vocabulary = task.automaton(task.corpus.vocabulary), task.corpus.vocabulary
    texts = [text for n in range(8) for text in itertools.product("abcd", repeat=n) if n < 7 or "d" not in text]
    found = make(["f", value]).accepts(torch.stack([vocabulary.encode(text, 16) for text in texts]))
    assert found.tolist() == [task.says(text, "f", value) for text in texts]
