"""Deltas against full code: how validity falls with length when every token may be wrong (docs/theory.md, R4).

In: lengths in tokens, and how many programs of each length are valid. Out: rates of error, and ratios of validity.

Symbols: L tokens of a program, e chance that a token is wrong, theta = -ln(1 - e) the hazard of a token, phi chance
that a delta cannot be applied to its parent. Lengths have to be those that were *intended* (of the parent, of the
template): a program that runs away is long because it failed. What the data cannot tell is nan.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import chdtrc, chdtri, ndtri

from nas_ray.interval import LEVEL
from nas_ray.theory.inputs import require_not_negative, require_share
from nas_ray.theory.length_counts import REACH, Vector, best_theta, group_by_length, positive_root, standard_errors

ROUNDING = 1e-12  # nats over the longest program; a hazard below that is none


class DeltaVsFull(NamedTuple):
    """Chances of being valid, and where a delta stops being worth it."""

    V_full: float
    V_delta: float
    ratio: float  # V_delta / V_full; above 1 the delta wins
    break_even_L_d: float  # tokens of a delta that is valid as often as full code; inf: any length, below 0: none
    break_even_phi: float  # share of deltas that may fail to apply; below 0: none
    tokens_per_valid_full: float
    tokens_per_valid_delta: float


class StrictFit(NamedTuple):
    """P(valid | L) = exp(-theta L): every wrong token is fatal."""

    theta: float  # a token; 0 where all are valid, inf where none is
    e: float  # 1 - exp(-theta)
    se_theta: float  # nan at either end
    loglik: float  # nats, without the binomial coefficients
    theta_low: float  # profile likelihood
    theta_high: float
    deviance: float
    df: int  # different lengths - 1
    p_deviance: float  # nan for a single length


class HazardSlopeFit(NamedTuple):
    """P(valid | L) = exp(-exp(b0) L^beta); beta = 1 is `StrictFit`."""

    b0: float
    beta: float  # inf or -inf where length separates valid from invalid
    se_beta: float
    loglik: float
    lr_beta1: float  # likelihood ratio against beta = 1
    p_beta1: float  # of that, chi-squared with 1 degree of freedom


class LoglinearFit(NamedTuple):
    """P(valid | L) = C mu_plus^L with 0 <= C <= 1 and 0 <= mu_plus <= 1: long programs whose errors may be repaired."""

    C: float
    mu_plus: float  # exp(-theta)
    theta: float  # a token
    se_lnC: float  # nan on the boundary C = 1
    se_theta: float  # nan on the boundary theta = 0
    loglik: float


class ValidityRatio(NamedTuple):
    """How many times as often a delta is valid as full code."""

    ratio: float
    se_log: float
    low: float
    high: float


def delta_vs_full(L_f: float, L_d: float, e_f: float, e_d: float, phi: float) -> DeltaVsFull:
    """A delta of `L_d` tokens against full code of `L_f` tokens, where no wrong token is ever repaired.

    P(full valid) = (1 - e_f)^L_f and P(delta valid) = (1 - phi) (1 - e_d)^L_d: the parent is valid, tokens go wrong
    independently, and the delta fails to apply with probability phi. Where errors are repaired the advantage is smaller
    and may be none. docs/theory.md, R4 (C).

    Args:
        L_f, L_d: tokens, 0 or more.
        e_f, e_d: chance of a wrong token, from 0 up to but not 1; a format of deltas may have a worse one.
        phi: 0 .. 1.

    Raises:
        ValueError: a number out of these ranges.
    """
    require_not_negative("L_f", L_f)
    require_not_negative("L_d", L_d)
    require_share("phi", phi)
    for name, value in (("e_f", e_f), ("e_d", e_d)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is the chance that a token is wrong, from 0 to below 1, not {value}")
    full, delta, theta_d = L_f * math.log1p(-e_f), L_d * math.log1p(-e_d), -math.log1p(-e_d)
    applied = math.log1p(-phi) if phi < 1 else -math.inf
    return DeltaVsFull(
        V_full=math.exp(full),
        V_delta=math.exp(delta + applied),
        ratio=_exp(delta + applied - full),
        break_even_L_d=_ratio(applied - full, theta_d),
        break_even_phi=1 - _exp(full - delta),
        tokens_per_valid_full=_exp(_log(L_f) - full),
        tokens_per_valid_delta=_exp(_log(L_d) - delta - applied),
    )


def strict_fit(L: npt.ArrayLike, n: npt.ArrayLike, y: npt.ArrayLike, conf: float = LEVEL) -> StrictFit:
    """Maximum likelihood of theta in P(valid | L) = exp(-theta L): `y` of `n` programs of length `L` are valid.

    Programs are independent, one hazard holds for all, and no error is repaired. It is the complementary log-log model
    with offset ln L (McCullagh and Nelder 1989, section 4.3); the interval is of the profile likelihood. The deviance
    tests the model where the expected counts of each length are not small. docs/theory.md, R4.

    Args:
        L: tokens, above 0; the same length may come several times. n, y: counts, as long as `L`.

    Raises:
        ValueError: counts that cannot be.
    """
    counts = group_by_length(L, n, y)
    theta = best_theta(counts, counts.L)
    if math.isnan(theta):
        nothing = math.nan
        return StrictFit(nothing, nothing, nothing, nothing, nothing, nothing, nothing, 0, nothing)
    hazard = theta * counts.L
    loglik = counts.loglik(hazard)
    deviance, df = max(0.0, 2 * (counts.best_loglik() - loglik)), len(counts.L) - 1
    information = float(counts.information(hazard, counts.L[None, :])[0, 0]) if 0 < theta < math.inf else math.nan

    def excess(at: float) -> float:
        return loglik - counts.loglik(at * counts.L) - float(chdtri(1, 1 - conf)) / 2

    return StrictFit(
        theta=theta,
        e=-math.expm1(-theta),
        se_theta=1 / math.sqrt(information) if information > 0 else math.nan,
        loglik=loglik,
        theta_low=0.0 if theta == 0 else positive_root(excess, high=theta),
        theta_high=math.inf if theta == math.inf else positive_root(lambda at: -excess(at), low=theta),
        deviance=deviance,
        df=df,
        p_deviance=float(chdtrc(df, deviance)) if df else math.nan,
    )


def hazard_slope_fit(L: npt.ArrayLike, n: npt.ArrayLike, y: npt.ArrayLike) -> HazardSlopeFit:
    """Does the hazard of a token stay the same along a program? cloglog P(invalid | L) = b0 + beta ln L, by likelihood.

    beta below 1: errors are repaired, or programs differ in difficulty; above 1: the hazard grows with the context; so
    with beta far from 1 (1 - e)^L must not be extrapolated. Programs are independent. McCullagh and Nelder 1989,
    section 4.3; docs/theory.md, R4. Inputs and errors as of `strict_fit`. All nan for a single length, and where all or
    none are valid.
    """
    counts = group_by_length(L, n, y)
    valid, invalid = counts.L[counts.y > 0], counts.L[counts.y < counts.n]
    if len(counts.L) < 2 or not len(valid) or not len(invalid):
        return HazardSlopeFit(*[math.nan] * 6)
    strict = counts.loglik(best_theta(counts, counts.L) * counts.L)
    if max(valid) <= min(invalid) or max(invalid) <= min(valid):
        loglik = counts.best_loglik()  # a step fits as well as a share for each length
        lr = max(0.0, 2 * (loglik - strict))
        beta = math.inf if max(valid) <= min(invalid) else -math.inf
        return HazardSlopeFit(math.nan, beta, math.nan, loglik, lr, float(chdtrc(1, lr)))
    logs = np.log(counts.L)
    middle = float(np.mean(logs))

    def hazard_at(beta: float) -> Vector:
        shape: Vector = np.exp(beta * (logs - middle))
        return best_theta(counts, shape) * shape

    def slope(beta: float) -> float:
        hazard = hazard_at(beta)
        return float(np.sum(counts.pull(hazard) * hazard * logs))

    widest = REACH / 3 / float(np.max(np.abs(logs - middle)))
    ends = {end: slope(end) for end in (-widest, widest)}
    steep = ends[-widest] <= 0 or ends[widest] >= 0  # steeper than hazards can be told apart
    beta = min(ends, key=lambda end: abs(ends[end])) if steep else float(brentq(slope, *ends, xtol=1e-13, rtol=1e-13))
    hazard = hazard_at(beta)
    loglik = counts.loglik(hazard)
    lr = max(0.0, 2 * (loglik - strict))
    if steep:
        return HazardSlopeFit(math.nan, math.copysign(math.inf, beta), math.nan, loglik, lr, float(chdtrc(1, lr)))
    return HazardSlopeFit(
        b0=float(np.log(hazard[0])) - beta * float(logs[0]),
        beta=beta,
        se_beta=standard_errors(counts.information(hazard, np.stack([hazard, hazard * (logs - middle)])))[1],
        loglik=loglik,
        lr_beta1=lr,
        p_beta1=float(chdtrc(1, lr)),
    )


def loglinear_fit(L: npt.ArrayLike, n: npt.ArrayLike, y: npt.ArrayLike) -> LoglinearFit:
    """Maximum likelihood of P(valid | L) = C exp(-theta L) with 0 <= C <= 1 and theta >= 0.

    What a two-state Markov chain of token errors becomes for programs that are longer than its bursts, about
    theta = e (1 - u) and 1 - C = e u / (1 - d) for errors that start with e, last with d and are repaired with u; a
    failure that has nothing to do with length is in C, too. docs/theory.md, R4 (A). Inputs and errors as of
    `strict_fit`. C, mu_plus and theta are nan for a single length and where nothing is valid.
    """
    counts = group_by_length(L, n, y)
    if len(counts.L) < 2 or not counts.y.any():
        nothing = math.nan
        return LoglinearFit(nothing, nothing, nothing, nothing, nothing, counts.best_loglik())
    if np.array_equal(counts.y, counts.n):
        return LoglinearFit(1.0, 1.0, 0.0, math.nan, math.nan, 0.0)
    scale = float(np.max(counts.L))
    length = counts.L / scale

    def constant(theta: float) -> float:
        return positive_root(lambda c: float(np.sum(counts.pull(c + theta * length))))

    def slope(theta: float) -> float:
        return float(np.sum(counts.pull(constant(theta) + theta * length) * length))

    theta = positive_root(slope)
    if theta < ROUNDING:
        theta = 0.0
    c = constant(theta)
    hazard = c + theta * length
    free = np.stack([row for row, value in ((np.ones_like(length), c), (length, theta)) if value > 0])
    errors = iter(standard_errors(counts.information(hazard, free)))
    se_c = next(errors) if c > 0 else math.nan
    se_theta = next(errors) if theta > 0 else math.nan
    return LoglinearFit(
        C=math.exp(-c),
        mu_plus=math.exp(-theta / scale),
        theta=theta / scale,
        se_lnC=se_c,
        se_theta=se_theta / scale,
        loglik=counts.loglik(hazard),
    )


def validity_ratio_ci(y_d: int, n_d: int, y_f: int, n_f: int, conf: float = LEVEL) -> ValidityRatio:
    """Ratio of two shares, deltas (`y_d` valid of `n_d`) over full code (`y_f` of `n_f`), with an interval.

    Two independent binomials; the logarithm of the ratio is about normal (Katz, Baptista, Azen and Pike 1978), which
    needs several valid and invalid ones on both sides: where all are valid its error is 0, where a side has none valid
    there is no interval (nan). The ratio is nan without programs and where neither side has a valid one.

    Raises:
        ValueError: counts that cannot be.
    """
    for y, n, what in ((y_d, n_d, "deltas"), (y_f, n_f, "full programs")):
        if not 0 <= y <= n:
            raise ValueError(f"{y} of {n} {what} cannot be valid; the count is from 0 to the number of {what}")
    if not n_d or not n_f:
        return ValidityRatio(math.nan, math.nan, math.nan, math.nan)
    ratio = _ratio(y_d / n_d, y_f / n_f)
    if not y_d or not y_f:
        return ValidityRatio(ratio, math.nan, math.nan, math.nan)
    se = math.sqrt(max(0.0, 1 / y_d - 1 / n_d + 1 / y_f - 1 / n_f))
    width = float(ndtri((1 + conf) / 2)) * se
    return ValidityRatio(ratio, se, ratio * math.exp(-width), ratio * math.exp(width))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _ratio(over: float, under: float) -> float:
    if under:
        return over / under
    return math.copysign(math.inf, over) if over else math.nan
