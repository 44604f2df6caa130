"""95 % intervals for the two numbers that a cycle is judged by: a share and a mean.

In: counts, or values. Out: an `Interval`. Both treat the candidates of a cycle as independent draws of one generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import ndtri, stdtrit

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and its bounds."""

    low: float
    estimate: float
    high: float

    def as_values(self) -> dict[str, float | None]:
        """By name, for JSON; None for what is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in self._asdict().items()}


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval | None:
    """Wilson's score interval of a share, 0 .. 1; None without trials. Raises ValueError for impossible counts.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927): unlike the
    normal approximation it stays inside 0 .. 1 and keeps its level for few trials and for shares near the ends.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be from 0 to {trials} trials, not {successes}")
    if trials == 0:
        return None
    z = float(ndtri((1 + level) / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    # At the ends the formula gives 0 and 1 but for rounding.
    return Interval(max(0.0, min(centre - half, share)), share, min(1.0, max(centre + half, share)))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Student's t interval of a mean; None without values, and without width (nan bounds) for a single one."""
    count = len(values)
    if count == 0:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(math.nan, mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * math.sqrt(variance / count)
    return Interval(mean - half, mean, mean + half)


def mean_share(values: Sequence[float]) -> Interval | None:
    """`mean_interval` of shares, cut to 0 .. 1, whose ends Student's t knows nothing of; nan bounds stay."""
    interval = mean_interval(values)
    if interval is None or math.isnan(interval.low):
        return interval
    return Interval(max(interval.low, 0.0), interval.estimate, min(interval.high, 1.0))
