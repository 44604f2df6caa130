"""What a noisy proxy can promise: right order, true elites; are seeds worth their price? (docs/theory.md, R6)

In: reliabilities, or standard deviations. Out: what selection by the proxy will do.

The score of a run is s = mu + q + noise: quality q with standard deviation sigma_a between programs, noise with sigma_n
between seeds, both normal and independent, the noise alike for all programs. R = sigma_a^2 / (sigma_a^2 + sigma_n^2) is
the reliability of one run, R_m that of the mean of m, rho the share that is kept, k of N programs. Gains are in
standard deviations of q unless said otherwise.

An estimate of R may come out below 0 (`nas_ray.theory.reliability_estimates`) and counts as 0 here; nan gives nan;
above 1 it is refused.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, betaln, log_ndtr, ndtri, owens_t

from nas_ray.theory.inputs import require_open_share, require_positive
from nas_ray.theory.quality_gain import selection_intensity

POINTS = 513  # of a sum over a smooth function that is 0 at both ends: the error is far below 1e-9
TAIL = 1e-20  # of a distribution, left out at each end of that sum
ROUNDING = 1e-9  # of a whole number that was computed


class RankAgreement(NamedTuple):
    """How far the proxy's order is the true one."""

    pair_correct: float  # chance that two programs are put in the right order
    kendall_tau: float  # of score and truth
    spearman: float  # of score and truth
    seed_seed_pair_agree: float  # chance that two seeds put two programs in the same order; less than pair_correct


class FiniteIntensity(NamedTuple):
    """Mean of the best k of N standard normal numbers."""

    i: float
    burrows: float  # its usual approximation


class ElitePrecision(NamedTuple):
    """How many of those kept belong to the true best."""

    precision: float
    misclassified: float  # share of all programs: kept in error, or passed over in error
    false_positive_rate: float  # share kept of those that are not among the true best
    Lambda: float  # precision / false_positive_rate; inf without noise


class RepeatsNeeded(NamedTuple):
    """Runs of a program for a wanted reliability of their mean."""

    m_real: float
    m: float  # whole, at least 1; inf where no number is enough


class BestRepeats(NamedTuple):
    """Gain with 1, 2, ... runs of each program from one budget."""

    gains_in_sd: tuple[float, ...]  # nan where fewer programs than those kept can be paid for
    best_m: int | None  # None without a reliability


class DesignGain(NamedTuple):
    """What one design brings."""

    N: int  # programs that the budget pays for
    gain_in_sd: float  # of quality after full training; nan for fewer programs than those kept


def rank_agreement(sigma_a: float, sigma_n: float) -> RankAgreement:
    """Agreement of the order by one run with the true order, for normal quality and noise.

    Two differences are bivariate normal with correlation sqrt(R): a pair is in order with probability
    1/2 + arcsin(sqrt R) / pi = 1/2 + arctan(sigma_a / sigma_n) / pi, Kendall's tau is (2 / pi) arcsin(sqrt R),
    Spearman's rho (6 / pi) arcsin(sqrt(R) / 2), and two seeds agree on a pair with 1/2 + arcsin(R) / pi (Sheppard 1899;
    Kruskal 1958). All nan where both are 0.

    Raises:
        ValueError: a standard deviation below 0.
    """
    R = _reliability(sigma_a, sigma_n)
    root = math.sqrt(R)
    right = math.asin(root) / math.pi
    return RankAgreement(0.5 + right, 2 * right, 6 / math.pi * math.asin(root / 2), 0.5 + math.asin(R) / math.pi)


def intensity_finite(k: int, N: int) -> FiniteIntensity:
    """Mean of the best `k` of `N` independent standard normal numbers, exactly and by Burrows' approximation.

    It is N / k times the mean of phi(z(U)) where U, the upper tail at the cut, is Beta(k, N - k), phi the normal
    density and z(U) its quantile (David and Nagaraja 2003, chapter 3, by parts). Burrows (1972):
    i - (N - k) / (2 k (N + 1) i) with i of an infinite population.

    Raises:
        ValueError: unless 1 <= k <= N.
    """
    if not 1 <= k <= N:
        raise ValueError(f"k of N programs are kept, from 1 to N; {k} of {N} cannot be")
    if k == N:
        return FiniteIntensity(0.0, 0.0)
    high, low = (-float(ndtri(betaincinv(*shape, TAIL))) for shape in ((k, N - k), (N - k, k)))
    x = np.linspace(-low, high, POINTS)
    logs = -x * x - math.log(2 * math.pi) + (N - k - 1) * log_ndtr(x) + (k - 1) * log_ndtr(-x) - betaln(k, N - k)
    infinite = selection_intensity(k / N).i
    exact = N / k * float(np.sum(np.exp(logs))) * float(x[1] - x[0])
    return FiniteIntensity(exact, infinite - (N - k) / (2 * k * (N + 1) * infinite))


