"""Judges: what tasks are given, and what is said of the judges themselves."""

import math

import numpy as np
import pytest

from diffcontrol.evaluation import evaluate, quality
from diffcontrol.report.layout import notes
from diffcontrol.task import Request
from tests.fakes import FakeCorpus, FakeTask


class Teacher:
    def nll(self, texts):
        return [2.0 * len(text) for text in texts], [len(text) + 1 for text in texts]


class Judge:
    def __init__(self, measures):
        self.measures = measures

    def quality(self, corpus):
        return self.measures


class Asks(FakeTask):
    def success(self, texts, targets, judges={}):  # noqa: B006  (the interface)
        self.judges = judges
        return super().success(texts, targets)


def test_tasks_are_given_all_judges_and_the_teacher_measures_fluency():
    task, judges = Asks(), {"teacher": Teacher(), "parser": object()}
    texts = [[["red", "cat"], ["dog"]], [["blue"], ["green", "bird"]]]
    found = evaluate(texts, [Request({"fake": "red"}), Request({"fake": "green"})], {"fake": task}, judges)
    assert task.judges is judges
    assert found.success["fake"]["strict"].tolist() == [[1, 0], [0, 1]]
    assert np.allclose(found.nats, [[4, 2], [2, 4]]) and found.tokens.tolist() == [[3, 2], [2, 3]]


def test_mauve_is_of_one_text_for_each_target_as_gold_has():
    class Mauve:
        def score(self, texts):
            self.texts = list(texts)
            return 0.5

    judges = {"teacher": Teacher(), "mauve": Mauve()}
    found = evaluate([[["red"], ["dog"]], [["cat"], ["a"]]], [Request({}), Request({})], {}, judges)
    assert judges["mauve"].texts == [["red"], ["cat"]] and found.mauve == 0.5


def test_judges_are_reported_where_the_data_know_the_truth():
    measure = {"mean": 0.984, "ci95": [0.97, 0.99], "n": 200}
    judges = {"teacher": Teacher(), "none": Judge({}), "parser": Judge({"f1": measure, "tag_accuracy": measure})}
    found = quality(judges, FakeCorpus())
    assert found == {"parser": {"f1": measure, "tag_accuracy": measure}}
    (line,) = notes({"judges": found, "data": "restaurants", "tasks": ["fake"], "methods": {}})
    assert line == (
        "The judge itself (parser), on 200 held-out gold annotations: f1 98.4 [97.0, 99.0] %, "
        "tag accuracy 98.4 [97.0, 99.0] %."
    )
    judges["parser"] = Judge({"f1": measure, "tag_accuracy": measure | {"n": 6}})
    (line,) = notes({"judges": quality(judges, FakeCorpus()), "data": "restaurants", "tasks": ["fake"], "methods": {}})
    assert "on 200 held-out gold annotations: f1 98.4" in line
    assert "on 6 held-out gold annotations: tag accuracy 98.4" in line


def test_several_tasks_are_also_scored_at_once():
    requests = [Request({"colour": "red", "animal": "cat"}), Request({"colour": "blue", "animal": "dog"})]
    tasks = {"colour": FakeTask(), "animal": FakeTask(["cat", "dog"])}
    found = evaluate([[["red", "cat"], ["red"]], [["dog"], ["blue", "dog"]]], requests, tasks, {"teacher": Teacher()})
    assert found.success["colour"]["strict"].tolist() == [[1, 1], [0, 1]]
    assert found.success["all"]["strict"].tolist() == found.success["all"]["released"].tolist() == [[1, 0], [0, 1]]
    alone = evaluate([[["red"]]], [Request({"colour": "red"})], {"colour": FakeTask()}, {"teacher": Teacher()})
    assert "all" not in alone.success


class Barks:
    """A grammar that has dogs alone."""

    def accepts(self, texts):
        return [float("dog" in text) for text in texts]


