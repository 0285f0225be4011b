import math

import numpy as np
import pytest

from diffcontrol.metrics import interval


def width(measure: interval.Measure) -> float:
    low, high = measure["ci95"]
    return high - low


def test_interval_contains_the_mean_and_shrinks_with_n():
    values = np.random.default_rng(0).normal(3, 1, 900)
    small, large = interval.measure(values[:9]), interval.measure(values)
    for measure in (small, large):
        assert measure["ci95"][0] < measure["mean"] < measure["ci95"][1]
    assert large["n"] == 900
    assert large["mean"] == pytest.approx(values.mean())
    assert 5 < width(small) / width(large) < 20  # √100 = 10


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(0, 2, 400)
    assert width(interval.measure(values)) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


@pytest.mark.parametrize("values", [[0.5], [0.1] * 7, [1, 1]])  # no bounds: a length of 1 is not at an end of anything
def test_constant_data_gives_a_point(values):
    measure = interval.measure(values)
    assert measure["ci95"] == [measure["mean"]] * 2
    assert measure["mean"] == pytest.approx(values[0])
    assert measure["n"] == len(values)


def test_targets_that_all_fail_or_all_succeed_prove_neither_0_nor_1():
    all_met, none_met = (interval.measure([value] * 50, interval.SHARE) for value in (1.0, 0.0))
    assert all_met["ci95"] == pytest.approx([0.9289, 1.0], abs=1e-4)  # 0.025 ** (1 / 50)
    assert none_met["ci95"] == pytest.approx([0.0, 0.0711], abs=1e-4)
    assert all_met["mean"] == 1.0 and none_met["mean"] == 0.0


@pytest.mark.parametrize("values", [[1.0], [0.5] * 9, [0.0, 1.0, 1.0]])
def test_bounds_change_nothing_for_one_target_or_between_them(values):
    assert interval.measure(values, interval.SHARE) == interval.measure(values)


def test_two_methods_that_agree_everywhere_may_differ_on_targets_not_seen():
    low, high = interval.paired([1.0] * 50, [1.0] * 50, interval.SHARE)["ci95"]
    assert -low == high == pytest.approx(0.0711, abs=1e-4)
    opposed = interval.paired([1.0] * 50, [0.0] * 50, interval.SHARE)
    assert opposed["ci95"] == pytest.approx([1 - 2 * 0.0711, 1], abs=1e-3)
    assert interval.paired([2.5] * 5, [2.5] * 5)["ci95"] == [0.0, 0.0]


def test_same_values_same_interval_in_plain_json_types():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert interval.measure(values) == interval.measure(values)
    assert [type(end) for end in interval.measure(values)["ci95"]] == [float, float]


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_what_is_not_a_number_a_target_is_refused(values):
    with pytest.raises(ValueError, match="interval: "):
        interval.measure(values)


def test_pairing_narrows_the_interval_of_correlated_methods():
    rng = np.random.default_rng(2)
    hardness = rng.normal(0, 1, 100)
    a, b = hardness + rng.normal(0.3, 0.2, 100), hardness + rng.normal(0, 0.2, 100)
    difference = interval.paired(a, b)
    assert difference["mean"] == pytest.approx(a.mean() - b.mean())
    assert width(difference) < 0.5 * width(interval.measure(a))
    assert difference["ci95"][0] > 0  # seen only because paired
    with pytest.raises(ValueError, match="cannot pair 3 targets with 2"):
        interval.paired([1, 2, 3], [1, 2])


def test_perplexity_is_the_exponential_of_the_nll_and_so_are_its_ends():
    nll = np.random.default_rng(3).normal(1.7, 0.3, 50)
    plain, perplexity = interval.measure(nll), interval.perplexity(nll)
    assert perplexity["mean"] == pytest.approx(math.exp(plain["mean"]))
    assert perplexity["ci95"] == pytest.approx([math.exp(end) for end in plain["ci95"]])
    assert perplexity["n"] == 50


def test_coverage_on_simulated_successes():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        low, high = interval.measure(rng.binomial(5, 0.7, 60) / 5)["ci95"]
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_jackknife_of_a_mean_is_its_normal_interval():
    values = np.random.default_rng(5).normal(0.5, 0.1, 80)
    left_out = [(values.sum() - v) / 79 for v in values]
    measure = interval.jackknife(values.mean(), left_out)
    assert width(measure) == pytest.approx(2 * 1.96 * values.std(ddof=1) / math.sqrt(80))
    assert interval.jackknife(0.99, [0.5, 1.0], bounds=(0.0, 1.0))["ci95"][1] == 1.0
    assert interval.jackknife(0.3, [0.3])["ci95"] == [0.3, 0.3]