def elite_precision(R: float, rho: float) -> ElitePrecision:
    """Of the best `rho` by score, how many are among the best `rho` in truth; score and truth correlate by sqrt(R).

    precision = 1 - (2 / rho) T(z, sqrt((1 - sqrt R) / (1 + sqrt R))) with Owen's function T at the cut z (Owen 1956),
    of an infinite population. R = 0 gives rho and Lambda = 1, R = 1 gives 1 and inf.

    Raises:
        ValueError: rho not between 0 and 1, R above 1.
    """
    require_open_share("rho", rho)
    root = math.sqrt(_clip(R))
    missed = 2 * float(owens_t(-ndtri(rho), math.sqrt((1 - root) / (1 + root))))  # share of all: kept, not best
    precision, rate = max(1 - missed / rho, 0.0), missed / (1 - rho)  # in this order nan stays
    return ElitePrecision(precision, 2 * missed, rate, precision / rate if rate else math.inf)


def spearman_brown(R: float, m: float) -> float:
    """Reliability m R / (1 + (m - 1) R) of the mean of `m` runs, each of reliability `R` (Spearman 1910; Brown 1910).

    The noises of the runs are independent. Raises ValueError for m not above 0 and R above 1.
    """
    require_positive("m", m)
    R = _clip(R)
    return m * R / (1 + (m - 1) * R) if R else 0.0


def repeats_needed(R: float, target: float) -> RepeatsNeeded:
    """Runs of each program for which `spearman_brown` reaches `target`: target (1 - R) / (R (1 - target)).

    Raises:
        ValueError: target not from 0 to below 1, R above 1.
    """
    if not 0 <= target < 1:
        raise ValueError(f"target is a reliability, from 0 to below 1, not {target}")
    R = _clip(R)
    if math.isnan(R):
        return RepeatsNeeded(math.nan, math.nan)
    odds = target / (1 - target)
    needed = odds * (1 - R) / R if R else (math.inf if odds else 0.0)
    whole = math.inf if math.isinf(needed) else max(1.0, float(math.ceil(needed * (1 - ROUNDING))))
    return RepeatsNeeded(needed, whole)


def repeat_break_even(rho: float) -> float:
    """Reliability below which two runs of half as many programs beat one run of all, for a fixed number kept.

    R* = 2 (i(2 rho) / i(rho))^2 - 1, rho being the share kept of all; negative: never. Infinite population: with few
    programs ask `best_repeats`. docs/theory.md, R6 (G).

    Raises:
        ValueError: rho not between 0 and 1. nan above 1/2, where half of the programs are fewer than those kept.
    """
    require_open_share("rho", rho)
    if rho > 0.5:
        return math.nan
    return 2 * (selection_intensity(2 * rho).i / selection_intensity(rho).i) ** 2 - 1


def best_repeats(B: int, k: int, R: float, m_max: int = 8) -> BestRepeats:
    """Gain of keeping `k` programs when `B` runs are spent as m runs on each of B // m programs, for m = 1 .. `m_max`.

    sqrt(R_m) i(k, B // m); docs/theory.md, R6 (G).

    Raises:
        ValueError: unless 1 <= k <= B and m_max >= 1; R above 1.
    """
    if not 1 <= k <= B or m_max < 1:
        raise ValueError(f"{B} runs, {k} programs kept, up to {m_max} runs each: 1 <= k <= B and m_max >= 1 are needed")
    gains = tuple(design_gain(B, k, 1, m, R, 1.0).gain_in_sd for m in range(1, m_max + 1))
    return BestRepeats(gains, int(np.nanargmax(gains)) + 1 if not math.isnan(gains[0]) else None)


def design_gain(budget: float, keep: int, epochs: float, seeds: int, R1: float, rho_f: float) -> DesignGain:
    """Gain in quality after full training, of keeping `keep` programs of N = budget / (epochs seeds) by their scores.

    rho_f sqrt(R_m) i(keep, N) standard deviations of that quality: seeds raise R_m, only epochs raise rho_f.
    docs/theory.md, R6 (H).

    Args:
        budget: epochs of training in all. epochs: of one run. seeds: runs of a program.
        R1: reliability of one run of so many epochs. rho_f: correlation, free of noise, of the quality after so many
            epochs with that after full training, -1 .. 1.

    Raises:
        ValueError: epochs, seeds or keep that are not above 0, a budget below 0, rho_f outside -1 .. 1, R1 above 1.
    """
    if not (budget >= 0 and epochs > 0 and seeds >= 1 and keep >= 1):
        raise ValueError(
            f"a budget of {budget} for {epochs} epochs of {seeds} seeds with {keep} programs kept is no design: the "
            "budget is 0 or more, the others are above 0"
        )
    if abs(rho_f) > 1:
        raise ValueError(f"rho_f is a correlation, -1 .. 1, not {rho_f}; an estimate above 1 counts as 1")
    N = math.floor(budget / (epochs * seeds) * (1 + ROUNDING))
    root = math.sqrt(spearman_brown(R1, seeds))
    if keep > N:
        return DesignGain(N, math.nan)
    return DesignGain(N, rho_f * root * intensity_finite(keep, N).i)


def _reliability(sigma_a: float, sigma_n: float) -> float:
    if sigma_a < 0 or sigma_n < 0:
        raise ValueError(f"standard deviations are at least 0, not {sigma_a} and {sigma_n}")
    total = sigma_a**2 + sigma_n**2
    return sigma_a**2 / total if total else math.nan


def _clip(R: float) -> float:
    if R > 1:
        raise ValueError(f"a reliability is at most 1, not {R}")
    return R if math.isnan(R) else max(0.0, R)
