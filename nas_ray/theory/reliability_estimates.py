"""Reliability and fidelity of a proxy, estimated from repeated runs (docs/theory.md, R6).

In: scores, variances or correlations. Out: estimates with intervals. Symbols as in `nas_ray.theory.reliability`: R is
the share of the variance of one run's score that is between programs.

Never estimate R from programs that were chosen by the very scores used: that halves it or worse. An estimate may lie
below 0 where there is little between programs; it is given as it is. What the data cannot tell is nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import fdtr, fdtrc, fdtri, ndtri

from nas_ray.interval import LEVEL
from nas_ray.theory.reliability import ROUNDING


class Icc(NamedTuple):
    """One-way analysis of variance of n programs with m_i runs each."""

    MSB: float  # mean square between programs
    MSW: float  # mean square within programs
    F: float  # MSB / MSW
    df1: int  # n - 1
    df2: int  # runs - n
    n0: float  # (sum m - sum m^2 / sum m) / (n - 1), runs a program
    p: float  # of F: no difference between programs
    sigma_a2: float  # variance between programs, unbiased; may be below 0
    sigma_n2: float  # variance of one run, unbiased
    ICC: float  # R
    ci_low: float
    ci_high: float
    F_TH: float  # with the harmonic mean of m_i and unweighted means; F where all m_i are the same
    R_mean_anova: float  # reliability of a program's mean, 1 - MSW / MSB, biased low; nan unless balanced
    R_mean_unbiased: float  # 1 - (n - 3) / (n - 1) MSW / MSB; nan unless balanced, and for 3 programs or fewer


class Reliability(NamedTuple):
    """R of one run."""

    R: float
    ci_low: float
    ci_high: float


class Attenuation(NamedTuple):
    """Correlation of the true qualities behind two noisy scores; above 1 where the reliabilities are set too low."""

    rho_fidelity: float
    ci_low: float
    ci_high: float


class SampleSize(NamedTuple):
    """Programs to measure."""

    n_real: float
    n: int


class VarianceRatio(NamedTuple):
    """The first variance over the second."""

    ratio: float
    low: float
    high: float
    p: float  # two-sided: they are the same


def icc1(groups: Sequence[Sequence[float]], conf: float = LEVEL) -> Icc:
    """Intraclass correlation ICC(1): `groups` holds the scores of each program's runs, one or more each.

    Programs are drawn at random, not selected by these scores; quality and noise are normal, the noise alike for all.
    sigma_n2 = MSW, sigma_a2 = (MSB - MSW) / n0 (Shrout and Fleiss 1979). Interval: theta = (F* / F_q - 1) / n_h,
    R = theta / (1 + theta), with F* = n_h Var(means) / MSW and n_h the harmonic mean of m_i (Thomas and Hultquist
    1978); exact where all m_i are the same, F* being F then. Without two programs, or a program with two runs, what
    needs them is nan; without noise R is 1.
    """
    runs = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    sizes = np.array([len(one) for one in runs], dtype=np.float64)
    n, total = len(runs), float(sizes.sum())
    df1, df2 = max(0, n - 1), int(total) - n
    # Deviations from a run of the program, and from a program, are exactly 0 where all are the same.
    means = np.array([one[0] + np.mean(one - one[0]) for one in runs])
    within = sum(float(np.sum((one - one[0] - np.mean(one - one[0])) ** 2)) for one in runs)
    msw = within / df2 if df2 else math.nan
    if not df1:
        no = math.nan
        return Icc(no, msw, no, df1, df2, no, no, no, msw, no, no, no, no, no, no)
    shifted = means - means[0]
    msb = float(np.sum(sizes * (shifted - np.sum(sizes * shifted) / total) ** 2)) / df1
    n0 = (total - float(np.sum(sizes**2)) / total) / df1
    harmonic = n / float(np.sum(1 / sizes))
    F, F_TH = _ratio(msb, msw), _ratio(harmonic * float(np.var(shifted, ddof=1)), msw)
    between = (msb - msw) / n0
    low, high = (
        _share((_ratio(F_TH, _f_quantile(df1, df2, q)) - 1) / harmonic) for q in ((1 + conf) / 2, (1 - conf) / 2)
    )
    balanced = bool(np.all(sizes == sizes[0]))
    left = msw / msb if balanced and msb else math.nan
    return Icc(
        MSB=msb,
        MSW=msw,
        F=F,
        df1=df1,
        df2=df2,
        n0=n0,
        p=_upper_tail(df1, df2, F),
        sigma_a2=between,
        sigma_n2=msw,
        ICC=_ratio(between, between + msw),
        ci_low=low,
        ci_high=high,
        F_TH=F_TH,
        R_mean_anova=1 - left,
        R_mean_unbiased=1 - (n - 3) / (n - 1) * left if n > 3 else math.nan,
    )


def reliability_mixed(
    var_scores: float, n_scores: int, var_noise: float, df_noise: int, conf: float = LEVEL
) -> Reliability:
    """R = 1 - V_n / V_s from the noise of some programs' repeated runs and the variance of all programs' single scores.

    The cheap design: repeated runs of any subset, even of elites, if none of them is the score that it was chosen by.
    Interval of 1 - R: V_n / V_s times quantiles of F(n_scores - 1, df_noise). Normal scores, the two variances
    independent, the noise alike for all programs. docs/theory.md, R6.

    nan where all scores are the same.

    Args:
        var_scores, n_scores: variance of that many programs' single scores. var_noise, df_noise: variance between runs
        of the same program, pooled, and its degrees of freedom (runs - programs).

    Raises:
        ValueError: a variance below 0.
    """
    _check_variances(var_scores, var_noise)
    if n_scores < 2 or df_noise < 1 or var_scores == 0:
        return Reliability(math.nan, math.nan, math.nan)
    ratio = var_noise / var_scores
    low, high = (1 - ratio * _f_quantile(n_scores - 1, df_noise, q) for q in ((1 + conf) / 2, (1 - conf) / 2))
    return Reliability(1 - ratio, low, high)


def attenuation(r_obs: float, R1: float, RF: float, n: int, conf: float = LEVEL) -> Attenuation:
    """Correlation between what two scores measure, r_obs / sqrt(R1 RF) (Spearman 1904).

    The interval is Fisher's of `r_obs` over `n` programs, divided likewise; the reliabilities count as known, so that
    it is too narrow where they were estimated from few. nan where a reliability is not above 0, bounds for n <= 3.

    Raises:
        ValueError: r_obs outside -1 .. 1, a reliability above 1.
    """
    _check_correlation(r_obs)
    if R1 > 1 or RF > 1:
        raise ValueError(f"a reliability is at most 1; R1 is {R1}, RF is {RF}")
    if not (R1 > 0 and RF > 0):
        return Attenuation(math.nan, math.nan, math.nan)
    root = math.sqrt(R1) * math.sqrt(RF)
    if n <= 3 or math.isnan(r_obs):
        return Attenuation(r_obs / root, math.nan, math.nan)
    if abs(r_obs) == 1:
        return Attenuation(r_obs / root, r_obs / root, r_obs / root)
    half = float(ndtri((1 + conf) / 2)) / math.sqrt(n - 3)
    low, high = (math.tanh(math.atanh(r_obs) + shift) / root for shift in (-half, half))
    return Attenuation(r_obs / root, low, high)


def icc_sample_size(R: float, m: int, width: float, conf: float = LEVEL) -> SampleSize:
    """Programs, each with `m` runs, for an interval of `icc1` of this `width` (high - low) where the truth is `R`.

    n = 1 + 8 z^2 (1 - R)^2 (1 + (m - 1) R)^2 / (m (m - 1) width^2) (Bonett 2002), z the normal quantile.

    Raises:
        ValueError: R outside 0 .. 1, m below 2, width not above 0.
    """
    if not 0 <= R <= 1 or m < 2 or not width > 0:
        raise ValueError(f"R = {R}, m = {m}, width = {width}: R is 0 .. 1, m at least 2 runs, the width above 0")
    z = float(ndtri((1 + conf) / 2))
    real = 1 + 8 * (z * (1 - R) * (1 + (m - 1) * R)) ** 2 / (m * (m - 1) * width**2)
    return SampleSize(real, math.ceil(real * (1 - ROUNDING)))


def variance_ratio(var_one: float, df_one: int, var_two: float, df_two: int, conf: float = LEVEL) -> VarianceRatio:
    """Are two variances the same? Their ratio, its interval and the two-sided F test (Snedecor and Cochran 1989).

    Both are of normal values, with `df_one` and `df_two` degrees of freedom, and independent of each other; the test is
    sensitive to tails that are not normal. nan without degrees of freedom, and where both variances are 0.

    Raises:
        ValueError: a variance below 0.
    """
    _check_variances(var_one, var_two)
    ratio = _ratio(var_one, var_two)
    if df_one < 1 or df_two < 1 or math.isnan(ratio):
        return VarianceRatio(math.nan, math.nan, math.nan, math.nan)
    low, high = (_ratio(ratio, _f_quantile(df_one, df_two, q)) for q in ((1 + conf) / 2, (1 - conf) / 2))
    below = float(fdtr(df_one, df_two, ratio)) if ratio < math.inf else 1.0
    return VarianceRatio(ratio, low, high, min(1.0, 2 * min(below, _upper_tail(df_one, df_two, ratio))))


def _ratio(over: float, under: float) -> float:
    """over / under; inf over 0, nan for 0 over 0."""
    if under:
        return over / under
    return math.inf * over if over else math.nan


def _share(theta: float) -> float:
    return 1.0 if theta == math.inf else theta / (1 + theta)


def _f_quantile(df1: int, df2: int, q: float) -> float:
    return float(fdtri(df1, df2, q)) if df2 else math.nan


def _upper_tail(df1: int, df2: int, F: float) -> float:
    return 0.0 if math.isinf(F) else float(fdtrc(df1, df2, F))


def _check_variances(*variances: float) -> None:
    for one in variances:
        if one < 0:
            raise ValueError(f"a variance is 0 or more, not {one}")


def _check_correlation(r: float) -> None:
    if abs(r) > 1:
        raise ValueError(f"a correlation is from -1 to 1, not {r}")
