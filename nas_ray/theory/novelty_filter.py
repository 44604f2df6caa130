"""What the novelty filter promises, and what it may cost (docs/theory.md, R5).

In: settings of the filter, or counts of what was accepted. Out: chances, floors of diversity, estimates.

Symbols: J Jaccard similarity of two programs, tau the similarity from which the later one is refused, b bands of r rows
of a MinHash signature, M programs accepted in a cycle, a share of the newly accepted in the law that the model is
trained to ("smoothing", 0 .. 1). Entropies are in nats. What the data cannot tell is nan.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import beta, betainc, betaincc, entr

from nas_ray.theory.inputs import require_not_negative, require_share


class LshCurve(NamedTuple):
    """Banding at one similarity, and the similarities that describe it."""

    candidate_prob: float  # chance that the pair shares a band, and so is looked at
    threshold_approx: float  # (1/b)^(1/r), the usual rule of thumb: a scale, no more
    J50: float  # where the chance is one half
    inflection: float  # where the curve is steepest; nan for the straight line of a single row


class LshAreas(NamedTuple):
    """Areas under the two errors of banding, over J from 0 to 1."""

    false_positive_area: float
    false_negative_area: float


class DiversityFloor(NamedTuple):
    """What M accepted programs cannot fall below (all alike in weight)."""

    log_M: float  # nats, entropy over cells
    max_mass: float  # share of the largest cell
    leinster_cobbold_2: float  # effective number, order 2
    vendi_2: float  # effective number, order 2


class GoodTuring(NamedTuple):
    """What has not been seen yet."""

    unseen_mass: float  # chance that the next draw is of a new kind
    se: float
    chao1_bc: float  # number of kinds, seen or not; a lower bound in expectation


class HillNumbers(NamedTuple):
    """Effective numbers of kinds of order 0, 1, 2 and infinity, which fall in that order."""

    D0: float
    D1: float
    D2: float
    Dinf: float


class LoopYield(NamedTuple):
    """Training pairs of a cycle."""

    expected: float
    prob_zero: float  # chance that there is none


def lsh_curve(J: float, b: int, r: int) -> LshCurve:
    """Chance 1 - (1 - J^r)^b that a pair of similarity `J` shares at least one of `b` bands of `r` rows.

    Rows agree independently with probability J (min-wise hashing: Broder 1997; banding: Indyk and Motwani 1998). The
    chance is one half at (1 - 2^(-1/b))^(1/r) and steepest at ((r - 1) / (b r - 1))^(1/r). docs/theory.md, R5 (H).

    Raises:
        ValueError: J outside 0 .. 1, b or r below 1.
    """
    _check_bands(b, r)
    require_share("J", J)
    return LshCurve(
        candidate_prob=1 - (1 - J**r) ** b,
        threshold_approx=(1 / b) ** (1 / r),
        J50=(-math.expm1(-math.log(2) / b)) ** (1 / r),
        inflection=((r - 1) / (b * r - 1)) ** (1 / r) if b * r > 1 else math.nan,
    )


def lsh_areas(tau: float, b: int, r: int) -> LshAreas:
    """Areas of the errors of `lsh_curve` S: under S below `tau` (looked at in vain), over S above it (missed).

    With x = J^r they are incomplete beta functions: tau - B(tau^r; 1/r, b + 1) / r, and the rest of B(1/r, b + 1) / r.
    Similarities count alike from 0 to 1, as in the usual choice of b and r by equal areas. docs/theory.md, R5 (H).

    Raises:
        ValueError: tau outside 0 .. 1, b or r below 1.
    """
    _check_bands(b, r)
    require_share("tau", tau)
    whole, at = float(beta(1 / r, b + 1)) / r, tau**r
    below = tau - whole * float(betainc(1 / r, b + 1, at))
    return LshAreas(max(0.0, below), whole * float(betaincc(1 / r, b + 1, at)))


def diversity_floor(M: int, tau: float) -> DiversityFloor:
    """Least diversity of `M` accepted programs that are all less than `tau` alike, each with weight 1/M.

    No two of them are in one cell of any partition into cells of Jaccard diameter 1 - tau or less, so the entropy over
    cells is ln M and the largest share 1/M. Diversity of order 2 is at least M / (1 + (M - 1) tau) by the similarities
    (Leinster and Cobbold 2012) and M / (1 + (M - 1) tau^2) by their eigenvalues (Friedman and Dieng 2023; Vendi of
    order 1 is larger still). About the training set, not about the model. With MinHash in place of J, tau is that of a
    certificate. docs/theory.md, R5 (A), (B).

    Raises:
        ValueError: M below 0, tau outside 0 .. 1. All nan for M = 0.
    """
    require_share("tau", tau)
    require_not_negative("M", M)
    if M == 0:
        return DiversityFloor(math.nan, math.nan, math.nan, math.nan)
    return DiversityFloor(math.log(M), 1 / M, M / (1 + (M - 1) * tau), M / (1 + (M - 1) * tau**2))


def entropy_path_bound(H0: float, M: npt.ArrayLike, a: float) -> float:
    """Least entropy over cells, nats, of a model that starts at `H0` and is trained on `M` programs in each cycle.

    H' >= (1 - a) H + a ln M for the mixture (1 - a) p + a * (uniform over the accepted), by concavity of entropy. A
    cycle that accepts nothing trains nothing and leaves the model as it was. For fine-tuning that is no mixture it is a
    direction, not a bound. docs/theory.md, R5 (C).

    Args:
        H0: 0 or more. M: accepted programs, one number a cycle. a: 0 .. 1.

    Raises:
        ValueError: a number out of these ranges.
    """
    require_share("a", a)
    accepted = np.atleast_1d(np.asarray(M, dtype=np.float64))
    require_not_negative("H0", H0)
    if not np.all(accepted >= 0):
        raise ValueError("M holds numbers of accepted programs, 0 or more; one is below 0")
    entropy = float(H0)
    for count in accepted[accepted > 0]:
        entropy = (1 - a) * entropy + a * math.log(count)
    return entropy


def good_turing(counts: npt.ArrayLike) -> GoodTuring:
    """Chance that the next draw is of a kind not seen, from how often each kind was seen.

    f1 / n for f1 kinds seen once in n independent draws of one law (Good 1953); standard error
    sqrt(f1 (1 - f1 / n) + 2 f2) / n (Esty 1983), f2 seen twice; it is 0, and says nothing, where every kind was seen
    once, or none once or twice.
    Chao's estimate of the number of kinds, corrected for bias: seen + (n - 1) / n f1 (f1 - 1) / (2 (f2 + 1)) (Chao
    1984; Chao 2005). docs/theory.md, R5.

    Args:
        counts: draws of each kind, whole numbers; zeros are left out. All nan without draws.

    Raises:
        ValueError: a count below 0.
    """
    seen = _seen(counts)
    n = float(seen.sum())
    if n == 0:
        return GoodTuring(math.nan, math.nan, math.nan)
    once, twice = float(np.sum(seen == 1)), float(np.sum(seen == 2))
    return GoodTuring(
        unseen_mass=once / n,
        se=math.sqrt(once * (1 - once / n) + 2 * twice) / n,
        chao1_bc=len(seen) + (n - 1) / n * once * (once - 1) / (2 * (twice + 1)),
    )


def hill_numbers(counts: npt.ArrayLike) -> HillNumbers:
    """Effective numbers of kinds, (sum p^q)^(1 / (1 - q)) for q = 0, 1, 2, infinity, of the shares p seen (Hill 1973).

    Of the sample, not of the law that it came from: order 0 misses the kinds that were not drawn. `counts` and errors
    as of `good_turing`; all nan without draws.
    """
    seen = _seen(counts)
    if not len(seen):
        return HillNumbers(math.nan, math.nan, math.nan, math.nan)
    shares = seen / seen.sum()
    return HillNumbers(
        D0=float(len(seen)),
        D1=math.exp(float(entr(shares).sum())),
        D2=1 / float(np.sum(shares**2)),
        Dinf=1 / float(shares.max()),
    )


def loop_yield(N: int, v: float, p_elite: float, nu: float) -> LoopYield:
    """Training pairs of `N` candidates: N v p_elite nu expected, none with probability (1 - v p_elite nu)^N.

    Candidates are independent draws; v is the share of valid ones, p_elite of elites among those, nu of novel ones
    among those again, each 0 .. 1. docs/theory.md, R5.

    Raises:
        ValueError: N below 0, a share outside 0 .. 1.
    """
    require_not_negative("N", N)
    for name, share in (("v", v), ("p_elite", p_elite), ("nu", nu)):
        require_share(name, share)
    each = v * p_elite * nu
    return LoopYield(N * each, math.exp(N * math.log1p(-each)) if each < 1 else float(N == 0))


def _seen(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    found = np.atleast_1d(np.asarray(counts, dtype=np.float64))
    if not np.all((found >= 0) & (found < math.inf)):
        raise ValueError("counts holds numbers of draws, 0 or more; one is not")
    return found[found > 0]


def _check_bands(b: int, r: int) -> None:
    if b < 1 or r < 1:
        raise ValueError(f"a signature has at least one band of one row, not {b} bands of {r} rows")
