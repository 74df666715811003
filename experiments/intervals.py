"""Means with intervals, from a few repetitions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean and the ends of its interval; the ends are the mean where there is one value."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 2020
) -> Interval:
    """Mean with its percentile bootstrap interval; the same values give the same interval.

    Args:
      values: finite numbers, at least one.
      level: probability that the interval is meant to cover.
      resamples: number of samples drawn with replacement.
      seed: of the resampling.
    """
    x = np.asarray(values, float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"mekax: expected one or more finite values, got {x}.")
    rng = np.random.default_rng(seed)
    means = x[rng.integers(x.size, size=(resamples, x.size))].mean(axis=1)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(x.mean()), float(low), float(high))
