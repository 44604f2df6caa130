"""What is known of a search before it runs, and where each number is from.

In: what a person said, what a pilot run measured, and round numbers for the rest. Out: `Guesses`, every entry a
`Known`: an interval and its source. What was said overrules what a pilot measured, and that overrules the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from nas_ray.interval import Interval, wilson
from nas_ray.outcome import Outcome, Stage
from nas_ray.reliability import Reliability
from nas_ray.run_table import EliteCounts, RunTable, count_elites, freeze_bar, quality
from nas_ray.theory.cross_entropy import alpha_from_elite_counts
from nas_ray.theory.elite_curves import LogisticFit
from nas_ray.theory.elite_rate_fits import GeomFit, geom_fit, logistic_fit

Source = Literal["said", "pilot", "guess"]

FEWEST_CYCLES = 3  # of a pilot, for a line through its elite counts; with two there is a step and no fit
OVERDISPERSED = 1.5  # Pearson's statistic over its degrees of freedom, from which standard errors are widened
LOWEST_RELIABILITY = 0.01  # an interval of a reliability may reach below 0, where nothing can be planned


@dataclass(frozen=True, slots=True)
class Known:
    """A number, how far it is uncertain (low = estimate = high: not at all), and where it is from."""

    low: float
    estimate: float
    high: float
    source: Source
    note: str = ""  # how it was measured, or why it was not

    @classmethod
    def of(cls, interval: Interval, source: Source, note: str = "") -> Known:
        return cls(interval.low, interval.estimate, interval.high, source, note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """What a plan starts from. Shares are of all programs written unless they say otherwise.

    The built-in guesses are round numbers around the runs in docs/results.md: the seed model on digits. They stand for
    no other model and no other data set.
    """

    elite_rate: Known = Known(0.1, 0.2, 0.3, "guess")  # at or over the bar in the first cycle
    valid_rate: Known = Known(0.3, 0.5, 0.8, "guess")  # have an accuracy, or repeat a program that has one
    novel_rate: Known = Known(0.6, 0.9, 1.0, "guess")  # of the valid ones, that the novelty filter lets pass
    smoothing: Known = Known(0.02, 0.07, 0.2, "guess")  # a: weight of the elites in the next cycle's writer
    reliability: Known = Known(0.3, 0.6, 0.9, "guess")  # R: correlation of one program's accuracies from two seeds
    seconds: Known | None = None  # wall time of one training, with its share of everything else
    accuracy_sd: Known | None = None  # standard deviation of the valid programs' accuracies within a cycle
    bar: Known | None = None  # accuracy that makes an elite; the same in every cycle
    counts: EliteCounts | None = None  # the pilot's
    fit: GeomFit | None = None  # of 1 - elite rate over the pilot's cycles; None: too few, or overruled
    logistic: LogisticFit | None = None  # the other law, of the same counts; None as `fit`

    @classmethod
    def of(cls, table: RunTable, bar: float | None = None) -> Guesses:
        """What a pilot run measured; what it could not measure stays a guess, with the reason in its note.

        `bar` (accuracy, 0 .. 1) replaces the one that the pilot's first cycle set. Shares have Wilson's intervals at
        95 %; the smoothing is that of the geometric fit, profile interval.
        """
        known = cls._rates(table)
        known = replace(known, seconds=_seconds(table), accuracy_sd=_accuracy_sd(table))
        measured = Reliability.read(table)
        within = measured.selection if measured is not None else None
        if within is not None:
            low, estimate, high = (min(max(value, LOWEST_RELIABILITY), 1.0) for value in within)
            known = replace(known, reliability=Known(low, estimate, high, "pilot", "re-trained from fresh seeds"))
        else:
            why = "the pilot has no re-trained programs; `nas-ray reliability RUN` makes them"
            known = replace(known, reliability=replace(known.reliability, note=why))
        frozen = freeze_bar(table) if bar is None else bar
        return known if frozen is None else known._with_elites(count_elites(table, frozen), own=bar is None)

    @classmethod
    def _rates(cls, table: RunTable) -> Guesses:
        archive = table.archive
        valid = sum(quality(row, archive) is not None for row in table.candidates)
        repeats = sum(quality(row, archive) is not None for row in table.candidates if row.outcome is Outcome.DUPLICATE)
        known = cls()
        share, novel = wilson(valid, len(table.candidates)), wilson(valid - repeats, valid)
        if share is not None and valid:
            note = f"{valid} of {len(table.candidates)} programs"
            known = replace(known, valid_rate=Known.of(share, "pilot", note))
        if novel is not None and novel.estimate > 0:
            known = replace(known, novel_rate=Known.of(novel, "pilot", f"{valid - repeats} of {valid} valid ones"))
        return known

    def _with_elites(self, counts: EliteCounts, own: bool) -> Guesses:
        """`own`: the bar is the pilot's own, and not one that somebody named."""
        first, drawn = int(counts.over[0]), int(counts.drawn[0])
        bar = Known(counts.bar, counts.bar, counts.bar, "pilot", "the first cycle's") if own else None
        known = replace(self, bar=bar, counts=counts)
        rate = wilson(first, drawn)
        if rate is not None and 0 < first < drawn:
            note = f"{first} of {drawn} in the first cycle"
            if own:
                note += ", whose own selection set the bar"
            known = replace(known, elite_rate=Known.of(rate, "pilot", note))
        smoothing, fit = _smoothing(counts)
        other = logistic_fit(counts.cycles, counts.drawn, counts.over) if fit is not None else None
        return replace(known, smoothing=smoothing or known.smoothing, fit=fit, logistic=other)

    def overrule(self, said: Mapping[str, Interval]) -> Guesses:
        """The same with the entries that a person has named; their note is empty. Keys are the fields' names.

        A rate or a smoothing that was said takes the pilot's fits away: they would forecast from other numbers.
        """
        names = {entry.name for entry in fields(self)} - {"counts", "fit", "logistic"}
        unknown = set(said) - names
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: not among {', '.join(sorted(names))}")
        changes: dict[str, Any] = {name: Known.of(value, "said") for name, value in said.items()}
        changed = replace(self, **changes)
        return replace(changed, fit=None, logistic=None) if {"elite_rate", "smoothing"} & set(said) else changed


