"""D7 to D9: how the share of programs over one frozen bar grows, where that leads, and what is never drawn.

In: a `RunTable` and its bar. Out: diagnostics, and `fit_course`, which other commands show too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from scipy.special import ndtr, ndtri

from nas_ray.diagnostics.diagnostic import Diagnostic, chance, untestable
from nas_ray.run_table import EliteCounts, RunTable, count_elites
from nas_ray.theory.convergence import never_sampled_prob
from nas_ray.theory.elite_rate_fits import (
    GeomFit,
    akaike,
    forecast_target,
    geom_fit,
    logistic_fit,
    no_learning_lrt,
    plateau_fit,
    quantile_fit,
    rate_interval,
    widen,
)

FEWEST_CYCLES = 5  # with four, goodness of fit has two degrees of freedom and says nothing
FEWEST_OVER = 5  # programs over the bar, in all
LEVEL = 0.05
LATE = 3  # cycles on either side, for whether the search still learns
TARGET = 0.9  # share over the bar, for the forecast
FAMILY = 0.001  # share of what the generator writes, of a family that should not be missed
MISSED = 0.05  # chance of never drawing such a family that is taken
SAFE = 3  # -ln(0.05): a family with N P / a of so much is missed with 5 % chance at most

CONSTANT = "Does the share over the bar grow at a constant rate?"
BOUNDED = "Is the search learning, and when does it get there?"
REACHES = "Is a rare family of good programs ever drawn?"


class Course(NamedTuple):
    """The share over one bar, cycle by cycle, as a geometric approach to 1 and as others."""

    counts: EliteCounts
    fit: GeomFit
    models: dict[str, float]  # Akaike's criterion by name; the least is the best

    @property
    def preferred(self) -> str:
        """Name of the model with the least AIC."""
        return min(self.models, key=lambda name: self.models[name])


def fit_course(table: RunTable, counts: EliteCounts) -> Course:
    """Fit the share over the bar of `counts`, those of the table; for two cycles or more."""
    t, drawn, over = counts.cycles - counts.cycles[0], counts.drawn, counts.over
    geometric = geom_fit(t, drawn, over)
    models = {
        "geometric": akaike(geometric.loglik, 2),
        "logistic": akaike(logistic_fit(t, drawn, over).loglik, 2),
        "plateau": akaike(plateau_fit(t, drawn, over).loglik, 3),
    }
    kept = sum(cycle.elite for cycle in table.cycles) / max(1, sum(cycle.generated for cycle in table.cycles))
    if 0 < kept < 1:
        models["quantile"] = akaike(quantile_fit(t, drawn, over, kept).loglik, 2)
    return Course(counts, geometric, models)


def diagnose_convergence(table: RunTable, bar: float | None) -> Iterator[Diagnostic]:
    """D7, D8, D9; `bar` is None where no cycle has set one."""
    counts = count_elites(table, bar) if bar is not None else None
    if counts is None or len(counts.cycles) < 2 or not 0 < counts.over.sum() < counts.drawn.sum():
        have = (
            "no bar (--bar gives one)"
            if counts is None
            else f"{len(counts.cycles)} cycles and {counts.over.sum()} programs over the bar"
        )
        for number, question in (("D7", CONSTANT), ("D8", BOUNDED), ("D9", REACHES)):
            yield untestable(number, question, have, "two cycles with programs on either side of the bar")
        return
    course = fit_course(table, counts)
    yield _constant(course)
    yield _bounded(table, course)
    yield _reaching(table, course)


def _constant(course: Course) -> Diagnostic:
    """D7: goodness of the geometric fit, and what fits better."""
    fit, cycles, over = course.fit, len(course.counts.cycles), int(course.counts.over.sum())
    if cycles < FEWEST_CYCLES or over < FEWEST_OVER:
        return untestable(
            "D7",
            CONSTANT,
            f"{cycles} cycles and {over} programs over the bar",
            f"{FEWEST_CYCLES} cycles and {FEWEST_OVER}",
        )
    rate = rate_interval(fit)
    finding = (
        f"each cycle leaves r = {rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}] of what is under "
        f"{100 * course.counts.bar:.1f} %"
    )
    if fit.p_deviance >= LEVEL:
        finding += f"; the fit holds (p = {fit.p_deviance:.2f}, dispersion {fit.dispersion:.2f})"
        return Diagnostic("D7", CONSTANT, "ok", finding, rate, "a cycle")
    finding += (
        f"; but the rate is not constant ({chance(fit.p_deviance)}, dispersion {fit.dispersion:.2f}): by AIC the "
        f"{course.preferred} model is the best of {', '.join(course.models)}"
    )
    return Diagnostic("D7", CONSTANT, "note", finding, rate, "a cycle")


def _bounded(table: RunTable, course: Course) -> Diagnostic:
    """D8: is anything learned at all, and the cycles to TARGET with Fieller's interval."""
    counts, fit = course.counts, course.fit
    t = counts.cycles - counts.cycles[0]
    first, last = (counts.over[place] / max(1, counts.drawn[place]) for place in (0, -1))
    share = f"{100 * first:.0f} % over the bar in the first cycle, {100 * last:.0f} % in the last"
    rate = rate_interval(fit)
    p = float(ndtr(ndtri(no_learning_lrt(t, counts.drawn, counts.over).p_one_sided) / widen(fit)))
    if not p < LEVEL:
        finding = f"{share}: a rise is not distinguishable from none (one-sided {chance(p)}); no forecast"
        if len(t) < FEWEST_CYCLES:
            return untestable("D8", BOUNDED, f"{len(t)} cycles ({share})", f"{FEWEST_CYCLES} cycles, or a steeper rise")
        settings = table.config.finetune
        advice = (
            f"finetune.epochs={2 * settings.epochs} (now {settings.epochs}) if D1 does not say memorising, or more "
            f"elites a cycle: candidates_per_cycle={2 * table.config.candidates_per_cycle} (now "
            f"{table.config.candidates_per_cycle})"
            if settings.enabled
            else "finetune.enabled=true (now false): nothing is taught"
        )
        return Diagnostic("D8", BOUNDED, "problem", finding, rate, "left a cycle", advice, "not learning")
    finding = f"{share}; learning is shown ({chance(p)}), smoothing a = {fit.alpha:.3f} a cycle"
    width = min(LATE, len(t) // 2)
    if width and (late := _late(counts, width)) <= 0:
        finding += f"; but not in the last {width} cycles ({late:+.2f} against the {width} before)"
        return Diagnostic("D8", BOUNDED, "note", finding, rate, "left a cycle")
    if fit.p_deviance < LEVEL:
        finding += "; the geometric law is refused by D7, so this forecast is rough"
    return Diagnostic("D8", BOUNDED, "ok", f"{finding}; {_forecast(fit, len(t))}", rate, "left a cycle")


def _late(counts: EliteCounts, width: int) -> float:
    """Share over the bar in the last `width` cycles minus that in as many before."""
    last, before = (
        counts.over[part].sum() / counts.drawn[part].sum() for part in (slice(-width, None), slice(-2 * width, -width))
    )
    return float(last - before)


def _forecast(fit: GeomFit, cycles: int) -> str:
    """When TARGET of the programs are over the bar, for a person."""
    goal = f"{100 * TARGET:.0f} % over the bar"
    if math.isnan(fit.se_b0):
        return f"no interval for when {goal} (the fit lies on its boundary)"
    found = forecast_target(fit, TARGET)
    if not found.bounded:
        return f"no bounded forecast for {goal}: the slope is not far enough from 0"
    when = f"cycle {found.T:.1f} [{found.fieller_low:.1f}, {found.fieller_high:.1f}] (Fieller)"
    return f"{goal} {'was' if found.fieller_high < cycles else 'is'} expected at {when}"


def _reaching(table: RunTable, course: Course) -> Diagnostic:
    """D9: the chance that a family of mass FAMILY is never drawn in the whole run."""
    a, drawn = course.fit.alpha, float(course.counts.drawn.mean())
    if not a > 0:  # or nan, where the counts determine none
        return untestable("D9", REACHES, "no smoothing weight over 0", "a run that learns (D8)")
    missed = never_sampled_prob(FAMILY, min(a, 1.0), round(drawn), table.config.cycles).exact
    smallest = SAFE * a / drawn
    finding = (
        f"a family of {100 * FAMILY:g} % of what is written is never drawn in {table.config.cycles} cycles with "
        f"probability {missed:.2f}; families from {100 * smallest:.2g} % on are seen in the long run with 95 %"
    )
    if missed <= MISSED:
        return Diagnostic("D9", REACHES, "ok", finding)
    needed = math.ceil(drawn * math.log(MISSED) / math.log(missed)) if 0 < missed < 1 else None
    advice = f"candidates_per_cycle={needed} (now {table.config.candidates_per_cycle})" if needed else ""
    return Diagnostic("D9", REACHES, "note", finding, advice=advice)
