"""Valid programs counted by their length, and the likelihood of a hazard for each length (docs/theory.md, R4).

In: lengths and counts. Out: `LengthCounts`, and what the fits of `nas_ray.theory.token_errors` share. P(valid) is
exp(-hazard) throughout, and the log-likelihood is concave in the hazards, so that its maximum is the root of a falling
function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import xlogy

Vector = npt.NDArray[np.float64]
REACH = 650.0  # natural logarithm of the largest, and minus that of the smallest, number that a root is looked for at


@dataclass(frozen=True, slots=True)
class LengthCounts:
    """`y` of `n` programs are valid at each of the different lengths `L`, which rise; n is above 0."""

    L: Vector
    n: Vector
    y: Vector

    def loglik(self, hazard: Vector) -> float:
        """Log-likelihood, nats, without the binomial coefficients."""
        with np.errstate(all="ignore"):
            invalid = xlogy(self.n - self.y, -np.expm1(-hazard))
            valid = np.where(self.y > 0, self.y * hazard, 0.0)
        return float(np.sum(invalid - valid))

    def best_loglik(self) -> float:
        """That of the model with a share of its own for each length; nan without programs."""
        with np.errstate(all="ignore"):
            return self.loglik(-np.log(self.y / self.n)) if len(self.L) else math.nan

    def pull(self, hazard: Vector) -> Vector:
        """Derivative of the log-likelihood by each hazard; it falls as the hazard rises."""
        with np.errstate(all="ignore"):
            invalid = (self.n - self.y) / np.expm1(hazard)
        return np.where(self.n > self.y, invalid, 0.0) - self.y

    def information(self, hazard: Vector, design: Vector) -> Vector:
        """Fisher information, (k, k), of coefficients; `design`, (k, lengths), is d hazard / d coefficient."""
        with np.errstate(all="ignore"):
            found: Vector = (design * (self.n / np.expm1(hazard))) @ design.T
        return found


def group_by_length(L: npt.ArrayLike, n: npt.ArrayLike, y: npt.ArrayLike) -> LengthCounts:
    """Add up the counts of equal lengths; lengths without programs are left out.

    Raises:
        ValueError: of different lengths, a length that is not above 0, or more valid programs than programs.
    """
    lengths, programs, valid = (np.atleast_1d(np.asarray(one, dtype=np.float64)) for one in (L, n, y))
    if not lengths.shape == programs.shape == valid.shape or lengths.ndim != 1:
        raise ValueError(f"L, n and y go together: {lengths.size} lengths, {programs.size} n and {valid.size} y")
    if not np.all((lengths > 0) & (lengths < math.inf)):
        raise ValueError("every length L is a number of tokens above 0; some are not")
    if not np.all((valid >= 0) & (valid <= programs) & (programs < math.inf)):
        raise ValueError("of n programs from 0 to n can be valid; somewhere y is below 0 or above n")
    there = programs > 0
    different, place = np.unique(lengths[there], return_inverse=True)
    sums = (np.bincount(place, one[there], len(different)).astype(np.float64) for one in (programs, valid))
    return LengthCounts(different, *sums)


def best_theta(counts: LengthCounts, shape: Vector) -> float:
    """Likeliest theta of hazards theta * `shape`; 0 where all are valid, inf where none is, nan without programs."""
    if not len(counts.L):
        return math.nan
    scale = float(np.max(shape))
    part = shape / scale
    return positive_root(lambda at: float(np.sum(counts.pull(at * part) * part))) / scale


def positive_root(falling: Callable[[float], float], low: float = 0.0, high: float = math.inf) -> float:
    """Where a falling function is 0, between `low` and `high`; the end where it should be looked for if it is not."""
    start, stop = (math.log(low) if low > 0 else -REACH), (math.log(high) if high < math.inf else REACH)
    if falling(math.exp(start)) <= 0:
        return low
    if falling(math.exp(stop)) >= 0:
        return high
    return math.exp(float(brentq(lambda at: falling(math.exp(at)), start, stop, xtol=1e-13, rtol=1e-13)))


def standard_errors(information: Vector) -> list[float]:
    """Roots of the diagonal of its inverse; nan where it has none."""
    try:
        variances = np.diag(np.linalg.inv(information))
    except np.linalg.LinAlgError:
        return [math.nan] * len(information)
    return [math.sqrt(one) if 0 < one < math.inf else math.nan for one in variances]
