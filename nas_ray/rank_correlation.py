"""Do two measurements put the same candidates in the same order? Rank correlations with 95 % intervals.

In: two sequences of numbers, one pair for each candidate. Out: a `RankCorrelation`: Spearman's rho and Kendall's tau-b,
both of which know ties (accuracies on a few hundred images have many).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, kendalltau, spearmanr

from nas_ray.interval import LEVEL, Interval

FEWEST = 5  # candidates; of fewer an order says nothing
RESAMPLES = 2000  # of the bootstrap
SEED = 0  # of the bootstrap, so that the same rows always give the same interval


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """How far two orders of `count` candidates agree, from -1 (reversed) over 0 to 1 (the same)."""

    count: int
    spearman: Interval | None  # None for fewer than FEWEST candidates, and where one side is the same for all of them
    kendall: Interval | None  # likewise


def correlate(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> RankCorrelation:
    """Spearman's rho and Kendall's tau-b of pairs; raises ValueError for sequences of different lengths.

    Intervals are percentiles of a paired bootstrap over the candidates (Efron and Tibshirani, An introduction to the
    bootstrap, 1993, chapter 13), with RESAMPLES resamples: how far the numbers would vary with other candidates of the
    same kind. A resample in which one side is the same for all has no correlation, and is left out.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} numbers cannot be paired with {len(second)}")
    count = len(first)
    if count < FEWEST or len(set(first)) == 1 or len(set(second)) == 1:
        return RankCorrelation(count, None, None)
    pairs = (np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    return RankCorrelation(count, _estimate(spearmanr, pairs, level), _estimate(kendalltau, pairs, level))


def _estimate(correlation: Callable[..., Any], pairs: tuple[Any, Any], level: float) -> Interval:
    def statistic(left: Any, right: Any) -> float:
        return float(correlation(left, right).statistic)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that are the same all over
        resampled = bootstrap(
            pairs, statistic, n_resamples=RESAMPLES, paired=True, vectorized=False, method="percentile", rng=SEED
        ).bootstrap_distribution
    low, high = np.nanpercentile(resampled, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(low), statistic(*pairs), float(high))
