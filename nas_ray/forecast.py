"""How the share of elites is expected to grow, how sure that is, and whether a pilot's forecast came true.

In: `Guesses`. Out: shares and numbers of cycles as intervals. From a pilot's fit they are confidence intervals (95 %);
from guesses they say what the given ranges imply, no more. A bound that is not there is infinite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from scipy.special import expit, ndtri
from scipy.stats import binom

from nas_ray.guesses import STANDSTILL, Guesses
from nas_ray.interval import LEVEL, Interval, wilson
from nas_ray.run_table import RunTable, count_elites
from nas_ray.theory.convergence import cycles_to_target_quantile, leaky_path, quantile_path
from nas_ray.theory.elite_rate_fits import GeomFit, forecast_target, widen
from nas_ray.theory.reliability import elite_precision, spearman_brown

LONGEST = 1000  # cycles; what takes longer is not forecast
ALL = 1 - 1e-12  # share kept that selects nothing: the law of the quantile is for shares under 1
Z = float(ndtri((1 + LEVEL) / 2))

Law = Callable[[float, float, float], float]  # of (elite rate, smoothing, reliability)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The growth of the elite share under one rule of selection.

    `quantile` is the share of a cycle's valid programs that is kept, `seeds` the trainings behind each accuracy.
    """

    guesses: Guesses
    quantile: float
    seeds: int = 1

    @property
    def basis(self) -> str:
        """What the intervals are intervals of."""
        if self.guesses.fit is not None:
            return "95 % interval of the pilot's fit; counts what the noisy accuracy calls an elite"
        return "range over the ranges of elite rate, smoothing and reliability; no confidence level"

    def cycles_to(self, target: float) -> Interval:
        """Fine-tunes until the share of elites among all programs written is `target` (0 .. 1).

        By the fit: T = (ln(1 - target) - b0) / b1, Fieller's interval; all three infinite where the slope is not
        distinguishable from 0 (then nothing but the absence of a forecast is known). By guesses: the path of
        `share_after`, at every corner of the ranges.
        """
        if self.guesses.fit is not None:
            return _fit_cycles(self.guesses.fit, target)
        return self._over_ranges(partial(self._law_cycles, target=target))

    def share_after(self, cycles: int) -> Interval:
        """Share of elites among all programs of the cycle that follows `cycles` fine-tunes, 0 .. 1."""
        fit = self.guesses.fit
        counts = self.guesses.counts
        if fit is not None and counts is not None:
            share = _fit_share(fit, cycles)
            # A share that fell is not drawn on to 0: the pilot's mean is the estimate, the bounds say the rest.
            mean = float(counts.over.sum() / counts.drawn.sum())
            return share if fit.b1 < 0 else Interval(share.low, max(mean, share.estimate), max(mean, share.high))
        return self._over_ranges(partial(self._law_share, cycles=cycles))

    def logistic_cycles_to(self, target: float) -> float | None:
        """`cycles_to` if the odds of an elite grow by one factor a cycle; None without a pilot's fit that grows so.

        Grows: the slope is over Z standard errors. This is the law of a step that trusts a noisy selection wholly
        (a = 1), and of much else that spreads: it starts slower than the geometric law and ends faster.
        """
        fit = self.guesses.logistic
        if fit is None or not fit.c1 > Z * fit.se_c1:
            return None
        cycles = max((math.log(target / (1 - target)) - fit.c0) / fit.c1, 0.0)
        return cycles if cycles <= LONGEST else None

    def logistic_share_after(self, cycles: int) -> float | None:
        """`share_after` by that law; None without a pilot's fit."""
        fit = self.guesses.logistic
        return float(expit(fit.c0 + fit.c1 * cycles)) if fit is not None and math.isfinite(fit.c1) else None

    def likelihood_ratio(self, elite_rate: float, reliability: float) -> float:
        """Lambda: how much likelier a true elite is to be selected than another program, the first cycle's value.

        With h the precision of the best share elite_rate / first_valid_rate of the valid programs under reliability R_m
        (Spearman-Brown), and f its false-positive rate; f is thinned by the invalid programs, which nothing selects.
        Normal quality and normal noise of equal variance are assumed. A smoothing that a pilot's counts measured has
        the noise in it already: then it is infinite.
        """
        if self.guesses.smoothing.source == "pilot":
            return math.inf
        valid = max(self.guesses.first_valid_rate.estimate, elite_rate)
        share = elite_rate / valid
        if share >= 1 or reliability >= 1:
            return math.inf  # no valid program is wrong to select, or none is selected wrongly
        precise = elite_precision(spearman_brown(reliability, self.seeds), share)
        wrong = precise.false_positive_rate * (valid - elite_rate) / (1 - elite_rate)
        return precise.precision / wrong if wrong > 0 else math.inf

    def _law_cycles(self, rate: float, smoothing: float, reliability: float, target: float) -> float:
        if self._dilutes(rate):
            cycles = cycles_to_target_quantile(rate, smoothing, self._kept, target)
            return cycles if cycles <= LONGEST else math.inf
        path = leaky_path(rate, smoothing, self.likelihood_ratio(rate, reliability), LONGEST).P
        return next((float(cycle) for cycle, share in enumerate(path) if share >= target), math.inf)

    def _law_share(self, rate: float, smoothing: float, reliability: float, cycles: int) -> float:
        if self._dilutes(rate):
            return float(quantile_path(rate, smoothing, self._kept, cycles)[-1])
        return float(leaky_path(rate, smoothing, self.likelihood_ratio(rate, reliability), cycles).P[-1])

    def _dilutes(self, rate: float) -> bool:
        """True where more programs are kept than are elites: the law is then the quantile's, without noise."""
        return rate * (1 + 1e-9) < self._kept

    @property
    def _kept(self) -> float:
        """Share of the first cycle's programs that selection keeps, under 1; over the elite rate also others."""
        return min(self.quantile * self.guesses.first_valid_rate.estimate, ALL)

    def _over_ranges(self, law: Law) -> Interval:
        known = (self.guesses.elite_rate, self.guesses.smoothing, self.guesses.reliability)
        values = [law(*corner) for corner in itertools.product(*((one.low, one.high) for one in known))]
        estimate = law(*(one.estimate for one in known))
        return Interval(min(*values, estimate), estimate, max(*values, estimate))


