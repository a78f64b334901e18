"""Means, spreads, and paired differences with bootstrap intervals over seeds."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
MOST_SEEDS = 6  # 46,656 resamples


class Interval(NamedTuple):
    """A mean difference and its interval; bounds are NaN for a single seed."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def sign(self) -> int:
        """1 if the interval is above 0, -1 if below, otherwise 0."""
        return (self.low > 0) - (self.high < 0)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1), which is NaN for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def bootstrap(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of the mean, over all n**n resamples instead of random ones.

    Raises:
      ValueError: there are more values than MOST_SEEDS.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if len(values) > MOST_SEEDS:
        raise ValueError(f"At most {MOST_SEEDS} values are resampled exactly, got {len(values)}.")
    means = np.mean(list(itertools.product(values, repeat=len(values))), axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(means, tails, method="inverted_cdf")
    return float(low), float(high)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Interval | None:
    """The difference one - other over the seeds that both have; None without any."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    differences = [one[seed] - other[seed] for seed in seeds]
    return Interval(float(np.mean(differences)), *bootstrap(differences), len(seeds))
