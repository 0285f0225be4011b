import math

import pytest
import torch
from diffcontrol.tasks.attribute import Attribute

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.data.part import Part
from diffcontrol.judges.labels import LabelJudge
from diffcontrol.refused import Refused
from diffcontrol.task import spelling
from tests.fakes import FakeCorpus, train


class Reviews(Corpus):
    length, digest = 8, "reviews"

    def read(self, split):
        rows = [("good", "yes"), ("bad", "no"), ("fine", "yes")]
        return [
            Example((word, "food"), {}, {"liked": liked, "source": "web", "stars": "5"}) for word, liked in rows
        ] + [Example(("some", "food"), {}, {"stars": "1 of 5"})]


@pytest.fixture(scope="module")
def task() -> Attribute:
    return Attribute(Reviews())


class Says:
    """A judge that is sure."""

    def __init__(self, value):
        self.value = value

    def judge(self, texts):
        return [{"liked": {"yes": 0.2, "no": 0.8} if self.value == "no" else {"yes": 0.9, "no": 0.1}} for _ in texts]


def test_the_judge_decides_and_a_text_of_nothing_has_no_property(task):
    texts, targets = [["bad", "food"], []], [["liked", "no"], ["liked", "no"]]
    found = task.success(texts, targets, {"labels": Says("no")})
    assert found == {"strict": [1, 0], "released": [1, 0], "probability": [0.8, 0]}
    assert task.success(texts, targets, {"labels": Says("yes")})["strict"] == [0, 0]
    with pytest.raises(ValueError, match="attribute: scoring needs the judge `labels`"):
        task.success(texts, targets)


def test_a_value_that_the_judge_never_saw_is_said(task, caplog):
    assert task.success([["good", "food"]], [["stars", "5"]], {"labels": Says("yes")})["strict"] == [0]
    assert "the judge knows no stars: 5" in caplog.text


class Weighs:
    """A judge whose log-odds are a sum over the words."""

    def judge(self, texts):
        odds = [sum({"bad": 30.0, "good": -2.0, "food": 0.1}.get(word, 0.0) for word in words) for words in texts]
        return [{"liked": {"no": 1 / (1 + math.exp(-o)), "yes": 1 / (1 + math.exp(o))}} for o in odds]


def test_the_words_that_the_judge_goes_by_are_marked_and_neighbours_together(task):
    texts = [["bad", "food", "good", "bad", "bad"], ["food"], []]
    found = task.marks(texts, [["liked", "no"]] * 3, {"labels": Weighs()})  # p("no") is 1 to the last digit
    assert found == [[(0, 1, True, "liked"), (2, 3, False, "liked"), (3, 5, True, "liked")], [], []]
    assert task.marks([["bad"]], [["liked", "yes"]], {"labels": Weighs()}) == [[(0, 1, False, "liked")]]
    assert task.marks([["bad"]], [["liked", "no"]]) == [[]]


def test_labels_that_tell_nothing_cannot_be_asked_for(task):
    assert task.labels.values == {"liked": ["no", "yes"], "stars": ["1 of 5", "5"]}
    annotations = [task.annotate(example) for example in task.corpus.splits["train"]]
    assert annotations[0] == [["liked", "yes"], ["stars", "5"]] and annotations[3] == [["stars", "1 of 5"]]
    only = Attribute(Reviews(), label="liked")
    assert only.targets(annotations[0]) == [["liked", "yes"]] and only.targets(annotations[3]) == []
    with pytest.raises(ValueError, match="label=mood is no label of the data; known are liked, stars"):
        Attribute(Reviews(), label="mood").targets(
            Attribute(Reviews(), label="mood").annotate(Example(("a",), {}, {"x": "y"}))
        )


@pytest.mark.parametrize("given", [["stars", "1 of 5"], ("stars", "1 of 5"), "stars: 1 of 5", "stars : 1 of 5"])
def test_a_target_is_a_pair_or_a_text(task, given):
    assert task.parse(given) == ["stars", "1 of 5"] and task.serialize(task.parse(given))[1:] == [":", "1", "of", "5"]


@pytest.mark.parametrize(("given", "said"), [
    (["mood", "fond"], "no label 'mood'; known are liked, stars"),
    (["stars", "3"], "stars has no value '3'; known are 1 of 5, 5"), ("stars", "write .label, value."),
])  # fmt: skip
def test_what_is_no_target_is_refused_with_what_is_allowed(task, given, said):
    with pytest.raises(ValueError, match=f"attribute: .*{said}"):
        task.parse(given)