def _smoothing(counts: EliteCounts) -> tuple[Known | None, GeomFit | None]:
    """The effective smoothing a: by how much the share under the bar shrinks in a cycle. Never below 0."""
    cycles = len(counts.cycles)
    if cycles < 2:
        return None, None
    if cycles < FEWEST_CYCLES:
        step = alpha_from_elite_counts(counts.over[0], counts.drawn[0], counts.over[1], counts.drawn[1])
        bounds = (step.ci_low, step.alpha, step.ci_high)
        if not all(map(math.isfinite, bounds)):
            return None, None
        low, estimate, high = (max(value, 0.0) for value in bounds)
        return Known(low, estimate, high, "pilot", "one step, from 2 cycles"), None
    fit = geom_fit(counts.cycles, counts.drawn, counts.over)
    if not (fit.r > 0 and math.isfinite(fit.r * fit.r_ci_low * fit.r_ci_high)):
        return None, None  # a single cycle has all the others, or all the elites
    widening = widen(fit)
    rates = (fit.r * (bound / fit.r) ** widening for bound in (fit.r_ci_high, fit.r, fit.r_ci_low))
    low, estimate, high = (max(1.0 - rate, 0.0) for rate in rates)
    note = f"geometric fit over {cycles} cycles, goodness of fit p = {fit.p_deviance:.2g}"
    return Known(low, estimate, high, "pilot", note), fit


def widen(fit: GeomFit) -> float:
    """Factor on standard errors, by what counts scatter more than binomial ones do; 1 where they do not."""
    return math.sqrt(fit.dispersion) if fit.dispersion > OVERDISPERSED else 1.0


def _seconds(table: RunTable) -> Known | None:
    numbers = {cycle.cycle for cycle in table.cycles}
    trainings = sum(row.purpose == "search" and row.cycle in numbers for row in table.evaluations)
    total = sum(cycle.total_seconds for cycle in table.cycles)
    if not trainings or not total:
        return None
    value = total / trainings
    return Known(value, value, value, "pilot", f"{total:.0f} s for {trainings} trainings, on the pilot's machines")


def _accuracy_sd(table: RunTable) -> Known | None:
    """Pooled over the cycles, so that what was learned between them does not count as spread."""
    squares, freedom = 0.0, 0
    for cycle in table.cycles:
        values = [row.accuracy for row in table.valid if row.cycle == cycle.cycle and row.stage is Stage.TRAIN]
        if len(values) > 1:
            squares += float(np.var(np.array(values, dtype=np.float64), ddof=1)) * (len(values) - 1)
            freedom += len(values) - 1
    if not freedom or not squares:
        return None
    value = math.sqrt(squares / freedom)
    return Known(value, value, value, "pilot", f"pooled over {len(table.cycles)} cycles")
