"""Two curves that elite counts may follow where one geometric rate does not fit: the logistic and the plateau.

In: an `EliteSeries`. Out: `LogisticFit` and `PlateauFit`, at the highest likelihood; what the counts do not determine
is nan. The functions for callers, with their statements, are in `elite_rate_fits`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from nas_ray.theory.elite_counts import EliteSeries, Floats

RATES = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97)  # where the plateau's search starts; it can meet several hills
EDGE = 1e-12  # shares are kept so far from 0 and 1 while a search is under way
FINEST = 1e-9  # gradient at which a search ends, in nats


class LogisticFit(NamedTuple):
    """logit P_t = c0 + c1 t: the case a = 1, in which the odds of an elite grow by Lambda a cycle."""

    c0: float  # nan where c1 is infinite
    c1: float
    Lambda: float
    se_c1: float  # nan where c1 is not finite
    loglik: float
    deviance: float


class PlateauFit(NamedTuple):
    """P_t = plateau - (plateau - A0) r^t: growth that ends below 1, of leaky selection or a noisy count."""

    plateau: float  # nan for fewer than three cycles, as are A0 and r
    A0: float
    r: float  # nan where A0 and the plateau are the same
    loglik: float


def fit_logistic(series: EliteSeries) -> LogisticFit:
    """Newton's method on cycles that are centred and scaled; counts that a cycle separates are known beforehand."""
    elite, other = series.t[series.K > 0], series.t[series.F > 0]
    if len(elite) == 0 or len(other) == 0 or series.distinct == 1:
        share = float(series.K.sum() / series.N.sum())
        known = share in (0, 1) or series.t.max() == 0
        return _degenerate(series, float(logit(share)) if known else math.nan, math.nan)
    if elite.min() >= other.max():
        return _degenerate(series, math.nan, math.inf)
    if elite.max() <= other.min():
        return _degenerate(series, math.nan, -math.inf)
    middle, span = float(series.t.mean()), float(np.ptp(series.t))
    design = np.stack([np.ones_like(series.t), (series.t - middle) / span])

    def height(c: Floats) -> float:
        return float((series.N * np.logaddexp(0, c @ design) - series.K * (c @ design)).sum())

    def slope(c: Floats) -> Floats:
        return np.asarray(design @ (series.N * expit(c @ design) - series.K))

    def information(c: Floats) -> Floats:
        return np.asarray((design * (series.N * expit(c @ design) * expit(-(c @ design)))) @ design.T)

    found = minimize(height, np.zeros(2), method="trust-exact", jac=slope, hess=information, options={"gtol": FINEST})
    weight = series.N * expit(found.x @ design) * expit(-(found.x @ design))
    spread = float((weight * (series.t - np.average(series.t, weights=weight)) ** 2).sum())
    c1 = float(found.x[1]) / span
    return LogisticFit(
        c0=float(found.x[0]) - c1 * middle,
        c1=c1,
        Lambda=math.exp(c1),
        se_c1=1 / math.sqrt(spread),
        loglik=-float(found.fun),
        deviance=series.deviance(expit(found.x @ design)),
    )


def fit_plateau(series: EliteSeries) -> PlateauFit:
    """The best of several searches within 0 .. 1 for all three parameters."""
    if series.distinct < 3:
        return PlateauFit(math.nan, math.nan, math.nan, series.saturated)

    def curve(plateau: float, first: float, rate: float) -> Floats:
        return plateau - (plateau - first) * rate**series.t

    def height(point: Floats) -> tuple[float, Floats]:
        plateau, first, rate = point
        share = np.clip(curve(plateau, first, rate), EDGE, 1 - EDGE)
        pull = series.K / share - series.F / (1 - share)
        left = rate**series.t
        # t r^(t-1), which is 0 at t = 0 also for r = 0.
        turn = series.t * rate ** np.maximum(series.t - 1, 0)
        slope = [(pull * (1 - left)).sum(), (pull * left).sum(), -((plateau - first) * pull * turn).sum()]
        return -series.log_likelihood(share), -np.array(slope)

    order = np.argsort(series.t, kind="stable")
    ends = (series.K[order] + 0.5) / (series.N[order] + 1)
    searches = [
        minimize(
            height,
            np.array([plateau, ends[0], rate]),
            method="L-BFGS-B",
            jac=True,
            bounds=[(0, 1)] * 3,
            options={"ftol": 0, "gtol": FINEST, "maxiter": 1000},
        )
        for plateau in (ends[-1], 1.0)  # 1: the geometric law, which this one may not fall behind
        for rate in RATES
    ]
    plateau, first, rate = (float(value) for value in min(searches, key=lambda found: float(found.fun)).x)
    loglik = series.log_likelihood(curve(plateau, first, rate))
    return PlateauFit(plateau, first, rate if plateau != first else math.nan, loglik)


def _degenerate(series: EliteSeries, c0: float, c1: float) -> LogisticFit:
    """The limit in which every cycle has its own share."""
    return LogisticFit(c0, c1, float(np.exp(c1)), math.nan, series.saturated, series.deviance(series.shares))
