import itertools

import pytest
import torch

from diffcontrol.data.corpus import Corpus, Example
from tasks.semantic_content import SemanticContent

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


@pytest.fixture(scope="module")
def task() -> SemanticContent:
    return SemanticContent(Few())


def strict(task, text, field, value) -> float:
    return task.success([text.split()], [[field, value]])["strict"][0]


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
    ("not family friendly but for children", 1, 1),  # each said on its own
    ("family friendly , not family friendly", 1, 1),
    ("not family friendly not family friendly", 0, 1),
    ("family , friendly", 0, 0),
    ("adults only", 0, 1),
])  # fmt: skip
def test_a_form_within_a_longer_form_of_another_value_does_not_count(task, text, yes, no):
    assert strict(task, text, "family", "yes") == yes
    assert strict(task, text, "family", "no") == no


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


def test_scores_are_one_a_text_in_order(task):
    texts = ["Italian", "Chinese", "Italian burgers"]
    scores = task.success([text.split() for text in texts], [["food", "Italian"]] * 2 + [["food", "Fast food"]])
    assert scores == {"strict": [1, 0, 1], "released": [1, 0, 0]}
    with pytest.raises(ValueError, match=r"shorter|longer"):
        task.success([["Italian"]], [["food", "Italian"]] * 2)


@pytest.mark.parametrize(
    "given", [["food", "Fast food"], ("food", "Fast food"), "food: Fast food", "food : Fast food",
              ["food", ":", "Fast", "food"]],
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


def test_an_annotation_is_what_is_meant_and_said(task):
    said = Example(("an", "Italian", "place", "for", "children"), {"food": "Italian", "family": "no", "rating": "1"})
    assert task.annotate(said) == [["food", "Italian"]]  # family is said otherwise, rating not at all
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
    assert found.tolist() == [value in task.mentioned(text, "f") for text in texts]
