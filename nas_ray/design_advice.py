"""What a run's own design makes of its reliability, and whether seeds, epochs or neither would be worth their price.

In: a `Reliability` and the run's rows. Out: an `Advice`: how many of those that a cycle keeps belong there, and what
the same budget would bring if it were spent on more seeds, or on longer training, of fewer candidates. Gains are those
of `nas_ray.theory.reliability`, for Gaussian qualities and noise and a fixed number kept (docs/theory.md, R6).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas_ray.interval import Interval
from nas_ray.leaderboard import rank
from nas_ray.reliability import SEEDS, Reliability
from nas_ray.run_table import RunTable
from nas_ray.theory.quality_gain import winners_curse
from nas_ray.theory.reliability import best_repeats, design_gain, elite_precision, rank_agreement, repeats_needed
from nas_ray.theory.reliability import spearman_brown as repeat
from nas_ray.theory.reliability_estimates import icc_sample_size

WORTH = 1.05  # times the gain of the run's own design; what brings less is not worth a change
WELL = 0.8  # a reliability to aim at
WIDTH = 0.3  # of an interval of the reliability that is narrow enough
LEAST = 0.01  # a reliability or correlation of 0 would make every other design infinitely better
MOST = 1 - 1e-9  # and one of 1 has no noise


@dataclass(frozen=True, slots=True)
class Alternative:
    """The budget of a cycle, spent in another way."""

    epochs: int
    seeds: int
    candidates: int  # that it is enough for
    ratio: Interval  # its gain over that of the run's own design; 0 where no more are left than are kept


@dataclass(frozen=True, slots=True)
class Advice:
    """One cycle of the run, as its reliability lets one expect it."""

    trained: int  # candidates of a cycle that got a score, on average
    keep: int  # of those
    seeds: int  # evaluation.seeds, whose mean is the score
    reliability: Interval  # of such a score, for choosing within a cycle; 0 .. 1
    precision: Interval  # share of those kept that are among the truly best
    pair_correct: Interval  # chance that two candidates are put in the right order
    curse: float  # by how much the mean score of those kept exceeds their quality, share of the validation split
    seeds_needed: float  # for a reliability of WELL; inf: no number is enough
    more_seeds: Alternative  # the best other number of seeds
    more_epochs: Alternative | None  # of the length that was measured; None where its fidelity was not testable
    verdict: str  # "seeds" | "epochs" | "neither"
    certain: bool  # the verdict holds over the whole interval of the reliability, or of the fidelity

    def as_values(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name, value in values.items():
            if isinstance(value, Alternative):
                values[name] = {part: _plain(getattr(value, part)) for part in value.__slots__}
        return {name: _plain(value) for name, value in values.items()}


def advise(measured: Reliability, table: RunTable) -> Advice | None:
    """Judge the run's design by what was measured; None without a reliability, and where a cycle keeps all it trains.

    The reliability is `Reliability.selection`. That of a long training was measured over the whole run and is brought
    to the same footing: its noise stays, and its spread of qualities shrinks as that of the short one does
    (`restrict`). The fidelity is that over the whole run.
    """
    scores = measured.selection
    trained = round(len(rank(table.candidates)) / max(len(table.cycles), 1))
    keep = max(1, round(kept_share(table) * trained))
    if scores is None or measured.icc is None or keep >= trained:
        return None
    seeds, rho = table.config.evaluation.seeds, keep / trained
    budget, one = trained * seeds, _within(scores)
    of_score = _map(lambda R: repeat(R, seeds), one)
    noise = measured.sigma_n or 0.0  # which is there where a reliability is

    others = best_repeats(budget, keep, one.estimate, max(8, seeds)).gains_in_sd
    best = max((m for m in range(1, len(others) + 1) if m != seeds), key=lambda m: _gain(others[m - 1]))

    def gain(R: float, epochs: float, m: int, fidelity: float) -> float:
        return _gain(design_gain(budget, keep, epochs, m, R, fidelity).gain_in_sd)

    by_seeds = _map(lambda R: gain(R, 1, best, 1.0) / gain(R, 1, seeds, 1.0), one)
    more_seeds = Alternative(measured.epochs, best, budget // best, by_seeds)
    more_epochs = None
    if (fidelity := measured.fidelity) is not None:
        times = fidelity.epochs / measured.epochs
        of_run, rho_f = _within(measured.icc).estimate, _within(fidelity.rho)
        long_of_run = 1.0 if fidelity.long_reliability is None else fidelity.long_reliability

        def by_both(R: float, rho_f: float) -> float:
            return gain(restrict(long_of_run, of_run, R), times, 1, 1.0) / gain(R, 1, seeds, rho_f)

        corners = [by_both(*corner) for corner in itertools.product(one, rho_f)]
        by_epochs = Interval(min(corners), by_both(one.estimate, rho_f.estimate), max(corners))
        more_epochs = Alternative(fidelity.epochs, 1, math.floor(budget / times), by_epochs)
    verdict, certain = _judge(more_seeds, more_epochs)
    return Advice(
        trained=trained,
        keep=keep,
        seeds=seeds,
        reliability=of_score,
        precision=_map(lambda R: elite_precision(R, rho).precision, of_score),
        pair_correct=_map(lambda R: rank_agreement(math.sqrt(R), math.sqrt(1 - R)).pair_correct, of_score),
        curse=winners_curse(quality_spread(one.estimate, noise), noise / math.sqrt(seeds), rho),
        seeds_needed=repeats_needed(one.estimate, WELL).m,
        more_seeds=more_seeds,
        more_epochs=more_epochs,
        verdict=verdict,
        certain=certain,
    )


def kept_share(table: RunTable) -> float:
    """Share of a cycle's valid programs that the run keeps, 0 .. 1: its quantile, and without one elites / valid ones.

    0 where there is no elite. At 1 nothing is selected, and `nas_ray.theory.reliability.elite_precision` says nothing.
    """
    quantile = table.config.selection.quantile
    return quantile if quantile is not None else len(table.elites) / max(len(table.valid), 1)


def quality_spread(reliability: float, sigma_n: float) -> float:
    """Standard deviation of quality, where the noise is `sigma_n` and a single score has that reliability, 0 .. 1.

    sigma_n sqrt(R / (1 - R)), of any unit, from R = sigma_a^2 / (sigma_a^2 + sigma_n^2); inf for R = 1.
    """
    return sigma_n * math.sqrt(reliability / (1 - reliability)) if reliability < 1 else math.inf


def restrict(reliability: float, of_all: float, of_some: float) -> float:
    """A reliability over all programs, for some of them, among whom another score's is `of_some` instead of `of_all`.

    R / (1 - R) is the variance of quality over that of the noise. Noise stays, the variances of both qualities shrink
    by one factor (and their correlation stays), so that R / (1 - R) shrinks as `of_some` / (1 - `of_some`) does:
    the effect of group heterogeneity on reliability (Gulliksen 1950, chapter 10). All are over 0, `of_all` and
    `of_some` under 1.
    """
    signal, noise = reliability * of_some * (1 - of_all), (1 - reliability) * (1 - of_some) * of_all
    return signal / (signal + noise)


def count_needed(measured: Reliability) -> int:
    """Programs, from as many seeds as were measured, for an interval of the reliability that is WIDTH wide."""
    estimate = measured.icc.estimate if measured.icc is not None else 0.5
    return icc_sample_size(min(max(estimate, 0.0), 1.0), measured.seeds if measured.seeds > 1 else SEEDS, WIDTH).n


def _judge(seeds: Alternative, epochs: Alternative | None) -> tuple[str, bool]:
    options = [("seeds", seeds), *([("epochs", epochs)] if epochs is not None else [])]
    name, best = max(options, key=lambda option: option[1].ratio.estimate)
    if best.ratio.estimate >= WORTH:
        return name, best.ratio.low > 1
    return "neither", all(one.ratio.high < WORTH for _, one in options)


def _within(interval: Interval) -> Interval:
    return Interval(*(min(max(value, LEAST), MOST) for value in interval))


def _map(function: Callable[[float], float], interval: Interval) -> Interval:
    """A monotone function of an estimate and its bounds."""
    low, estimate, high = (function(value) for value in interval)
    return Interval(min(low, high), estimate, max(low, high))


def _gain(value: float) -> float:
    """A gain; none at all where the budget is for fewer candidates than are kept."""
    return 0.0 if math.isnan(value) else value


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, Interval) else value
