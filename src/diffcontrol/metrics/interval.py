"""Means with 95 % intervals over targets: a bootstrap, and an exact one where all targets have the score 0 or all 1.

Samples of one target resemble each other, so the target is the unit: every value given is a target's mean over its
samples, and targets are what is resampled. Where all targets agree there is nothing to resample, but a share of 1 on 50
targets is no proof of 1: of a score with bounds the interval is then that of Clopper and Pearson for n of n targets.
"""

import math
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap

RESAMPLES = 2000
SHARE = (0.0, 1.0)  # the bounds of success, of grammatical, of accuracies
_BATCH = 1_000_000  # values drawn at once, bounds memory


class Measure(TypedDict):
    """A number of results.json: the mean over n targets and its 95 % interval [low, high]. One target has no interval:
    both ends are the mean, and tables show none."""

    mean: float
    ci95: list[float]
    n: int


def measure(per_target: ArrayLike, bounds: tuple[float, float] | None = None) -> Measure:
    """Mean over targets with a 95 % percentile bootstrap interval; the same values always give the same interval.

    bounds: the least and the greatest value that there can be. Where all targets have the same one of
    the two, the interval is the exact one (Clopper–Pearson); a mixture of both is bootstrapped. Without bounds, and
    between them, it is a point where all targets have one value.

    Raises:
        ValueError: no values, or one that is not a finite number.
    """
    values = np.asarray(per_target, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"interval: one value a target is needed, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"interval: the value of target {at} is {values[at]}, not a finite number")
    mean, n = float(values.mean()), len(values)
    low = high = mean
    if values.min() < values.max():
        low, high = bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // n),
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    elif bounds and n > 1:
        reach = _unseen(n) * (bounds[1] - bounds[0])
        low -= reach if mean == bounds[1] else 0.0
        high += reach if mean == bounds[0] else 0.0
    return {"mean": mean, "ci95": [float(low), float(high)], "n": n}


def _unseen(n: int) -> float:
    """The greatest share of targets that an event can have which none of n showed: the upper Clopper–Pearson end."""
    return float(binomtest(0, n).proportion_ci(0.95, "exact").high)


def paired(a: ArrayLike, b: ArrayLike, bounds: tuple[float, float] | None = None) -> Measure:
    """Mean of a − b with its interval, paired by target: what both find hard cancels.

    bounds: those of a and of b. Where the two agree on every target, the interval reaches as far to either side as
    targets on which they differ can have gone unseen.

    Raises:
        ValueError: a and b are not of one length.
    """
    one, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(one) != len(other):
        raise ValueError(f"interval: cannot pair {len(one)} targets with {len(other)}")
    width = bounds[1] - bounds[0] if bounds else 0.0
    found = measure(one - other, (-width, width) if bounds else None)
    if bounds and found["n"] > 1 and not (one - other).any():
        reach = _unseen(found["n"]) * width
        found["ci95"] = [-reach, reach]
    return found


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