@pytest.mark.parametrize("label", [None, "liked"])
def test_a_label_that_is_always_the_same_is_named(label):
    class Alike(Reviews):
        def read(self, split):
            return [Example(("food",), labels={"liked": "yes"}), Example(("fish",), labels={"liked": "yes"})]

    with pytest.raises(Refused, match="the label 'liked' is 'yes' in every training text that has it"):
        Attribute(Alike(), label).parse(["liked", "yes"])


def test_data_without_labels_are_refused():
    class Bare(Reviews):
        def read(self, split):
            return [Example(("food",))]

    with pytest.raises(ValueError, match="attribute: the data have no labels; set data.labels"):
        Attribute(Bare()).parse(["liked", "yes"])


def test_the_head_is_a_softmax_for_each_label_and_learns_from_texts_that_lack_one(task):
    torch.manual_seed(0)
    head, hidden = task.head(6), torch.randn(1, 8, 6)
    values = [head.log_prob(hidden, [["stars", value]]).exp() for value in ("1 of 5", "5")]
    torch.testing.assert_close(sum(values), torch.ones(1))
    assert head.loss(hidden, [[]]) == 0
    torch.testing.assert_close(head.loss(hidden, [[["stars", "5"]]]), -values[1].log()[0])


def test_guide_and_judge_read_no_text_in_common_and_all_between_them():
    corpus = FakeCorpus(200)
    parts = [Part(corpus, 0), Part(corpus, 1)]
    texts = [{(e.words, tuple(e.fields.items())) for e in part.splits["train"]} for part in parts]
    about = [{frozenset(e.fields.items()) for e in part.splits["train"]} for part in parts]
    assert not about[0] & about[1]  # nor two texts of one meaning representation
    assert len(parts[0].splits["train"]) + len(parts[1].splits["train"]) == 200 and all(texts)
    assert parts[0].digest != parts[1].digest and parts[0].vocabulary is corpus.vocabulary
    assert parts[0].splits["test"] == corpus.splits["test"]
    with pytest.raises(ValueError, match="part 2 of 2"):
        Part(corpus, 2)


class Alike(Corpus):
    """One of `values` as the only field of each text, and a label that all but one of the texts share."""

    length, digest = 8, "alike"

    def __init__(self, values: int, n: int = 120):
        self.values, self.n = values, n

    def read(self, split):
        return [Example(("text", str(i)), {"food": f"food {i % self.values}"}, {"mood": "bad" if i else "good"})
                for i in range(self.n)]  # fmt: skip


@pytest.mark.parametrize("values", [1, 2, 60])
def test_fields_that_many_texts_share_do_not_say_on_which_part_a_text_falls(values):
    for part in (0, 1):
        assert 40 <= len(Part(Alike(values), part).splits["train"]) <= 80


def test_texts_too_few_for_guide_and_judge_are_refused():
    with pytest.raises(ValueError, match="of 1 training texts none falls on part [12] of 2"):
        for part in (0, 1):
            _ = Part(Alike(1, n=1), part).splits["train"]
    with pytest.raises(ValueError, match="in the .* texts that its judge learns from, each label has one value only"):
        for part in (0, 1):  # the only text with the other value falls on one of them
            LabelJudge(Part(Alike(1), part), {"steps": 1, "batch_size": 2, "lr": 1e-2, "warmup": 0})


@pytest.mark.parametrize(("known", "found"), [(["TRUE", "FALSE"], "TRUE"), (["yes", "no"], "True")])
def test_a_value_that_hydra_reads_as_true_is_the_one_that_the_data_spell(known, found):
    assert spelling(True, known) == found and spelling(5, known) == "5" and spelling("x", known) == "x"


def test_the_judge_learns_and_says_how_good_it_is():
    corpus = FakeCorpus(200)
    torch.manual_seed(0)
    judge = LabelJudge(corpus, {"steps": 60, "batch_size": 16, "lr": 1e-2, "warmup": 5}, width=8)
    losses = train(judge, 60)
    assert losses[-1] < 0.3 < losses[0]
    quality = judge.quality(corpus)
    assert set(quality) == {"mood_accuracy"} and quality["mood_accuracy"]["mean"] > 0.9
    (said,) = judge.judge([["a", "cat", "likes"]])
    assert said["mood"]["fond"] > 0.5 and sum(said["mood"].values()) == pytest.approx(1)
