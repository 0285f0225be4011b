"""Judges: what tasks are given, and what is said of the judges themselves."""

import numpy as np

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


def test_judges_are_reported_where_the_data_know_the_truth():
    measure = {"mean": 0.984, "ci95": [0.97, 0.99], "n": 200}
    judges = {"teacher": Teacher(), "none": Judge({}), "parser": Judge({"f1": measure, "tag_accuracy": measure})}
    found = quality(judges, FakeCorpus())
    assert found == {"parser": {"f1": measure, "tag_accuracy": measure}}
    (line,) = notes({"judges": found, "data": "restaurants", "tasks": ["fake"], "methods": {}})
    assert line == (
        "the judge itself (parser), on 200 held-out gold annotations: f1 98.4 [97.0, 99.0] %, "
        "tag accuracy 98.4 [97.0, 99.0] %"
    )
