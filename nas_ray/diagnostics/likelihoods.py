"""D1 to D3: what one fine-tune did to the likelihood of elites that it was trained on, and of those held out.

In: a `RunTable`. Out: diagnostics. The likelihoods are nats a program, under the prompt that the program answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nas_ray.diagnostics.diagnostic import Diagnostic, Sample, lighter, untestable
from nas_ray.interval import Interval
from nas_ray.run_table import RunTable
from nas_ray.schema import CycleRow
from nas_ray.theory.cross_entropy import LikelihoodGain, alpha_from_gain, forecast_elite_rate, likelihood_gain
from nas_ray.theory.quality_gain import welch_lcb_diff

FEWEST = 3  # programs, of which a mean has a t interval that says something
ENOUGH = 8  # held-out programs: earlier cycles are added until there are so many
LOOK_BACK = 5  # cycles, at most
SPREAD = 0.5  # nats a program: a mixture changes all elites alike

MEMORISES = "Does fine-tuning memorise its elites?"
RAISES = "Does fine-tuning raise elites it has not seen?"
MIXES = "Does it move all elites alike, as the theory's mixture does?"


class Lessons(NamedTuple):
    """Gains of elites from the fine-tune of their own cycle, nats a program, over the last cycles.

    Elites of earlier cycles, which are replayed and held out again, are left out: the generator has seen the former,
    and neither is a draw from the law that the bound is about.
    """

    train: tuple[float, ...]
    held_out: tuple[float, ...]
    acceptance: float  # Z: elites a program written

    @property
    def bound(self) -> float:
        """What no cross-entropy step can exceed on average: -ln Z, nats a program."""
        return -math.log(self.acceptance)


def last_lessons(table: RunTable) -> Lessons | None:
    """The latest fine-tune, and earlier ones until ENOUGH elites were held out; None where nothing was taught."""
    taught = [cycle for cycle in table.cycles if cycle.nll_after_train and cycle.elite and cycle.generated]
    chosen: list[CycleRow] = []
    train: list[float] = []
    held_out: list[float] = []
    for cycle in reversed(taught[-LOOK_BACK:]):
        chosen.append(cycle)
        train += own_gains(cycle, held_out=False)
        held_out += own_gains(cycle, held_out=True)
        if len(held_out) >= ENOUGH:
            break
    if not chosen:
        return None
    acceptance = sum(one.elite for one in chosen) / sum(one.generated for one in chosen)
    return Lessons(tuple(train), tuple(held_out), acceptance)


def own_gains(cycle: CycleRow, held_out: bool) -> list[float]:
    """What a cycle's own elites gained by its fine-tune, of those trained on or of those held out."""
    ids, before, after = (
        (cycle.held_out_ids, cycle.nll_before_held_out, cycle.nll_after_held_out)
        if held_out
        else (cycle.training_ids, cycle.nll_before_train, cycle.nll_after_train)
    )
    own = set(cycle.elite_ids)
    return [old - new for one, old, new in zip(ids, before, after, strict=True) if one in own]


def diagnose_likelihoods(table: RunTable) -> Iterator[Diagnostic]:
    """D1, D2, D3."""
    lessons = last_lessons(table)
    if lessons is None or len(lessons.train) < FEWEST:
        have = "no fine-tuning" if lessons is None else f"n = {len(lessons.train)} elites trained on"
        for number, question in (("D1", MEMORISES), ("D2", RAISES), ("D3", MIXES)):
            yield untestable(number, question, have, f"a cycle that is closed with {FEWEST} elites or more")
        return
    yield _memorising(table, lessons)
    held_out = len(lessons.held_out)
    if held_out < FEWEST:
        needs = f"{FEWEST} or more: finetune.held_out (now {table.config.finetune.held_out:g}) or more elites a cycle"
        for number, question in (("D2", RAISES), ("D3", MIXES)):
            yield untestable(number, question, f"n = {held_out} held-out elites", needs)
        return
    yield _raising(table, lessons)
    yield _mixing(lessons)


