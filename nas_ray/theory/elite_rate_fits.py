"""R3, estimators: which law do the elite counts of a run follow, and when does it reach its target?

In: t, N, K: cycles, programs drawn, programs over one bar that is the same for all cycles (counts over each cycle's own
quantile are that quantile and say nothing). Out: maximum-likelihood fits, with intervals where the data determine them;
what they do not determine is nan. Rates are per cycle, likelihoods in nats and without the binomial coefficients, the
same in all fits, so that `akaike` compares them.

All fits assume independent draws, K ~ Bin(N, P_t). ValueError: lists of different lengths, K over N, no draws at all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, ndtri
from scipy.stats import chi2

from nas_ray.interval import LEVEL, Interval
from nas_ray.theory.elite_counts import EliteSeries, Floats
from nas_ray.theory.elite_curves import LogisticFit, PlateauFit, fit_logistic, fit_plateau
from nas_ray.theory.geometric_profile import GeometricProfile
from nas_ray.theory.inputs import require_not_negative, require_open_share
from nas_ray.theory.quantile_profile import QuantileProfile

OVERDISPERSED = 1.5  # Pearson's statistic over its degrees of freedom, from which standard errors are widened


class GeomFit(NamedTuple):
    """1 - P_t = exp(b0 + b1 t). Standard errors are nan where the fit lies on the bound P_t = 0."""

    b0: float
    b1: float  # -inf or inf where only the first or only the last cycle has non-elites
    g0: float  # exp(b0), share of non-elites at t = 0; over 1 where t begins later and the line leads there
    r: float  # exp(b1), the rate: what one cycle leaves of the non-elites; over 1: the elites become fewer
    alpha: float  # 1 - r, the smoothing weight if selection is perfect
    loglik: float
    deviance: float
    pearson: float  # Pearson's X^2
    df: int
    p_deviance: float  # goodness of fit; small: not one geometric rate; nan without degrees of freedom
    dispersion: float  # X^2 / df; over 1.5: multiply the standard errors by its root
    fitted: Floats  # P_t, one for each cycle given
    se_b0: float
    se_b1: float
    cov_b0b1: float
    r_ci_low: float  # profile likelihood
    r_ci_high: float


class LearningTest(NamedTuple):
    """Likelihood ratio test of "the rate of elites is constant" against "it rises"."""

    lr: float
    p_one_sided: float  # over 1/2 where the rate falls


class TargetForecast(NamedTuple):
    """The cycle at which a geometric fit reaches its target."""

    T: float  # inf where the fitted rate of elites does not rise; negative: before cycle 0
    se_delta: float  # delta method
    delta_low: float
    delta_high: float
    bounded: bool  # False: the slope is not distinguishable from 0, and no interval can be stated
    fieller_low: float  # Fieller's interval; nan unless bounded
    fieller_high: float


class QuantileFit(NamedTuple):
    """P_{t+1} = (1-a) P_t + a min(1, P_t / rho) with known rho."""

    P0: float
    a: float
    loglik: float
    a_low: float  # profile likelihood
    a_high: float


def geom_fit(t: ArrayLike, N: ArrayLike, K: ArrayLike, conf: float = LEVEL) -> GeomFit:
    """Maximum-likelihood fit of one geometric rate: non-elites are Bin(N, exp(b0 + b1 t)).

    Statement: P_t = 1 - (1-P_0) r^t with r = 1 - a if the bar is fixed and selection perfect. The log-likelihood is
    concave; its maximum may lie on the bound P_t = 0 (no elites in the first cycle), where only the profile interval
    of r holds. The interval is {r: 2 (max - profile(r)) <= chi2_{1, conf}}; standard errors are from the expected
    information sum N g/(1-g) (1,t)(1,t)'. df = T - 2 cycles. One cycle, or nothing but elites: r is nan.
    Source: docs/theory.md, R3; a binomial regression with log link (McCullagh and Nelder, Generalized Linear Models).
    """
    require_open_share("conf", conf)
    series = EliteSeries.of(t, N, K)
    profile = GeometricProfile(series)
    slope, intercept = profile.best, _intercept(series, profile)
    fitted = np.full(series.kept.shape, math.nan)
    if math.isfinite(slope):
        fitted = -np.expm1(np.minimum(0.0, intercept + slope * series.all_t))
        se_intercept, se_slope, covariance = _wald(series, profile, fitted[series.kept])
    else:
        fitted[series.kept] = series.shares
        se_intercept = se_slope = covariance = math.nan
    shares = fitted[series.kept]
    df, deviance, pearson = max(0, len(series.t) - 2), series.deviance(shares), series.pearson(shares)
    low, high = profile.interval(float(chi2.ppf(conf, 1)) / 2)
    with np.errstate(over="ignore"):
        g0, r, r_low, r_high = (float(np.exp(exponent)) for exponent in (intercept, slope, low, high))
    return GeomFit(
        b0=intercept,
        b1=slope,
        g0=g0,
        r=r,
        alpha=1 - r,
        loglik=profile.maximum,
        deviance=deviance,
        pearson=pearson,
        df=df,
        p_deviance=float(chi2.sf(deviance, df)) if df else math.nan,
        dispersion=pearson / df if df else math.nan,
        fitted=fitted,
        se_b0=se_intercept,
        se_b1=se_slope,
        cov_b0b1=covariance,
        r_ci_low=r_low,
        r_ci_high=r_high,
    )


def widen(fit: GeomFit) -> float:
    """Factor on standard errors, by what counts scatter more than binomial ones do; 1 where they do not.

    Source: the quasi-likelihood scale of McCullagh and Nelder, Generalized Linear Models (1989), section 4.5.
    """
    return math.sqrt(fit.dispersion) if fit.dispersion > OVERDISPERSED else 1.0


def rate_interval(fit: GeomFit) -> Interval:
    """r with its profile interval, by `widen` on the logarithmic scale. Without a rate between 0 and inf: as it is.

    Source: as of `widen`.
    """
    bounds = (fit.r_ci_low, fit.r, fit.r_ci_high)
    if not (fit.r > 0 and math.isfinite(fit.r * fit.r_ci_low * fit.r_ci_high)):
        return Interval(*bounds)
    return Interval(*(fit.r * (bound / fit.r) ** widen(fit) for bound in bounds))


def forecast_target(fit: GeomFit, target: float) -> TargetForecast:
    """`cycles_to_target_fit` of a fit, its standard errors by `widen`."""
    factor = widen(fit)
    return cycles_to_target_fit(
        fit.b0, fit.b1, factor * fit.se_b0, factor * fit.se_b1, factor**2 * fit.cov_b0b1, target
    )


def no_learning_lrt(t: ArrayLike, N: ArrayLike, K: ArrayLike) -> LearningTest:
    """Is anything learned? Likelihood ratio test of b1 = 0 in the geometric model, against b1 < 0.

    Statement: lr = 2 (max loglik - loglik of one share for all cycles); its signed root is standard normal under a
    constant rate, and p is its upper tail. Assumes enough draws for that. nan for a single cycle.
    Source: docs/theory.md, R3; signed likelihood roots: Cox and Hinkley, Theoretical Statistics (1974), chapter 9.
    """
    series = EliteSeries.of(t, N, K)
    if series.distinct == 1:
        return LearningTest(math.nan, math.nan)
    profile = GeometricProfile(series)
    constant = np.full_like(series.t, series.K.sum() / series.N.sum())
    lr = max(0.0, 2 * (profile.maximum - series.log_likelihood(constant))) if not math.isnan(profile.best) else 0.0
    sign = -1.0 if profile.best < 0 else 1.0
    return LearningTest(lr, math.exp(float(log_ndtr(sign * math.sqrt(lr)))))


def cycles_to_target_fit(
    b0: float, b1: float, se_b0: float, se_b1: float, cov_b0b1: float, target: float, conf: float = LEVEL
) -> TargetForecast:
    """When a geometric fit reaches the target share of elites, with the delta method's and with Fieller's interval.

    Statement: T = (ln(1-target) - b0) / b1. Fieller's interval holds all cycles whose fitted share does not differ from
    the target: it lies between the roots in x of x^2 (b1^2 - z^2 V11) - 2 x (A b1 + z^2 V01) + A^2 - z^2 V00, where
    A = ln(1-target) - b0 and V is the covariance of (b0, b1), and has both ends only if -b1 > z se_b1. Assumes
    estimates that are about normal. Standard errors that are nan (of a fit on the bound): no interval.
    target over 0 and under 1. Source: Fieller, JRSS B 16 (1954); docs/theory.md, R3.
    """
    require_open_share("target", target)
    require_open_share("conf", conf)
    if math.isnan(b0) or math.isnan(b1):
        return _forecast_without_interval(math.nan)
    if b1 >= 0:
        return _forecast_without_interval(math.inf)
    ahead = math.log1p(-target) - b0
    T = ahead / b1
    if math.isinf(b1) or math.isnan(se_b0 + se_b1 + cov_b0b1):
        return _forecast_without_interval(T)
    z = float(ndtri((1 + conf) / 2))
    # A covariance that does not belong to the two errors could make the variance negative.
    se = math.sqrt(max(0.0, se_b0**2 + 2 * T * cov_b0b1 + T**2 * se_b1**2)) / -b1
    low = high = math.nan
    if bounded := -b1 > z * se_b1:
        square, half, rest = b1**2 - (z * se_b1) ** 2, ahead * b1 + z**2 * cov_b0b1, ahead**2 - (z * se_b0) ** 2
        root = math.sqrt(max(0.0, half**2 - square * rest))
        low, high = (half - root) / square, (half + root) / square
    return TargetForecast(T, se, T - z * se, T + z * se, bounded, low, high)


def logistic_fit(t: ArrayLike, N: ArrayLike, K: ArrayLike) -> LogisticFit:
    """Logistic regression of the elite counts on the cycle.

    Statement: with a = 1 and selection of likelihood ratio Lambda, odds(P_t) = Lambda^t odds(P_0). Where one cycle
    separates those without elites from those with nothing else, c1 is infinite and Lambda inf (or 0, falling); with
    elites nowhere or everywhere, or in a single cycle, they are nan.
    Source: docs/theory.md, R3 (B); logistic regression: McCullagh and Nelder, Generalized Linear Models (1989).
    """
    return fit_logistic(EliteSeries.of(t, N, K))


def plateau_fit(t: ArrayLike, N: ArrayLike, K: ArrayLike) -> PlateauFit:
    """Growth (or decay) at a rate r from A0 to a plateau, all of them within 0 .. 1.

    Statement: P_t = plateau - (plateau - A0) r^t, the geometric law if the plateau is 1. A likelihood ratio test of
    that has half a chi2_1 (the plateau lies on its bound): p = P(chi2_1 > stat) / 2. Three cycles at least.
    Source: docs/theory.md, R3; for the test Self and Liang, JASA 82 (1987).
    """
    return fit_plateau(EliteSeries.of(t, N, K))


def quantile_fit(t: ArrayLike, N: ArrayLike, K: ArrayLike, rho: float, conf: float = LEVEL) -> QuantileFit:
    """Fit of the recursion that selection of each cycle's best share rho follows, with a profile interval of a.

    Statement: P_{t+1} = (1-a) P_t + a min(1, P_t / rho), see `convergence.quantile_path`; P0 and a within 0 .. 1. The
    interval is cut at 0 and 1. a is nan with a single cycle, with elites nowhere or everywhere. Cycles must be whole
    numbers. Source: docs/theory.md, R3 (C).
    """
    require_open_share("rho", rho)
    require_open_share("conf", conf)
    series = EliteSeries.of(t, N, K)
    if not (series.t == np.floor(series.t)).all():
        raise ValueError(f"the recursion goes from cycle to cycle; give whole cycles, not {series.t.tolist()}")
    share = float(series.K.sum() / series.N.sum())
    if series.distinct == 1 or share in (0, 1):
        start = share if share in (0, 1) or series.t.max() == 0 else math.nan
        return QuantileFit(start, math.nan, series.saturated, math.nan, math.nan)
    profile = QuantileProfile(series, rho)
    low, high = profile.interval(float(chi2.ppf(conf, 1)) / 2)
    return QuantileFit(profile.start(profile.best), profile.best, profile.value(profile.best), low, high)


def akaike(loglik: float, parameters: int) -> float:
    """Akaike's information criterion 2 parameters - 2 loglik; of fits to the same counts the lowest is preferred.

    geom_fit, logistic_fit and quantile_fit have 2 parameters, plateau_fit has 3. Source: Akaike, IEEE Transactions on
    Automatic Control 19 (1974). parameters at least 0.
    """
    require_not_negative("parameters", parameters)
    return 2 * parameters - 2 * loglik


def _forecast_without_interval(T: float) -> TargetForecast:
    return TargetForecast(T, math.nan, math.nan, math.nan, False, math.nan, math.nan)


def _intercept(series: EliteSeries, profile: GeometricProfile) -> float:
    """b0 of the fit; without a finite slope it is known only where the counts begin at cycle 0."""
    if math.isfinite(profile.best):
        return profile.intercept(profile.best)
    first = series.t == 0
    if not first.any():
        return math.nan
    share = float(series.F[first].sum() / series.N[first].sum())
    return math.log(share) if share > 0 else -math.inf


def _wald(series: EliteSeries, profile: GeometricProfile, shares: Floats) -> tuple[float, float, float]:
    """Standard errors of b0 and b1 and their covariance; nan on the bound, and where every draw is an elite."""
    if profile.distance(profile.best) == 0:
        return math.nan, math.nan, math.nan
    weight = series.N * (1 - shares) / shares
    total, middle = float(weight.sum()), float(np.average(series.t, weights=weight))
    spread = float((weight * (series.t - middle) ** 2).sum())
    if spread == 0:
        return math.nan, math.nan, math.nan
    return math.sqrt(1 / total + middle**2 / spread), 1 / math.sqrt(spread), -middle / spread
