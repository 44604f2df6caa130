"""D12 to D14: is there enough to learn from, does the generator still write anything new, does the filter see it?

In: a `RunTable`. Out: diagnostics over the last cycles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from nas_ray.bands import choose_bands
from nas_ray.diagnostics.diagnostic import Diagnostic, lighter, untestable
from nas_ray.interval import Interval, wilson
from nas_ray.outcome import Outcome
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow
from nas_ray.theory.novelty_filter import diversity_floor, good_turing, hill_numbers, loop_yield, lsh_curve

WINDOW = 3  # cycles
FEWEST_ELITES = 5  # a cycle: with fewer the training set has next to no diversity
EMPTY = 0.05  # chance of a cycle without any elite
UNSEEN = 0.1  # chance that the next program is of a new kind
MISSED = 0.05  # share of duplicates at tau that the bands overlook
FEWEST_DRAWS = 20
COPY = 0.8  # similarity from which on two programs are near copies
WRITTEN = (Outcome.VALID, Outcome.DUPLICATE)

FED = "Is there enough to learn from?"
NEW = "Does the generator still write anything new?"
SEEN = "Does the filter find the duplicates?"


def diagnose_novelty(table: RunTable) -> Iterator[Diagnostic]:
    """D12, D13, D14."""
    if table.cycles:
        yield _fed(table)
        yield _new(table)
    else:
        yield untestable("D12", FED, "no closed cycle", "one")
        yield untestable("D13", NEW, "no closed cycle", "one")
    yield _seen(table)


def _last_rows(table: RunTable) -> list[CandidateRow]:
    last = {cycle.cycle for cycle in table.cycles[-WINDOW:]}
    return [row for row in table.candidates if row.cycle in last]


def novel_rate(table: RunTable) -> Interval | None:
    """Share of the last cycles' programs, duplicates and valid ones, that the filter let pass."""
    rows = [row for row in _last_rows(table) if row.outcome in WRITTEN]
    return wilson(sum(row.outcome is Outcome.VALID for row in rows), len(rows))


def count_kinds(table: RunTable, rows: Sequence[CandidateRow]) -> Counter[str]:
    """How often each kind of program is among `rows`: a duplicate is of the kind of what it repeats."""
    return Counter(table.original(row.duplicate_of or row.id) for row in rows if row.outcome in WRITTEN)


def _fed(table: RunTable) -> Diagnostic:
    """D12: elites a cycle, and the chance of a cycle without one."""
    last, rows = table.cycles[-WINDOW:], _last_rows(table)
    drawn = max(1, len(rows))
    written = sum(table.quality(row) is not None for row in rows)
    novel = sum(row.outcome is Outcome.VALID and row.novel for row in rows)
    elites = sum(cycle.elite for cycle in last)
    valid, new, good = written / drawn, novel / max(1, written), elites / max(1, novel)
    chance = loop_yield(round(drawn / len(last)), valid, min(good, 1.0), new)
    typical = median(cycle.elite for cycle in last)
    finding = (
        f"{typical:g} elites a cycle of {drawn / len(last):.0f} programs: {100 * valid:.0f} % could be trained or "
        f"repeat one that could, {100 * new:.0f} % of these are new, {100 * good:.0f} % of those are elites; a cycle "
        f"without any has a chance of {chance.prob_zero:.2g}"
    )
    tau = table.config.novelty.tau
    if typical >= FEWEST_ELITES and chance.prob_zero <= EMPTY:
        floor = diversity_floor(round(typical), tau)
        return Diagnostic(
            "D12", FED, "ok", f"{finding}; their diversity is at least ln {typical:g} = {floor.log_M:.1f} nats"
        )
    count, quantile = table.config.candidates_per_cycle, table.config.selection.quantile
    more = math.ceil(count * FEWEST_ELITES / max(elites / len(last), 0.5))
    advice = f"candidates_per_cycle={more} (now {count})"
    if quantile is not None and quantile < 1:
        advice += f" or selection.quantile={min(1.0, 2 * quantile):g} (now {quantile:g})"
    if valid < 0.25:
        advice = (
            f"a generator that writes valid programs (`nas-ray status` has the outcomes, D10 the lengths); {advice}"
        )
    elif new < 0.5:
        advice = f"{_unblock(table)}; {advice}"
    return Diagnostic("D12", FED, "problem", finding, advice=advice, cause="starving")


def _new(table: RunTable) -> Diagnostic:
    """D13: Good-Turing chance of a new kind, and the share that the filter lets pass."""
    kinds = count_kinds(table, _last_rows(table))
    rate = novel_rate(table)
    if kinds.total() < FEWEST_DRAWS or rate is None:
        return untestable("D13", NEW, f"{kinds.total()} programs in the last cycles", f"{FEWEST_DRAWS}")
    found = good_turing(list(kinds.values()))
    unseen = Interval(
        max(0.0, found.unseen_mass - 1.96 * found.se), found.unseen_mass, min(1.0, found.unseen_mass + 1.96 * found.se)
    )
    effective = hill_numbers(list(kinds.values())).D1
    finding = (
        f"{len(kinds)} kinds (as many as {effective:.0f} equally frequent ones) among the last {kinds.total()} "
        f"programs, chance {found.unseen_mass:.2f} that the next is of none of them; {100 * rate.estimate:.0f} % "
        f"[{100 * rate.low:.0f}, {100 * rate.high:.0f}] pass the filter"
    )
    advice = _unblock(table)
    if found.unseen_mass < UNSEEN or rate.high < 0.5:
        return Diagnostic("D13", NEW, "problem", finding, unseen, "chance of a new kind", advice, "starving")
    if rate.high < 0.75:
        return Diagnostic("D13", NEW, "note", finding, unseen, "chance of a new kind", advice)
    return Diagnostic("D13", NEW, "ok", finding, unseen, "chance of a new kind")


def _unblock(table: RunTable) -> str:
    """What lets more new programs pass: another filter if it refuses what is no copy, else another generator."""
    refused = [row for row in _last_rows(table) if row.outcome is Outcome.DUPLICATE]
    unlike = sum(row.duplicate_view == "code" and row.similarity < COPY for row in refused)
    settings = table.config
    if 2 * unlike > len(refused):
        return (
            f"novelty.tau={COPY:g} or more (now {settings.novelty.tau:g}): {unlike} of the last {len(refused)} "
            f"programs that it refused are less than {COPY:g} alike to what they are said to repeat"
        )
    return (
        f"{lighter(settings.finetune)}: the generator repeats itself (generation.temperature above "
        f"{settings.generation.temperature:g} helps too, but drifts by itself)"
    )


def _seen(table: RunTable) -> Diagnostic:
    """D14: what the bands overlook at tau. What they find is compared exactly: MinHash's own error does not count."""
    novelty = table.config.novelty
    bands, rows = choose_bands(novelty.permutations, novelty.tau, novelty.miss_rate)
    missed = 1 - lsh_curve(novelty.tau, bands, rows).candidate_prob
    finding = (
        f"{bands} bands of {rows} rows overlook {100 * missed:.2g} % of the pairs at a similarity of {novelty.tau:g}"
    )
    if missed <= MISSED:
        return Diagnostic("D14", SEEN, "ok", finding)
    advice = f"novelty.miss_rate={MISSED / 5:g} (now {novelty.miss_rate:g})"
    return Diagnostic("D14", SEEN, "note", finding, advice=advice)