def _memorising(table: RunTable, lessons: Lessons) -> Diagnostic:
    """D1: more gain on training elites than on held-out ones, or than any cross-entropy step could have."""
    train = _gain(lessons.train)
    advice = (
        f"{lighter(table.config.finetune)}, or more elites a cycle: "
        f"candidates_per_cycle={2 * table.config.candidates_per_cycle} (now {table.config.candidates_per_cycle})"
    )
    said = (
        f"training elites gained {train.gain:.2f} nats a program; no cross-entropy step can exceed "
        f"-ln({lessons.acceptance:.2f}) = {lessons.bound:.2f}"
    )
    beyond = train.low > lessons.bound
    if len(lessons.held_out) < FEWEST:
        gained = Interval(train.low, train.gain, train.high)
        if beyond:
            return Diagnostic("D1", MEMORISES, "problem", said, gained, "nats a program", advice, "memorising")
        return untestable(
            "D1",
            MEMORISES,
            f"n = {len(lessons.held_out)} held-out elites ({said})",
            f"{FEWEST} held-out elites or more (finetune.held_out)",
        )
    gap = _gap(lessons)
    held = _gain(lessons.held_out)
    finding = f"{said}; the {held.n} held out gained {held.gain:.2f}"
    if beyond:
        return Diagnostic("D1", MEMORISES, "problem", finding, gap, "nats a program of gap", advice, "memorising")
    if gap.low > 0 or train.gain > lessons.bound:
        finding += ": part of what is learned is the training set by heart"
        return Diagnostic("D1", MEMORISES, "note", finding, gap, "nats a program of gap", advice)
    return Diagnostic("D1", MEMORISES, "ok", finding, gap, "nats a program of gap")


def _gap(lessons: Lessons) -> Interval:
    """Mean gain on training elites minus that on held-out ones, Welch."""
    held, train = Sample.of(lessons.held_out), Sample.of(lessons.train)
    compared = welch_lcb_diff(held.mean, held.sd, held.n, train.mean, train.sd, train.n, conf=0.975)
    return Interval(compared.lcb, compared.diff, 2 * compared.diff - compared.lcb)


def _gain(gains: Sequence[float]) -> LikelihoodGain:
    return likelihood_gain(gains, [0.0] * len(gains))


def _raising(table: RunTable, lessons: Lessons) -> Diagnostic:
    """D2: the gain on held-out elites, and the smoothing weight that it stands for."""
    gain = _gain(lessons.held_out)
    interval = Interval(gain.low, gain.gain, gain.high)
    forecast = forecast_elite_rate(lessons.acceptance, lessons.held_out)
    expected = f"elite rate {lessons.acceptance:.2f}, expected next {forecast.identity:.2f}"
    if gain.low > 0:
        weights = [alpha_from_gain(value, lessons.acceptance) for value in interval]
        low, estimate, high = (min(weight, 1.0) for weight in weights)
        finding = (
            f"by likelihood the new elites have a weight of a = {estimate:.2f} [{low:.2f}, {high:.2f}]; {expected}"
        )
        return Diagnostic("D2", RAISES, "ok", finding, interval, "nats a program")
    settings = table.config.finetune
    if gain.high < 0:
        finding = f"held-out elites became *less* likely by their own cycle's fine-tune; {expected}"
        return Diagnostic("D2", RAISES, "note", finding, interval, "nats a program", lighter(settings))
    finding = (
        f"whether held-out elites became likelier is open (a is about 0 by likelihood; {expected}); D8 counts instead"
    )
    return Diagnostic("D2", RAISES, "note", finding, interval, "nats a program")


def _mixing(lessons: Lessons) -> Diagnostic:
    """D3: a mixture with a hard elite set changes the log-likelihood of every elite by the same amount."""
    gains = Sample.of(lessons.held_out)
    finding = f"gains of held-out elites have a standard deviation of {gains.sd:.2f} around {gains.mean:.2f} nats"
    if gains.sd > SPREAD:
        finding += ": not a mixture, so forecasts of D8 are approximate"
        return Diagnostic("D3", MIXES, "note", finding)
    return Diagnostic("D3", MIXES, "ok", finding)
