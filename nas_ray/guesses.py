"""What is known of a search before it runs, and where each number is from.

In: what a person said, what a pilot run measured, and round numbers for the rest. Out: `Guesses`, every entry a
`Known`: an interval and its source. What was said overrules what a pilot measured, and that overrules the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from nas_ray.diagnostics.diagnostic import chance
from nas_ray.interval import Interval, wilson
from nas_ray.outcome import Outcome
from nas_ray.reliability import Reliability
from nas_ray.run_table import EliteCounts, RunTable, count_elites, freeze_bar
from nas_ray.theory.cross_entropy import alpha_from_elite_counts
from nas_ray.theory.elite_curves import LogisticFit
from nas_ray.theory.elite_rate_fits import GeomFit, geom_fit, logistic_fit, rate_interval

Source = Literal["said", "pilot", "guess"]

FEWEST_CYCLES = 3  # of a pilot, for a line through its elite counts; with two there is a step and no fit
LOWEST_RELIABILITY = 0.01  # an interval of a reliability may reach below 0, where nothing can be planned
STANDSTILL = 1e-9  # a smoothing, and a slope of the fit, that is 0 but for rounding


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
    first_valid_rate: Known = Known(0.3, 0.5, 0.8, "guess")  # likewise, in the first cycle, as the elite rate is
    novel_rate: Known = Known(0.6, 0.9, 1.0, "guess")  # of the valid ones, that the novelty filter lets pass
    smoothing: Known = Known(0.02, 0.07, 0.2, "guess")  # a: weight of the elites in the next cycle's writer
    reliability: Known = Known(0.3, 0.6, 0.9, "guess")  # R: correlation of one program's accuracies from two seeds
    seconds: Known | None = None  # wall time of one training, with its share of everything else
    noise_sd: Known | None = None  # standard deviation of one training's accuracy around its program's own, 0 .. 0.5
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
        known = replace(known, seconds=_seconds(table))._with_reliability(table)
        frozen = freeze_bar(table) if bar is None else bar
        return known if frozen is None else known._with_elites(count_elites(table, frozen), own=bar is None)

    @classmethod
    def _rates(cls, table: RunTable) -> Guesses:
        valid = sum(table.quality(row) is not None for row in table.candidates)
        repeats = sum(table.quality(row) is not None for row in table.candidates if row.outcome is Outcome.DUPLICATE)
        known = cls()
        share, novel = wilson(valid, len(table.candidates)), wilson(valid - repeats, valid)
        if share is not None and valid:
            rate = Known.of(share, "pilot", f"{valid} of {len(table.candidates)} programs")
            known = replace(known, valid_rate=rate, first_valid_rate=_first_valid_rate(table) or rate)
        if novel is not None and novel.estimate > 0:
            known = replace(known, novel_rate=Known.of(novel, "pilot", f"{valid - repeats} of {valid} valid ones"))
        return known

    def _with_reliability(self, table: RunTable) -> Guesses:
        measured = Reliability.read(table)
        if measured is None or measured.selection is None:
            why = "too few re-trained programs: `nas-ray reliability RUN`"
            return replace(self, reliability=replace(self.reliability, note=why))
        low, estimate, high = (min(max(value, LOWEST_RELIABILITY), 1.0) for value in measured.selection)
        known = replace(self, reliability=Known(low, estimate, high, "pilot", "re-trained from fresh seeds"))
        if not measured.sigma_n:
            return known
        noise, note = measured.sigma_n, f"{measured.programs} programs re-trained from fresh seeds"
        return replace(known, noise_sd=Known(noise, noise, noise, "pilot", note))

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

        A rate or a smoothing that was said takes the pilot's fits away: they would forecast from other numbers. A valid
        rate that was said is that of the first cycle too. A smoothing that is 0 but for rounding becomes 0.
        """
        names = {entry.name for entry in fields(self)} - {"counts", "fit", "logistic"}
        unknown = set(said) - names
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: not among {', '.join(sorted(names))}")
        changes: dict[str, Any] = {name: Known.of(value, "said") for name, value in said.items()}
        if "smoothing" in said:
            changes["smoothing"] = Known.of(Interval(*map(_no_rounding, said["smoothing"])), "said")
        if "valid_rate" in said:
            changes.setdefault("first_valid_rate", changes["valid_rate"])
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
        low, estimate, high = map(_no_rounding, bounds)
        return Known(low, estimate, high, "pilot", "one step, from 2 cycles"), None
    fit = geom_fit(counts.cycles, counts.drawn, counts.over)
    if not (fit.r > 0 and math.isfinite(fit.r * fit.r_ci_low * fit.r_ci_high)):
        return None, None  # a single cycle has all the others, or all the elites
    low, estimate, high = (_no_rounding(1.0 - rate) for rate in reversed(rate_interval(fit)))
    note = f"geometric fit over {cycles} cycles, goodness of fit {chance(fit.p_deviance)}"
    return Known(low, estimate, high, "pilot", note), fit


def _no_rounding(smoothing: float) -> float:
    """A smoothing of at least 0, and 0 where it is so but for rounding: no number of cycles follows from it then."""
    return smoothing if smoothing > STANDSTILL else 0.0


def _first_valid_rate(table: RunTable) -> Known | None:
    """None where the first closed cycle has no valid program."""
    rows = [row for row in table.candidates if row.cycle == table.cycles[0].cycle]
    valid = sum(table.quality(row) is not None for row in rows)
    share = wilson(valid, len(rows))
    return (
        Known.of(share, "pilot", f"{valid} of {len(rows)} in the first cycle") if share is not None and valid else None
    )


def _seconds(table: RunTable) -> Known | None:
    numbers = {cycle.cycle for cycle in table.cycles}
    trainings = sum(row.purpose == "search" and row.cycle in numbers for row in table.evaluations)
    total = sum(cycle.total_seconds for cycle in table.cycles)
    if not trainings or not total:
        return None
    value = total / trainings
    return Known(value, value, value, "pilot", f"{total:.0f} s for {trainings} trainings, on the pilot's machines")
