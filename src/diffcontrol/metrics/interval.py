"""Means with 95 % bootstrap intervals over targets.

Samples of one target resemble each other, so the target is the unit: every value given is a target's mean over its
samples, and targets are what is resampled.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

RESAMPLES = 2000
_BATCH = 1_000_000  # values drawn at once, bounds memory


class Measure(TypedDict):
    """A number of results.json: the mean over n targets and its 95 % interval [low, high]."""

    mean: float
    ci95: list[float]
    n: int


def measure(per_target: ArrayLike) -> Measure:
    """Mean over targets with a 95 % percentile bootstrap interval; the same values always give the same interval.

    Raises:
        ValueError: no values, or one that is not a finite number.
    """
    values = np.asarray(per_target, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"interval: one value a target is needed, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"interval: the value of target {at} is {values[at]}, not a finite number")
    mean = float(values.mean())
    if values.min() == values.max():  # also one target: nothing to resample
        return {"mean": mean, "ci95": [mean, mean], "n": len(values)}
    low, high = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // len(values)),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {"mean": mean, "ci95": [float(low), float(high)], "n": len(values)}


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Measure:
    """Mean of a − b with its interval, paired by target: what both find hard cancels.

    Raises:
        ValueError: a and b are not of one length.
    """
    if len(a) != len(b):
        raise ValueError(f"interval: cannot pair {len(a)} targets with {len(b)}")
    return measure(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))


def perplexity(nll_per_target: ArrayLike) -> Measure:
    """Macro perplexity exp(mean NLL); exp is monotone, so the interval's ends are those of the NLL, mapped."""
    nll = measure(nll_per_target)
    return {"mean": math.exp(nll["mean"]), "ci95": [math.exp(end) for end in nll["ci95"]], "n": nll["n"]}


def jackknife(value: float, left_out: ArrayLike, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Measure:
    """A statistic of the whole set with a 95 % normal interval from its values with each target left out.

    For statistics that the bootstrap distorts because a target drawn twice repeats itself (distinct-n).
    """
    parts = np.asarray(left_out, dtype=float)
    n = len(parts)
    half = 1.96 * math.sqrt((n - 1) / n * float(((parts - parts.mean()) ** 2).sum())) if n > 1 else 0.0
    return {"mean": value, "ci95": [max(bounds[0], value - half), min(bounds[1], value + half)], "n": n}