class Checked(NamedTuple):
    """One cycle after a pilot: what was forecast, and what was counted."""

    cycle: int
    forecast: Interval  # share of elites; its bounds hold the noise of counting so many programs too
    counted: Interval  # with Wilson's interval
    logistic: float | None  # share by the other law
    frozen: float  # share if nothing more had been learned: that of the pilot's last three cycles

    @property
    def held(self) -> bool:
        return self.forecast.low <= self.counted.estimate <= self.forecast.high


def check_forecast(forecast: Forecast, whole: RunTable) -> list[Checked]:
    """The cycles of `whole` that come after the pilot, forecast and counted over the pilot's bar."""
    counts, bar = forecast.guesses.counts, forecast.guesses.bar
    if counts is None or bar is None:
        return []
    frozen = float(counts.over[-3:].sum() / counts.drawn[-3:].sum())
    later = count_elites(whole, bar.estimate)
    checked = []
    for cycle, drawn, over in zip(later.cycles.tolist(), later.drawn.tolist(), later.over.tolist(), strict=True):
        counted = wilson(over, drawn)
        if cycle <= counts.cycles[-1] or counted is None:
            continue
        share = forecast.share_after(cycle)
        low = float(binom.ppf((1 - LEVEL) / 2, drawn, share.low)) / drawn
        high = float(binom.ppf((1 + LEVEL) / 2, drawn, share.high)) / drawn
        other = forecast.logistic_share_after(cycle)
        checked.append(Checked(cycle, Interval(low, share.estimate, high), counted, other, frozen))
    return checked


def _fit_cycles(fit: GeomFit, target: float) -> Interval:
    unknown = Interval(math.inf, math.inf, math.inf)
    if not math.isfinite(fit.se_b0 + fit.se_b1 + fit.cov_b0b1) or fit.b1 > -STANDSTILL:
        return unknown  # on the boundary, where there are no standard errors, or without a slope
    found = forecast_target(fit, target)
    if not found.bounded:
        return unknown
    return Interval(*(max(value, 0.0) for value in (found.fieller_low, found.T, found.fieller_high)))


def _fit_share(fit: GeomFit, cycle: int) -> Interval:
    """1 - exp(b0 + b1 cycle); bounds from the normal approximation on the exponent. Without standard errors 0 and 1."""
    exponent = fit.b0 + fit.b1 * cycle
    share = max(0.0, -math.expm1(min(exponent, 0.0)))
    if not math.isfinite(fit.se_b0 + fit.se_b1 + fit.cov_b0b1):
        return Interval(0.0, share, 1.0)
    variance = fit.se_b0**2 + 2 * cycle * fit.cov_b0b1 + cycle**2 * fit.se_b1**2
    half = Z * widen(fit) * math.sqrt(max(variance, 0.0))
    return Interval(max(0.0, -math.expm1(min(exponent + half, 0.0))), share, -math.expm1(min(exponent - half, 0.0)))
