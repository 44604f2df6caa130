"""D6, D15 and D16: does one short training on these validation images say what a program is worth?

In: a `RunTable`, and what `nas-ray reliability` has measured, if it has. Out: diagnostics. Fresh seeds do not show the
luck of a small validation set, which is the same for all seeds; so that part is added from the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nas_ray.config import EvaluationConfig
from nas_ray.design_advice import kept_share
from nas_ray.diagnostics.diagnostic import Diagnostic, untestable
from nas_ray.diagnostics.diagnostic import chance as chance_of
from nas_ray.interval import Interval
from nas_ray.outcome import Outcome
from nas_ray.reliability import Reliability
from nas_ray.run_table import RunTable
from nas_ray.schema import CycleRow
from nas_ray.theory.reliability import elite_precision, rank_agreement

WINDOW = 3  # cycles
FEWEST = 10  # valid programs in them
LEVEL = 0.05
NOISY = 0.5  # reliability under which half of what is selected is luck
UNSTABLE = 0.5  # stability of the selection (kappa) under which it is nearer to a lottery
SHAKY = 0.75  # and under which that is worth a note
REDRAWS = 300
RESAMPLES = 200
PRECISE = 0.7
FAITHFUL = 0.6
MOST_IMAGES = 10**6

EVEN = "Are elites noisier than other programs?"
TRUSTED = "Can one training's score be trusted?"
LASTING = "Does a short training say what a long one would?"
COMMAND = "nas-ray reliability RUN"


class Grain(NamedTuple):
    """How far the selection of the last cycles hangs on which images the validation split happens to hold."""

    images: int  # of the validation split, read off the scores
    noise: float  # standard deviation of one score from the draw of the images alone, share 0 .. 1
    spread: float  # standard deviation of the scores within a cycle, likewise
    again: float  # share of the elites that would be chosen again with other images
    chance: float  # share that would be if they were drawn by lot
    stability: Interval  # Cohen's kappa of the two selections: 1 = the same elites, 0 = as if drawn by lot


def measure_grain(table: RunTable) -> Grain | None:
    """Select the last cycles' elites again from scores drawn anew; None where that cannot be told.

    A parametric bootstrap: each program's score is drawn from the binomial law of its own accuracy (with Jeffreys'
    prior, so that 50 of 50 may be missed too). Scores of one cycle share their images, so two programs that fail on
    the same ones differ less than independent draws: stability is rather better than this says. The interval is the
    percentiles over resampled programs. The number of images is the least one of which all accuracies of the run's
    first data set are whole parts. None for too few programs, for scores that are means over data sets or seeds or of
    different epochs (ASHA), and for elites that were not chosen by accuracy alone.
    """
    config = table.config
    if config.also or config.evaluation != EvaluationConfig() or len(config.selection.goals) > 1:
        return None
    single = [
        row.accuracy
        for row in table.evaluations
        if (row.purpose, row.dataset, row.split) == ("search", config.dataset.name, "validation")
        and row.outcome is Outcome.VALID
        and row.accuracy is not None
    ]
    images = math.lcm(*{Fraction(one).limit_denominator(20_000).denominator for one in single}) if single else 1
    groups = [_scores(table, cycle) for cycle in table.cycles[-WINDOW:]]
    groups = [(scores, kept) for scores, kept in groups if 0 < kept < len(scores)]
    count = sum(len(scores) for scores, _ in groups)
    if count < FEWEST or not 1 < images <= MOST_IMAGES:  # else accuracies are no shares of images
        return None
    dice = np.random.default_rng(0)
    chosen = sum(kept for _, kept in groups)
    chance = sum(kept * kept / len(scores) for scores, kept in groups) / chosen

    def again(drawn: Sequence[npt.NDArray[np.float64]], redraws: int) -> float:
        pairs = zip(drawn, groups, strict=True)
        return sum(_kept_again(scores, kept, images, dice, redraws) for scores, (_, kept) in pairs) / chosen

    share = again([scores for scores, _ in groups], REDRAWS)
    resampled = [again([dice.choice(scores, len(scores)) for scores, _ in groups], 5) for _ in range(RESAMPLES)]
    kappas = ((value - chance) / (1 - chance) for value in (*np.quantile(resampled, (0.025, 0.975)), share))
    low, high, kappa = (float(value) for value in kappas)
    noise = sum((scores * (1 - scores)).sum() for scores, _ in groups) / count / images
    spread = sum(((scores - scores.mean()) ** 2).sum() for scores, _ in groups) / (count - len(groups))
    return Grain(images, math.sqrt(noise), math.sqrt(spread), share, chance, Interval(low, kappa, high))


def _scores(table: RunTable, cycle: CycleRow) -> tuple[npt.NDArray[np.float64], int]:
    """A cycle's novel valid scores, and how many of them were kept."""
    scores = [row.accuracy for row in table.valid if row.cycle == cycle.cycle and row.accuracy is not None]
    return np.array(scores), len(cycle.elite_ids)


