"""R3, predictions: how fast the share of elites grows when the bar stays where it is.

In: today's share P of programs over one fixed bar, the smoothing weight a, how well the selection works. Out: shares
and cycles to come. Time is in cycles; P, P0 and targets are shares, 0 .. 1, g = 1 - P is what is still missing.

Every statement assumes the mixture step p_{t+1} = (1-a) p_t + a p_E (see `cross_entropy`) and independent draws. A real
fine-tuning only resembles it: compare with `elite_rate_fits` before believing a forecast.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_ray.theory.inputs import require_not_negative, require_open_share, require_share

ROUNDING = 1e-9  # of a cycle: a whole number of cycles must not become one more for the last digit


class LeakyRate(NamedTuple):
    """Factor by which g shrinks in one cycle."""

    one_step_ratio: float  # at this P
    asymptotic_rate: float  # in the long run


class LeakyPath(NamedTuple):
    """Shares of elites, (t + 1,) each, of which the first is the present."""

    P: NDArray[np.float64]
    bound: NDArray[np.float64]  # a lower bound that holds for all cycles


class NeverSampled(NamedTuple):
    """Probability that a family of programs is never drawn."""

    exact: float
    bound: float
    bound_infinite: float  # bound for endless cycles


def leaky_rate(P: float, a: float, Lam: float) -> LeakyRate:
    """By what factor the share g of non-elites shrinks when selection errs.

    Statement: if an elite is kept with probability h and anything else with f, Lam = h/f, then
    g_{t+1} / g_t = 1 - a P (Lam-1) / (1 + P (Lam-1)), which falls towards 1 - a (1 - 1/Lam) as P grows to 1. The
    asymptotic rate does not hold from the first cycle. Lam >= 1 (inf: perfect selection).
    Source: docs/theory.md, R3 (B).
    """
    _require_step(P, a)
    if not Lam >= 1:
        raise ValueError(f"Lam is how much likelier an elite is kept than anything else, at least 1, not {Lam}")
    return LeakyRate(1 - a * _pull(P, Lam), 1 - a * (1 - 1 / Lam))


def leaky_path(P0: float, a: float, Lam: float, t: int) -> LeakyPath:
    """Shares of elites for t cycles of selection with likelihood ratio Lam, and their lower bound.

    Statement: the recursion of `leaky_rate`; g_s <= g_0 r(P0)^s for all s, also if Lam grows on the way.
    Source: docs/theory.md, R3 (B).
    """
    rate = leaky_rate(P0, a, Lam).one_step_ratio
    require_not_negative("t", t)
    path = [float(P0)]
    for _ in range(t):
        path.append(1 - (1 - path[-1]) * (1 - a * _pull(path[-1], Lam)))
    return LeakyPath(np.array(path), 1 - (1 - P0) * np.power(rate, np.arange(t + 1), dtype=np.float64))


def quantile_path(P0: float, a: float, rho: float, t: int) -> NDArray[np.float64]:
    """Shares of elites over a fixed bar for t cycles, (t + 1,), when each cycle keeps its own best share rho.

    Statement: P_{s+1} = (1-a) P_s + a min(1, P_s / rho): exponential growth by 1 + a (1-rho)/rho while P < rho, then
    g shrinks by 1 - a. Assumes noise-free scores, of which the elites are the upper end. rho over 0 and under 1.
    Source: docs/theory.md, R3 (C).
    """
    _require_step(P0, a)
    require_open_share("rho", rho)
    require_not_negative("t", t)
    path = [float(P0)]
    for _ in range(t):
        path.append((1 - a) * path[-1] + a * min(1.0, path[-1] / rho))
    return np.array(path)


def cycles_to_target_quantile(P0: float, a: float, rho: float, target: float) -> float:
    """Whole cycles until P reaches the target when each cycle keeps its own best share rho; inf if it never does.

    Statement: ceil(ln(rho/P0) / ln m) cycles of growth by m = 1 + a (1-rho)/rho (fewer if the target is under rho),
    then ceil(ln((1-target)/(1-P)) / ln(1-a)) from the share P that they reached. Assumptions and source as of
    `quantile_path`.
    """
    _require_step(P0, a)
    require_open_share("rho", rho)
    require_share("target", target)
    if target <= P0:
        return 0.0
    if P0 == 0 or a == 0:
        return math.inf
    # m is exact while P < rho, and the last such step may lead past rho.
    growth = 1 + a * (1 - rho) / rho
    ahead = math.log(min(rho, target) / P0)
    if ahead > 0 and growth == 1:  # a or 1 - rho is lost in rounding
        return math.inf
    steps = _round_up(ahead / math.log(growth)) if ahead > 0 else 0.0
    reached = min(1.0, P0 * growth**steps)
    if reached >= target * (1 - ROUNDING):
        return steps
    return steps + (1.0 if a == 1 else _round_up(_cycles_to_shrink(reached, a, target)))


def never_sampled_prob(P0: float, a: float, N: float, T: int) -> NeverSampled:
    """Probability that a family of programs of mass P0 is never drawn in T cycles of N draws, and so is lost.

    Statement: at most prod over s < T of (1 - P0 (1-a)^s)^N (`exact`, attained while others are selected), at most
    exp(-N P0 (1 - (1-a)^T) / a) (`bound`). So a <= N P0 / ln(1/delta) keeps the lifetime miss under delta.
    Assumes p_{t+1} >= (1-a) p_t. Source: docs/theory.md, R3 (E), a short counterpart of Costa, Jones and Kroese,
    Operations Research Letters 35 (2007).
    """
    _require_step(P0, a)
    require_not_negative("N", N)
    require_not_negative("T", T)
    masses = P0 * (1 - a) ** np.arange(T)
    with np.errstate(divide="ignore"):
        exact = math.exp(N * float(np.log1p(-masses).sum())) if N > 0 else 1.0
    if a == 0:
        return NeverSampled(exact, math.exp(-N * P0 * T), 0.0 if N * P0 > 0 else 1.0)
    seen = -math.expm1(T * math.log1p(-a)) if a < 1 else float(T > 0)
    return NeverSampled(exact, math.exp(-N * P0 * seen / a), math.exp(-N * P0 / a))


def _pull(P: float, Lam: float) -> float:
    """Share of g that one step of weight 1 removes."""
    if math.isinf(Lam):
        return float(P > 0)
    return P * (Lam - 1) / (1 + P * (Lam - 1))


def _cycles_to_shrink(P: float, a: float, target: float) -> float:
    if target == 1:
        return math.inf
    return (math.log1p(-target) - math.log1p(-P)) / math.log1p(-a)


def _round_up(cycles: float) -> float:
    return cycles if math.isinf(cycles) else float(math.ceil(cycles - ROUNDING))


def _require_step(P: float, a: float) -> None:
    require_share("a share of elites (P or P0)", P)
    require_share("a", a)