def test_grammar_is_a_measure_beside_perplexity_and_a_text_counts_that_is_met_and_grammatical():
    requests = [Request({"colour": "red", "animal": "dog"}), Request({"colour": "blue", "animal": "cat"})]
    tasks = {"colour": FakeTask(), "animal": FakeTask(["cat", "dog"])}
    texts = [[["red", "dog"], ["green", "dog"]], [["blue", "cat"], ["dog"]]]
    found = evaluate(texts, requests, tasks, {"teacher": Teacher(), "grammar": Barks()})
    row, lines = found.row(), list(found.samples("some", requests))
    assert row["fluency"]["grammatical"] == {"mean": 0.75, "ci95": [0.5, 1.0], "n": 2}  # means of targets: 1 and 1/2
    assert found.success["colour"]["met_and_grammatical"].tolist() == [[1, 0], [0, 0]]
    assert found.success["animal"]["met_and_grammatical"].tolist() == [[1, 1], [0, 0]]
    assert found.success["all"]["met_and_grammatical"].tolist() == [[1, 0], [0, 0]]
    assert row["success"]["animal"]["met_and_grammatical"]["mean"] == 0.5
    assert [line["grammatical"] for line in lines] == [1, 1, 0, 1]
    assert lines[1]["scores"]["all"] == {"strict": 0, "released": 0, "met_and_grammatical": 0}


class Counts:
    """A second language model, which thinks every word as likely as any other of four."""

    def nll(self, texts):
        return [math.log(4) * (len(text) + 1) for text in texts], [len(text) + 1 for text in texts]


def test_a_second_judge_of_fluency_stands_beside_the_first():
    requests = [Request({"fake": "red"}), Request({"fake": "green"})]
    judges = {"teacher": Teacher(), "ngram": Counts()}
    found = evaluate([[["red"]], [["a", "green"]]], requests, {"fake": FakeTask()}, judges)
    fluency = found.row()["fluency"]
    assert fluency["perplexity_ngram"]["mean"] == pytest.approx(4)
    assert fluency["nll"]["mean"] == pytest.approx((2 / 2 + 4 / 3) / 2)
    assert [line["nll_ngram"] for line in found.samples("some", requests)] == pytest.approx([math.log(4)] * 2)


class Halfway(FakeTask):
    def success(self, texts, targets, judges={}):  # noqa: B006  (the interface)
        return {"strict": [0.5] * len(texts), "released": [1.0] * len(texts)}


def test_what_is_met_in_part_is_not_met():
    judges = {"teacher": Teacher(), "grammar": Barks()}
    found = evaluate([[["dog"]]], [Request({"fake": "red"})], {"fake": Halfway()}, judges)
    assert found.success["fake"]["met_and_grammatical"].tolist() == [[0]]


@pytest.mark.parametrize("judges", [{}, {"grammar": None}])
def test_data_without_a_grammar_have_no_such_scores(judges):
    requests = [Request({"fake": "red"})]
    found = evaluate([[["red", "dog"]]], requests, {"fake": FakeTask()}, {"teacher": Teacher(), **judges})
    assert set(found.row()["fluency"]) == {"perplexity", "nll", "nll_micro", "perplexity_micro"}
    assert set(found.success["fake"]) == {"strict", "released"}
    assert "grammatical" not in next(found.samples("some", requests))


class Compares(FakeTask):
    def compared(self, texts, targets, sources):
        return {"same": [float(tuple(text) == source.words) for text, source in zip(texts, sources, strict=True)]}


def test_texts_are_compared_with_their_sources_where_all_have_one():
    sources, texts = FakeCorpus().splits["test"][:2], [[["red", "cat"]], [["dog"]]]
    requests = [Request({"fake": "red"}, source) for source in sources]
    texts[1] = [list(sources[1].words)]
    found = evaluate(texts, requests, {"fake": Compares()}, {"teacher": Teacher()})
    assert found.success["fake"]["same"].tolist() == [[0], [1]]
    own = evaluate(texts, [*requests[:1], Request({"fake": "red"})], {"fake": Compares()}, {"teacher": Teacher()})
    assert "same" not in own.success["fake"]