def _kept_again(
    scores: npt.NDArray[np.float64], kept: int, images: int, dice: np.random.Generator, redraws: int
) -> float:
    """Expected number of the `kept` best that are among them again; ties are broken by lot."""

    def best(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        order = np.lexsort((dice.random(len(values)), -values))
        return np.isin(np.arange(len(values)), order[:kept])

    shares = (scores * images + 0.5) / (images + 1)
    first = best(scores)
    return float(np.mean([(best(dice.binomial(images, shares) / images) & first).sum() for _ in range(redraws)]))


def diagnose_proxy(table: RunTable) -> Iterator[Diagnostic]:
    """D6, D15, D16."""
    measured = Reliability.read(table)
    yield _even(measured)
    yield _trusted(table, measured)
    yield _lasting(table, measured)


def _even(measured: Reliability | None) -> Diagnostic:
    """D6: selection on one score favours programs whose scores vary more."""
    if measured is None or measured.noise_ratio is None:
        have = "no fresh seeds" if measured is None else f"{measured.programs} programs from fresh seeds"
        return untestable("D6", EVEN, have, f"`{COMMAND}`, with two elites and two others at least")
    ratio = measured.noise_ratio
    interval = Interval(ratio.low, ratio.ratio, ratio.high)
    finding = (
        f"noise variance of {ratio.n_elites} elites over that of {ratio.n_others} others: {ratio.ratio:.2f} "
        f"({chance_of(ratio.p)})"
    )
    if ratio.p >= LEVEL or ratio.ratio < 1:
        return Diagnostic("D6", EVEN, "ok", finding, interval, "ratio of variances")
    advice = "evaluation.seeds=2: selection on one score rewards luck"
    return Diagnostic("D6", EVEN, "note", finding, interval, "ratio of variances", advice)


def _trusted(table: RunTable, measured: Reliability | None) -> Diagnostic:
    """D15: reliability from fresh seeds, and what the number of validation images alone leaves of it."""
    grain = measure_grain(table)
    coarse = ""
    if grain is not None:
        coarse = (
            f"{grain.images} validation images alone give a score a standard deviation of {100 * grain.noise:.1f} "
            f"points, within a cycle programs differ by {100 * grain.spread:.1f}; with other images "
            f"{100 * grain.again:.0f} % of the last cycles' elites would be chosen again ({100 * grain.chance:.0f} % "
            f"by lot; kappa {grain.stability.estimate:.2f} [{grain.stability.low:.2f}, {grain.stability.high:.2f}])"
        )
    config = table.config
    images = (
        f"dataset.validation_limit={4 * config.dataset.validation_limit} (now {config.dataset.validation_limit})"
        if config.dataset.validation_limit
        else f"dataset.validation_fraction={min(2 * config.dataset.validation_fraction, 0.5):g} (now "
        f"{config.dataset.validation_fraction:g})"
    )
    advice = (
        f"{images} for the images' part, evaluation.seeds={config.evaluation.seeds + 1} (now "
        f"{config.evaluation.seeds}) for the training's"
    )
    reliability = measured.selection if measured is not None else None
    if grain is not None and grain.stability.estimate < UNSTABLE and grain.stability.high < SHAKY:
        finding = f"{coarse}: selection is mostly luck"
        return Diagnostic("D15", TRUSTED, "problem", finding, reliability, "reliability", advice, "noisy")
    shaky = grain is not None and grain.stability.estimate < SHAKY
    if measured is None or reliability is None:
        if shaky:
            finding = f"{coarse}; `{COMMAND}` measures the rest of the noise"
            return Diagnostic("D15", TRUSTED, "note", finding, advice=advice)
        have = "no fresh seeds" if measured is None else f"{measured.programs} programs from fresh seeds"
        return untestable("D15", TRUSTED, have + (f" ({coarse})" if coarse else ""), f"`{COMMAND}`")
    share = min(max(reliability.estimate, 0.0), 1.0)
    order = rank_agreement(math.sqrt(share), math.sqrt(1 - share)).pair_correct
    finding = (
        f"reliability {reliability.estimate:.2f} [{reliability.low:.2f}, {reliability.high:.2f}] from "
        f"{measured.programs} programs x {measured.seeds} fresh seeds: {100 * order:.0f} % of all pairs are put in "
        "the right order"
    )
    kept = kept_share(table)
    if 0 < kept < 1:
        finding += (
            f", {100 * elite_precision(share, kept).precision:.0f} % of the best {100 * kept:.0f} % of a cycle belong "
            "there"
        )
    if measured.curse is not None and not math.isnan(measured.curse.low):
        low, curse, high = (100 * value for value in measured.curse)
        finding += f"; elites' own scores are {curse:.1f} points too high [{low:.1f}, {high:.1f}] (winner's curse)"
    finding += f"; {coarse}" if coarse else ""
    if reliability.high < NOISY:
        return Diagnostic("D15", TRUSTED, "problem", finding, reliability, "reliability", advice, "noisy")
    if shaky:
        return Diagnostic("D15", TRUSTED, "note", finding, reliability, "reliability", advice)
    return Diagnostic("D15", TRUSTED, "ok", finding, reliability, "reliability")


def _lasting(table: RunTable, measured: Reliability | None) -> Diagnostic:
    """D16: a precise score of the wrong thing."""
    if measured is None or measured.fidelity is None:
        return untestable("D16", LASTING, "no longer trainings", f"`{COMMAND}` with --long")
    fidelity = measured.fidelity
    rho = fidelity.rho
    finding = (
        f"quality after {table.config.protocol.epochs} epochs goes with that after {fidelity.epochs} by "
        f"{rho.estimate:.2f} [{rho.low:.2f}, {rho.high:.2f}], luck taken out (n = {fidelity.n})"
    )
    precise = measured.icc is not None and measured.icc.estimate > PRECISE
    if rho.high < FAITHFUL or (precise and rho.estimate < FAITHFUL):
        epochs = table.config.protocol.epochs
        advice = f"protocol.epochs={2 * epochs} (now {epochs}): more seeds cannot make up for that"
        return Diagnostic("D16", LASTING, "note", finding, rho, "correlation", advice)
    return Diagnostic("D16", LASTING, "ok", finding, rho, "correlation")
