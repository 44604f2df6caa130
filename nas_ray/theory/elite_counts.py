"""Elite counts of several cycles, checked, and the binomial likelihood that every fit of `elite_rate_fits` maximises.

In: cycles t, draws N and elites K, one entry a cycle. Out: `EliteSeries`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EliteSeries:
    """K elites among N independent draws in cycle t, for the T cycles that drew anything: (T,) floats each."""

    t: Floats
    N: Floats
    K: Floats
    all_t: Floats  # with the cycles that drew nothing: a fitted curve has a value there too
    kept: NDArray[np.bool_]  # which of all_t drew something

    @classmethod
    def of(cls, t: ArrayLike, N: ArrayLike, K: ArrayLike) -> EliteSeries:
        """Raises ValueError for lists of different lengths, for no draws at all, and for impossible counts."""
        cycles, draws, elites = (np.asarray(column, dtype=np.float64) for column in (t, N, K))
        if cycles.ndim != 1 or not cycles.shape == draws.shape == elites.shape:
            raise ValueError(
                f"t, N and K must be lists of one length, one entry a cycle, not {cycles.shape}, {draws.shape} and "
                f"{elites.shape}"
            )
        if not (np.isfinite(cycles) & (cycles >= 0)).all():
            raise ValueError(f"cycles must be numbers of at least 0, not {cycles.tolist()}")
        possible = np.isfinite(draws) & (elites >= 0) & (elites <= draws)
        if not possible.all():
            at = int(np.argmin(possible))
            raise ValueError(f"cycle {cycles[at]:g} has {elites[at]:g} elites of {draws[at]:g} draws; give 0 <= K <= N")
        if not (draws > 0).any():
            raise ValueError(
                "no cycle drew any program, so there is no rate to fit; give at least one cycle with N > 0"
            )
        kept = draws > 0
        return cls(cycles[kept], draws[kept], elites[kept], cycles, kept)

    @cached_property
    def F(self) -> Floats:
        """Draws that were no elites."""
        return self.N - self.K

    @cached_property
    def distinct(self) -> int:
        """Different cycles: so many parameters can be told apart."""
        return len(np.unique(self.t))

    @cached_property
    def shares(self) -> Floats:
        """Each cycle's own share of elites, (T,); entries of the same cycle are pooled."""
        _, at = np.unique(self.t, return_inverse=True)
        return np.asarray((np.bincount(at, self.K) / np.bincount(at, self.N))[at])

    @cached_property
    def saturated(self) -> float:
        """The highest log-likelihood that any curve over the cycles can have, in nats."""
        return self.log_likelihood(self.shares)

    def log_likelihood(self, share: Floats) -> float:
        """sum K ln(share) + (N-K) ln(1-share), without the binomial coefficients; nats, (T,) shares."""
        return float((xlogy(self.K, share) + xlog1py(self.F, -share)).sum())

    def deviance(self, share: Floats) -> float:
        """Twice the log-likelihood that the shares fall short of each cycle's own share."""
        return max(0.0, 2 * (self.log_likelihood(self.K / self.N) - self.log_likelihood(share)))

    def pearson(self, share: Floats) -> float:
        """Pearson's X^2 of the shares: sum (K - N share)^2 / (N share (1-share)); 0/0 counts as 0."""
        miss, variance = (self.K - self.N * share) ** 2, self.N * share * (1 - share)
        return float(np.divide(miss, variance, out=np.zeros_like(miss), where=variance > 0).sum())
