"""Programs trained again from fresh seeds: how noisy they are, how far seeds agree, how far short says what long would.

In: scores by program and seed. Out: pooled variances, a `NoiseRatio`, an `Agreement`, a `Fidelity`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from nas_ray.interval import LEVEL, Interval
from nas_ray.rank_correlation import FEWEST, correlate
from nas_ray.schema import EvaluationRow
from nas_ray.theory.reliability import rank_agreement, spearman_brown
from nas_ray.theory.reliability_estimates import attenuation, icc1, variance_ratio

Scores = Mapping[str, Mapping[int, float]]  # accuracy, share 0 .. 1, by program's id and by seed


class Variance(NamedTuple):
    """An estimated variance; nan without degrees of freedom."""

    value: float
    df: int


class NoiseRatio(NamedTuple):
    """Variance of the elites' fresh scores around their own means, over that of the other candidates; F test."""

    ratio: float
    low: float
    high: float
    p: float  # two-sided, of equal variances
    n_elites: int  # programs with two fresh scores or more
    n_others: int


class Agreement(NamedTuple):
    """How often two seeds put a pair of programs in the same order, 0 .. 1; a tie counts as half."""

    observed: Interval
    predicted: Interval  # from the ICC and its bounds, were quality and noise Gaussian (docs/theory.md, R6)
    reliability: Interval  # that `observed` stands for, 0 .. 1: 1/2 + arcsin(R) / pi turned round
    n: int  # programs

    @property
    def refutes(self) -> bool:
        """Orders agree less than the ICC promises. Then a few bad programs make up most of the variance between
        programs, and say nothing of those that selection has to tell apart."""
        return self.observed.high < self.predicted.low


class Fidelity(NamedTuple):
    """How far the quality after a short training goes with the quality after a long one, luck taken out."""

    rho: Interval  # correlation corrected for attenuation; for few programs it may leave -1 .. 1
    n: int  # programs with all their fresh short scores and all their long ones
    epochs: int  # of the long training
    observed: float  # Pearson's correlation of the means, not corrected
    spearman: Interval | None  # likewise by rank; None where one side is the same for all
    long_reliability: float | None  # of one long training, 0 .. 1; None: no two seeds, and taken as 1


def gather(rows: Iterable[EvaluationRow], epochs: int, protocol: str) -> dict[str, dict[int, float]]:
    """The scores on the validation split of trainings of that length under the protocol of that digest."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        if (row.epochs, row.protocol, row.split) == (epochs, protocol, "validation") and row.accuracy is not None:
            scores.setdefault(row.id, {})[row.seed] = row.accuracy
    return scores


def list_groups(scores: Scores) -> list[list[float]]:
    """The scores of each program."""
    return [list(of_one.values()) for of_one in scores.values()]


def pool(groups: Iterable[Sequence[float]]) -> Variance:
    """Variance within groups, pooled over them."""
    arrays = [np.asarray(group) for group in groups if group]
    df = sum(len(group) - 1 for group in arrays)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in arrays)
    return Variance(squares / df if df else math.nan, df)


def show_noise(groups: Sequence[Sequence[float]]) -> bool:
    """True where enough programs have two scores or more, and those are not all the same."""
    return sum(len(group) > 1 for group in groups) >= FEWEST and pool(groups).value > 0


def compare_noise(scores: Scores, elites: Collection[str]) -> NoiseRatio | None:
    """Are elites noisier than others? None where either has too few programs with two scores, or no noise at all.

    F test of two independent variances, which asks for Gaussian noise. The scores have to be fresh: those that made
    the elites are all on one side.
    """
    several = {one: list(of_one.values()) for one, of_one in scores.items() if len(of_one) > 1}
    ours = [group for one, group in several.items() if one in elites]
    theirs = [group for one, group in several.items() if one not in elites]
    if not (show_noise(ours) and show_noise(theirs)):
        return None
    found = variance_ratio(*pool(ours), *pool(theirs))
    return NoiseRatio(found.ratio, found.low, found.high, found.p, len(ours), len(theirs))


def compare_orders(scores: Scores, icc: Interval) -> Agreement | None:
    """Agreement of the seeds on the order of programs that have all of them; None for too few of those.

    `icc` is the reliability that the scores themselves show. Bounds of the observed agreement are normal, with the
    standard error of a jackknife over the programs (Arvesen 1969, for U-statistics). The reliability that it stands for
    is sin(pi (agreement - 1/2)) (Greiner 1909; Kruskal 1958): unlike the ICC it holds for every score that orders
    programs as a Gaussian one would, however long its tail of bad programs.
    """
    complete = _complete(scores)
    if len(complete) < FEWEST:
        return None
    seeds = np.array([[of_one[seed] for seed in sorted(of_one)] for of_one in complete.values()]).T
    count = len(complete)
    orders = np.sign(seeds[:, :, None] - seeds[:, None, :])  # (seeds, programs, programs)
    same = np.mean([(1 + left * right) / 2 for left, right in combinations(orders, 2)], axis=0)
    np.fill_diagonal(same, 0.0)
    of_each = same.sum(axis=1)
    observed = float(of_each.sum()) / (count * (count - 1))
    without = (of_each.sum() - 2 * of_each) / ((count - 1) * (count - 2))
    half = float(ndtri((1 + LEVEL) / 2)) * float(np.sqrt((count - 1) * np.var(without)))
    bounds = Interval(max(observed - half, 0.0), observed, min(observed + half, 1.0))
    predicted = [rank_agreement(*_deviations(bound)).seed_seed_pair_agree for bound in icc]
    stands_for = [max(math.sin(math.pi * (bound - 0.5)), 0.0) for bound in bounds]
    return Agreement(bounds, Interval(*predicted), Interval(*stands_for), count)


def find_fidelity(short: Scores, long: Scores, epochs: int, reliability: float) -> Fidelity | None:
    """Correlation of the programs' mean short scores with their mean long ones, corrected for the noise of both.

    Args:
        short, long: of the same programs, from seeds of their own.
        epochs: of the long trainings.
        reliability: of one short training among these programs.

    Returns:
        None for too few programs, and where the noise of either leaves nothing to correlate.
    """
    whole, longer = _complete(short), _complete(long)
    both = sorted(whole.keys() & longer.keys())
    if len(both) < FEWEST or reliability <= 0:
        return None
    groups = [list(longer[one].values()) for one in both]
    seeds = len(groups[0])
    left, right = [fmean(whole[one].values()) for one in both], [fmean(group) for group in groups]
    long_reliability = icc1(groups).ICC if show_noise(groups) else None
    ranks = correlate(left, right).spearman
    if ranks is None or (long_reliability is not None and long_reliability <= 0):
        return None
    observed = float(np.corrcoef(left, right)[0, 1])
    of_mean = 1.0 if long_reliability is None else spearman_brown(long_reliability, seeds)
    found = attenuation(observed, spearman_brown(reliability, len(whole[both[0]])), of_mean, len(both))
    rho = Interval(found.ci_low, found.rho_fidelity, found.ci_high)
    return Fidelity(rho, len(both), epochs, observed, ranks, long_reliability)


def _complete(scores: Scores) -> Scores:
    """Programs that have a score from every seed that any of them has."""
    seeds = {seed for of_one in scores.values() for seed in of_one}
    return {one: of_one for one, of_one in scores.items() if of_one.keys() == seeds}


def _deviations(reliability: float) -> tuple[float, float]:
    """Standard deviations of quality and of noise that give that reliability."""
    share = min(max(reliability, 0.0), 1.0)
    return share**0.5, (1 - share) ** 0.5
