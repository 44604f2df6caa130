"""The likelihood of "non-elites shrink by one factor a cycle", profiled over where they start.

In: an `EliteSeries`. Out: the best slope, its profile interval, and for any slope the best level. The model is
1 - P_t = exp(b0 + b1 t) <= 1. Its log-likelihood is concave, but a first (or last) cycle without any elite can pull the
line up to the bound, where derivatives do not vanish; so it is solved by roots of one variable, for which a bound is
nothing special: the line is written as -(d + max(b1 t) - b1 t), with d >= 0 its distance from the bound.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import xlogy

from nas_ray.theory.elite_counts import EliteSeries, Floats

STEPS = 500  # at most, of a root search; bisection alone would need a tenth
FINEST = 1e-16  # absolute tolerance of a root


class GeometricProfile:
    """For each slope b1 the level that fits best. `best` is the maximum-likelihood slope.

    It is -inf where only the first cycle has non-elites and inf where only the last has, so that there is no finite
    maximum; nan where the counts say nothing of it: a single cycle, or nothing but elites.
    """

    def __init__(self, series: EliteSeries) -> None:
        self._series = series
        self._unit = 1 / span if (span := float(np.ptp(series.t))) else 1.0
        self.best = self._find_best()

    def distance(self, slope: float) -> float:
        """d of the best line with this slope; 0: it touches the bound."""
        series, below = self._series, self._below(slope)
        failures = float(series.F.sum())

        def rise(distance: float) -> float:
            return float(_pull(series.K, distance + below).sum()) - failures

        # Both ends are bounds of the root; the factors keep rounding from moving it out of them.
        nearest = 0.5 * math.log1p(float(series.K[below == 0].sum()) / failures)
        if nearest == 0 and rise(0.0) <= 0:
            return 0.0
        farthest = 2 * math.log1p(float(series.K.sum()) / failures)
        return float(brentq(rise, nearest, farthest, xtol=FINEST, maxiter=STEPS))

    def intercept(self, slope: float) -> float:
        """b0 of the best line with this slope."""
        return -(self.distance(slope) + float((slope * self._series.t).max()))

    def value(self, slope: float) -> float:
        """Profile log-likelihood, nats."""
        fall = self.distance(slope) + self._below(slope)
        return float((xlogy(self._series.K, -np.expm1(-fall)) - self._series.F * fall).sum())

    @property
    def maximum(self) -> float:
        """The highest log-likelihood (where there is no finite slope: its limit), nats."""
        return self.value(self.best) if math.isfinite(self.best) else self._series.saturated

    def interval(self, drop: float) -> tuple[float, float]:
        """Slopes whose profile log-likelihood is at most `drop` nats under the maximum; nan where best is."""
        if math.isnan(self.best):
            return math.nan, math.nan
        cut = self.maximum - drop
        inside = 0.0 if math.isinf(self.best) else self.best
        step = math.copysign(self._unit, self.best)
        while self.value(inside) < cut:  # only for an infinite best: go towards it
            inside, step = inside + step, 2 * step
        low = -math.inf if self.best == -math.inf else self._crossing(inside, cut, -self._unit)
        high = math.inf if self.best == math.inf else self._crossing(inside, cut, self._unit)
        return low, high

    def _find_best(self) -> float:
        series = self._series
        failing, last = series.t[series.F > 0], series.t.max()
        if series.distinct == 1 or len(failing) == 0:
            return math.nan
        if (failing == series.t.min()).all():
            return -math.inf
        if (failing == last).all():
            return math.inf
        start = self._gradient(0.0)
        if start == 0 or not series.K.any():
            return 0.0
        step = math.copysign(self._unit, start)
        end = step
        while self._gradient(end) * start > 0:
            end *= 2
        return float(brentq(self._gradient, 0.0, end, xtol=FINEST, maxiter=STEPS))

    def _gradient(self, slope: float) -> float:
        """Derivative of `value`: the level moves along, and where the line touches the bound it turns about there."""
        series, below = self._series, self._below(slope)
        pull = _pull(series.K, self.distance(slope) + below)
        return float(((series.F - pull) * (series.t - series.t[np.argmin(below)])).sum())

    def _crossing(self, inside: float, cut: float, step: float) -> float:
        outside = inside + step
        while self.value(outside) >= cut:
            inside, step = outside, 2 * step
            outside = inside + step
        return float(brentq(lambda slope: self.value(slope) - cut, inside, outside, xtol=FINEST, maxiter=STEPS))

    def _below(self, slope: float) -> Floats:
        """How far the line lies under its own highest point in each cycle."""
        return float((slope * self._series.t).max()) - slope * self._series.t


def _pull(elites: Floats, fall: Floats) -> Floats:
    """K g / (1-g) at g = exp(-fall): how strongly a cycle's elites pull the line down; 0 without any."""
    with np.errstate(over="ignore"):
        return np.asarray(np.divide(elites, np.expm1(fall), out=np.zeros_like(elites), where=elites > 0))
