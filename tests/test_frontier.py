"""What is chosen for the comparison at one perplexity, in numbers worked out by hand."""

import math

import pytest

from diffcontrol.draws import Draws
from diffcontrol.frontier import as_node, at_entropy, lowest, match, settings_of
from diffcontrol.method import Method
from diffcontrol.methods.mixture import Mixture
from diffcontrol.refused import Refused
from diffcontrol.task import Request


def point(value, nll, strict, bits=6.0):
    return {
        "setting": {"scale": value},
        "fluency": {"nll": {"mean": nll}},
        "success": {"t": {"strict": {"mean": strict}}},
        "diversity": {"word_entropy": {"mean": bits}},
    }


POINTS = [point(1, 1.0, 0.2), point(2, 1.5, 0.5), point(3, 2.0, 0.4), point(4, 3.0, 1.0)]


def test_the_best_setting_within_the_level_or_a_share_of_two():
    assert match(POINTS, 0.5) == {"setting": {"scale": 1}, "beyond": True}
    assert match(POINTS, 1.0) == {"setting": {"scale": 1}}
    assert match(POINTS, 1.25) == {"setting": {"scale": 1}, "share": 0.5, "other": {"scale": 2}}
    assert match(POINTS, 1.5) == {"setting": {"scale": 2}}
    assert match(POINTS, 2.25) == {"setting": {"scale": 2}, "share": 0.5, "other": {"scale": 4}}  # not by way of 3
    assert match(POINTS, 9.0) == {"setting": {"scale": 4}}
    assert match([point(1, 1.0, 0.2)], 0.0) == {}  # nothing to choose
    assert match([point(1, 1.0, 0.5), point(2, 1.0, 0.5)], 2.0) == {"setting": {"scale": 1}}  # of equals the first


def test_the_level_is_the_lowest_that_all_swept_methods_reach():
    others = [point(1, 1.7, 0.0), point(2, 2.5, 0.1)]
    assert lowest({"unguided": [point(1, 9.0, 0.0)], "one": POINTS, "other": others}) == 1.7


def test_the_perplexity_at_an_entropy_lies_between_those_of_its_neighbours():
    points = [point(1, 1.0, 0.5, bits=5.0), point(4, 4.0, 0.5, bits=8.0), point(2, 2.0, 0.5, bits=6.0)]
    assert at_entropy(points, 6.0) == pytest.approx(math.exp(2.0))
    assert at_entropy(points, 6.5) == pytest.approx(math.exp(2.5))
    assert at_entropy(points, 4.9) is None and at_entropy(points, 8.1) is None  # never beyond what was tried
    assert at_entropy(points[:1], 5.0) is None


LM = {"_target_": "diffcontrol.autoregressive.causal_lm.CausalLM", "_partial_": True}
FUDGE = {"lm": LM, "predictors": {}, "strength": {}, "scale": 1.0, "pre_top_k": 200, "post_top_k": 10,
         "temperature": 1.0, "chunk": 50, "seed": 0, "_target_": "diffcontrol.methods.fudge.Fudge"}  # fmt: skip


def test_settings_are_all_combinations_and_one_where_nothing_varies():
    both = settings_of(FUDGE, {"post_top_k": [1, 2], "scale": [3]}, "fudge")
    assert both == [{"post_top_k": 1, "scale": 3}, {"post_top_k": 2, "scale": 3}]
    assert settings_of(FUDGE, {}, "fudge") == [{}]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"scale": 3}, r"sweep.fudge.scale=3: a list of values is needed"),
        ({"scale": []}, r"sweep.fudge.scale=\[\]: a list of values"),
        ({"scale": [1, "x"]}, "sweep.fudge.scale='x': allowed is a number from 0"),
        ({"scael": [1]}, "sweep.fudge.scael=1: Fudge has no such argument"),
    ],
)
def test_a_sweep_of_what_a_method_does_not_take_is_refused(sweep, said):
    with pytest.raises(Refused, match=said):
        settings_of(FUDGE, sweep, "fudge")


class Says(Method):
    def __init__(self, word):
        super().__init__(50, 0)
        self.word = word

    def models(self):
        return []

    def write(self, requests, draws, progress):
        return [[self.word, request.targets["t"]] for request in requests]


def test_a_mixture_writes_its_share_with_either_and_keeps_the_order():
    requests = [Request({"t": str(i)}) for i in range(1000)]
    texts = [text for (text,) in Mixture(Says("a"), Says("b"), 0.3).generate(requests, 1)]
    assert [number for _, number in texts] == [str(i) for i in range(1000)]
    assert 250 < sum(word == "b" for word, _ in texts) < 350
    for share, word in ((0.0, "a"), (1.0, "b")):
        found = Mixture(Says("a"), Says("b"), share).write(requests, Draws(range(1000)), lambda part: None)
        assert {first for first, _ in found} == {word}


def test_the_chosen_become_config_nodes():
    node = {"_target_": "x.Y", "scale": 1, "chunk": 7, "seed": 2}
    assert as_node(node, {}) == node
    assert as_node(node, {"setting": {"scale": 3}}) == {**node, "scale": 3}
    mixed = as_node(node, {"setting": {"scale": 3}, "share": 0.25, "other": {"scale": 9}})
    assert mixed == {"_target_": "diffcontrol.methods.mixture.Mixture", "one": {**node, "scale": 3},
                     "other": {**node, "scale": 9}, "share": 0.25, "seed": 2}  # fmt: skip
