"""R2: when does the expected quality of what is drawn not fall, and what can be seen of a gain?

In: means and standard deviations of scores, one set a cycle; the spreads of quality and noise. Out: gains, bounds,
tests, sample sizes. Scores are in their own unit (an accuracy, 0 .. 1), and so are sigma_a, the standard deviation of
true quality between programs, and sigma_n, the noise of one proxy run.

The scores are those of all scored programs of a cycle. The elites' own mean is inflated by the luck that selected them
(`winners_curse`) and must not be compared with anything but fresh runs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import chi2, norm

from nas_ray.interval import LEVEL
from nas_ray.theory.inputs import require_not_negative, require_open_share, require_positive, require_share

ROUNDING = 1e-12  # a statistic below this is a monotone sequence but for rounding


class SelectionIntensity(NamedTuple):
    """The best share rho of a standard normal, in standard deviations."""

    z: float  # where it begins
    i: float  # its mean
    k: float  # 1 minus its variance


class GaussianGain(NamedTuple):
    """One step of Gaussian quality under noisy selection."""

    R: float  # reliability of one run, 0 .. 1; nan where nothing varies
    gain: float  # of the mean true quality
    var_next: float  # variance of true quality after the step


class GaussianLimit(NamedTuple):
    """Where endless Gaussian steps without noise lead."""

    var_factor: float  # by which a step multiplies the variance
    a_crit: float  # above this a the variance collapses; 0 or less: for every a
    total_gain_in_sd: float  # of all steps together, in first standard deviations; inf where nothing collapses


class WelchDifference(NamedTuple):
    """Mean of the later cycle minus that of the earlier one; nan in what two programs a cycle would be needed for."""

    diff: float
    se: float
    df: float
    lcb: float  # lower confidence bound
    p_one_sided: float  # of "no gain"


class CycleSize(NamedTuple):
    """Scored programs a cycle."""

    n_real: float
    n: int  # rounded up


class MonotonicityTest(NamedTuple):
    """Do the means rise throughout?"""

    isotonic_fit: NDArray[np.float64]  # (T,), the nearest sequence that never falls; equal neighbours were pooled
    stat: float
    p: float  # small: quality fell somewhere


class NeutralDrift(NamedTuple):
    """Diversity that is left where nothing is selected."""

    H_t: float
    half_life: float  # cycles; inf where nothing drifts


def selection_intensity(rho: float) -> SelectionIntensity:
    """The truncated normal: z = Phi^-1(1 - rho), i = phi(z) / rho (its mean), k = i (i - z) (1 minus its variance).

    rho in (0, 1]; at 1 nothing is selected, i = k = 0. Assumes normal scores and many of them.
    Source: Falconer and Mackay, Introduction to Quantitative Genetics (1996), chapter 11.
    """
    if not 0 < rho <= 1:
        raise ValueError(f"rho is the share that is kept and must be over 0 and at most 1, not {rho}")
    if rho == 1:
        return SelectionIntensity(-math.inf, 0.0, 0.0)
    z = -float(ndtri(rho))
    i = float(norm.pdf(z)) / rho
    return SelectionIntensity(z, i, i * (i - z))


def gaussian_gain(sigma_a: float, sigma_n: float, rho: float, a: float) -> GaussianGain:
    """Gain and spread of true quality after one step of weight a on the best share rho by a noisy score.

    Statement: with R = sigma_a^2 / (sigma_a^2 + sigma_n^2) the gain is a i sqrt(R) sigma_a (the breeder's equation)
    and the variance sigma_a^2 (1 - a R k + a (1 - a) R i^2). Assumes normal quality, normal noise of one variance for
    all programs, and the mixture step. Source: Falconer and Mackay (1996), chapter 11; docs/theory.md, R2 (D).
    """
    reliability, _ = _reliability(sigma_a, sigma_n)
    require_share("a", a)
    _, i, k = selection_intensity(rho)
    if math.isnan(reliability):
        return GaussianGain(math.nan, 0.0, 0.0)
    variance = sigma_a**2 * (1 - a * reliability * k + a * (1 - a) * reliability * i**2)
    return GaussianGain(reliability, a * i * math.sqrt(reliability) * sigma_a, variance)


def gaussian_ce_limit(rho: float, a: float) -> GaussianLimit:
    """How far endless noise-free Gaussian steps of weight a on the best share rho can move the mean.

    Statement: a step multiplies the variance by v = 1 - a k + a (1 - a) i^2; if v < 1, that is a > a_crit = z / i,
    the total gain is a i sd_0 / (1 - sqrt(v)) and no more; otherwise it has no bound.
    Assumes a normal law that is refitted by moments in each cycle. rho over 0 and under 1, a over 0 and at most 1.
    Source: docs/theory.md, R2 (E).
    """
    require_open_share("rho", rho)
    if not 0 < a <= 1:
        raise ValueError(f"a is the weight of the new elites and must be over 0 and at most 1, not {a}")
    z, i, k = selection_intensity(rho)
    factor = 1 - a * k + a * (1 - a) * i**2
    total = a * i / (1 - math.sqrt(max(factor, 0.0))) if factor < 1 else math.inf
    return GaussianLimit(factor, z / i, total)


def welch_lcb_diff(
    mean0: float, sd0: float, n0: int, mean1: float, sd1: float, n1: int, conf: float = LEVEL
) -> WelchDifference:
    """Lower confidence bound of the gain between two cycles, and the one-sided p-value of "no gain".

    Statement: diff - t_{conf, df} se with se^2 = sd0^2/n0 + sd1^2/n1 and Welch's degrees of freedom.
    Assumes that both cycles' scores are independent draws, and enough of them (or normal ones) for Student's t.
    sd: sample standard deviations (n - 1). Source: B. L. Welch, Biometrika 34 (1947). With one program in a cycle
    only the difference is known. Without any spread the bound is the difference itself.
    """
    require_open_share("conf", conf)
    require_not_negative("sd0", sd0)
    require_not_negative("sd1", sd1)
    if min(n0, n1) < 1:
        raise ValueError(f"both cycles need at least one score; they have {n0} and {n1}")
    diff = mean1 - mean0
    if min(n0, n1) < 2:
        return WelchDifference(diff, math.nan, math.nan, math.nan, math.nan)
    # The larger of the two scales the sum, so that squares of tiny spreads do not vanish.
    scale = max(sd0 / math.sqrt(n0), sd1 / math.sqrt(n1))
    if scale == 0:
        return WelchDifference(diff, 0.0, math.nan, diff, 0.5 if diff == 0 else float(diff < 0))
    first, second = (sd0 / math.sqrt(n0) / scale) ** 2, (sd1 / math.sqrt(n1) / scale) ** 2
    se = scale * math.sqrt(first + second)
    df = (first + second) ** 2 / (first**2 / (n0 - 1) + second**2 / (n1 - 1))
    return WelchDifference(diff, se, df, diff - float(stdtrit(df, conf)) * se, float(stdtr(df, -diff / se)))


def n_per_cycle(gain: float, sd0: float, sd1: float, alpha: float = 0.05, power: float = 0.8) -> CycleSize:
    """Scored programs that each of two cycles needs for a one-sided test of size alpha to show a gain.

    Statement: n = (z_{1-alpha} + z_power)^2 (sd0^2 + sd1^2) / gain^2. Assumes means that are about normal and known
    spreads. gain over 0 and alpha < power. Source: Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    require_positive("gain", gain)
    require_not_negative("sd0", sd0)
    require_not_negative("sd1", sd1)
    require_open_share("alpha", alpha)
    require_open_share("power", power)
    if power <= alpha:
        raise ValueError(f"the power ({power}) must be over alpha ({alpha}): a coin would do as well")
    count = (float(ndtri(1 - alpha)) + float(ndtri(power))) ** 2 * ((sd0 / gain) ** 2 + (sd1 / gain) ** 2)
    return CycleSize(count, math.ceil(count))


def monotonicity_test(means: ArrayLike, se: float) -> MonotonicityTest:
    """Test of "the mean quality never fell": distance of the cycles' means from the nearest rising sequence.

    Statement: the isotonic fit pools adjacent violators; stat = sum((mean - fit)^2) / se^2, and if all means are equal
    P(stat >= c) = sum over l < T of |s(T, l)| / T! P(chi2_{T-l} >= c), a chi-bar-square law with |s| the unsigned
    Stirling numbers of the first kind; any other rising sequence makes a large stat less likely still.
    Assumes independent normal means with one common standard error. means: (T,) in order of the cycles.
    Source: Robertson, Wright and Dykstra, Order Restricted Statistical Inference (1988), chapter 2.
    """
    values = np.asarray(means, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("means must be a list of at least one finite number, one a cycle")
    require_positive("se", se)
    fit = np.asarray(isotonic_regression(values).x)
    stat = float((((values - fit) / se) ** 2).sum())
    if stat < ROUNDING:
        return MonotonicityTest(fit, stat, 1.0)
    weights = _level_weights(len(values))
    degrees = len(values) - np.arange(1, len(values))
    return MonotonicityTest(fit, stat, float(weights[:-1] @ chi2.sf(stat, degrees)))


def winners_curse(sigma_a: float, sigma_n: float, rho: float) -> float:
    """By how much the elites' own scores exceed their true quality on average.

    Statement: E[score - quality | elite] = sigma_n^2 i / sqrt(sigma_a^2 + sigma_n^2). Assumes normal quality and
    normal noise of one variance; selection of the best share rho. Source: docs/theory.md, R2 (estimators).
    """
    _, spread = _reliability(sigma_a, sigma_n)
    intensity = selection_intensity(rho).i
    return sigma_n * (sigma_n / spread) * intensity if spread > 0 else 0.0


def drift_heterozygosity(H0: float, n: float, a: float, t: float) -> NeutralDrift:
    """Expected diversity H = 1 - sum p^2 after t cycles of training on n draws without any selection.

    Statement: E[H_t] = (1 - a^2 / n)^t H0. Assumes the mixture step p <- (1-a) p + a (empirical law of n draws).
    H0 in 0 .. 1, n at least 1, a in 0 .. 1, t cycles. Source: Wright, Genetics 16 (1931), for a = 1;
    docs/theory.md, R2 (F).
    """
    require_share("H0", H0)
    require_share("a", a)
    require_not_negative("t", t)
    if not 1 <= n < math.inf:
        raise ValueError(f"n is the number of programs trained on and must be at least 1, not {n}")
    left = 1 - a * a / n
    if left == 0:
        return NeutralDrift(H0 if t == 0 else 0.0, 0.0)
    fall = math.log1p(-a * a / n)
    return NeutralDrift(H0 * math.exp(t * fall), math.log(0.5) / fall if fall < 0 else math.inf)


def _reliability(sigma_a: float, sigma_n: float) -> tuple[float, float]:
    """Share of the scores' variance that is quality (nan where nothing varies), and their standard deviation."""
    require_not_negative("sigma_a", sigma_a)
    require_not_negative("sigma_n", sigma_n)
    spread = math.hypot(sigma_a, sigma_n)
    return ((sigma_a / spread) ** 2 if spread > 0 else math.nan), spread


def _level_weights(size: int) -> NDArray[np.float64]:
    """P(the isotonic fit of `size` equal means has l levels) = |s(size, l)| / size!, for l = 1 .. size."""
    weights = np.array([1.0])
    for count in range(2, size + 1):
        # |s(k, l)| = (k-1) |s(k-1, l)| + |s(k-1, l-1)|, each divided by k!.
        weights = (np.append(weights, 0.0) * (count - 1) + np.append(0.0, weights)) / count
    return weights
