"""The likelihood of the quantile recursion P <- (1-a) P + a min(1, P/rho), profiled over where it starts.

In: an `EliteSeries` and rho. Out: for any a the best P0; the best a and its profile interval. The curve has a kink
where P passes rho, so that derivatives are of no use: a grid finds the hill, Brent's search its top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit

from nas_ray.theory.elite_counts import EliteSeries

SMALLEST, LARGEST = 1e-300, 1 - 1e-15  # shares are kept inside, so that an impossible curve is bad but comparable
WEIGHTS = tuple(step / 40 for step in range(41))  # of a, to begin with
FINEST = 1e-10  # of a and of ln(P0 / (1-P0))


class QuantileProfile:
    """For each smoothing weight a the start P0 that fits best. Needs an elite and a non-elite somewhere."""

    def __init__(self, series: EliteSeries, rho: float) -> None:
        self._rho = rho
        cycles = series.t.astype(np.int64)
        elites, others = (np.bincount(cycles, column).tolist() for column in (series.K, series.F))
        self._counts: list[tuple[float, float]] = list(zip(elites, others, strict=True))
        # The best start is never so low that the last cycle could have no elite at full speed, nor so high that no draw
        # of the first would be without.
        draws = math.log(float(series.N.sum())) + 10
        reach = (len(elites) - 1) * math.log(1 / rho)
        self._log_odds: list[float] = np.linspace(-draws - reach, draws, math.ceil(2 * draws + reach) + 1).tolist()
        self.best = _climb(self.value, WEIGHTS)

    def value(self, a: float) -> float:
        """Profile log-likelihood at this weight, nats."""
        return self._height(self._climb(a), a)

    def start(self, a: float) -> float:
        """The best P0 at this weight."""
        return float(expit(self._climb(a)))

    def interval(self, drop: float) -> tuple[float, float]:
        """Weights whose profile log-likelihood is at most `drop` nats under the maximum, within 0 .. 1."""
        cut = self.value(self.best) - drop
        low, high = (
            end if self.value(end) >= cut else float(brentq(lambda a: self.value(a) - cut, end, self.best, xtol=FINEST))
            for end in (0.0, 1.0)
        )
        return low, high

    def _climb(self, a: float) -> float:
        return _climb(lambda log_odds: self._height(log_odds, a), self._log_odds)

    def _height(self, log_odds: float, a: float) -> float:
        """Log-likelihood of the curve that starts there, nats. Plain numbers: the series are too short for arrays."""
        share, total = float(expit(log_odds)), 0.0
        for elites, others in self._counts:
            inside = min(max(share, SMALLEST), LARGEST)
            total += elites * math.log(inside) + others * math.log1p(-inside)
            share = (1 - a) * share + a * min(1.0, share / self._rho)
        return total


def _climb(height: Callable[[float], float], grid: Sequence[float]) -> float:
    """Where a function is highest: the best point of the grid, and Brent's search between its neighbours."""
    heights = [height(point) for point in grid]
    top = max(range(len(grid)), key=heights.__getitem__)
    window = (grid[max(0, top - 1)], grid[min(len(grid) - 1, top + 1)])
    found = minimize_scalar(lambda point: -height(point), bounds=window, method="bounded", options={"xatol": FINEST})
    # The search never tries the ends of its window.
    return float(found.x) if -found.fun > heights[top] else grid[top]
