"""D4 and D5: does what the generator writes get better, and did it get worse anywhere?

In: a `RunTable`. Out: diagnostics. Quality is that of a draw: accuracy, and 0 for a program that has none, because the
mean over the valid ones alone can rise while fewer of them are valid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from nas_ray.diagnostics.diagnostic import Diagnostic, Sample, chance, lighter, untestable
from nas_ray.interval import Interval
from nas_ray.run_table import RunTable
from nas_ray.theory.quality_gain import monotonicity_test, n_per_cycle, welch_lcb_diff

WINDOW = 3  # cycles on either side of a comparison
FEWEST = 5  # draws of a cycle
LEVEL = 0.05
SMALLEST_GAIN = 0.02  # accuracy: what is worth showing

IMPROVES = "Do programs of the last cycles improve on those before?"
NEVER_FALLS = "Did quality fall anywhere?"


def qualities(table: RunTable) -> dict[int, list[float]]:
    """Quality of every draw, 0 .. 1, by closed cycle."""
    by_cycle: dict[int, list[float]] = {cycle.cycle: [] for cycle in table.cycles}
    for row in table.candidates:
        by_cycle[row.cycle].append(table.quality(row) or 0.0)
    return by_cycle


def diagnose_quality(table: RunTable) -> Iterator[Diagnostic]:
    """D4, D5."""
    cycles = {cycle: values for cycle, values in qualities(table).items() if len(values) >= FEWEST}
    if len(cycles) < 2:
        yield untestable("D4", IMPROVES, f"{len(cycles)} cycles", f"2 cycles with {FEWEST} programs or more")
    else:
        yield _improving(table, list(cycles.values()))
    if len(cycles) < 3:
        yield untestable("D5", NEVER_FALLS, f"{len(cycles)} cycles", f"3 cycles with {FEWEST} programs or more")
    else:
        yield _falling(table, cycles)


def _improving(table: RunTable, cycles: Sequence[Sequence[float]]) -> Diagnostic:
    """D4: lower confidence bound of the gain, of the last cycles and of the whole run."""
    width = min(WINDOW, len(cycles) // 2)
    last, before, first = (
        Sample.of([value for values in part for value in values])
        for part in (cycles[-width:], cycles[-2 * width : -width], cycles[:width])
    )
    step, whole = (welch_lcb_diff(one.mean, one.sd, one.n, last.mean, last.sd, last.n) for one in (before, first))
    gain = Interval(step.lcb, step.diff, 2 * step.diff - step.lcb)
    finding = (
        f"mean quality of a draw {before.mean:.3f} -> {last.mean:.3f} over the last two times {width} cycles, lower "
        f"bound of the gain {step.lcb:+.3f}; since the start {whole.diff:+.3f}, lower bound {whole.lcb:+.3f} (95 %, "
        "one-sided)"
    )
    if step.lcb > 0:
        return Diagnostic("D4", IMPROVES, "ok", finding, gain, "accuracy a draw")
    if not before.sd + last.sd:
        return Diagnostic("D4", IMPROVES, "note", finding, gain, "accuracy a draw")
    needed = n_per_cycle(max(step.diff, SMALLEST_GAIN), before.sd, last.sd).n
    finding += f"; to show a gain of {max(step.diff, SMALLEST_GAIN):.3f} takes {needed} programs on either side"
    advice = (
        f"candidates_per_cycle={math.ceil(needed / width)} (now {table.config.candidates_per_cycle}) would show it; a "
        "run that has reached what its data set and budget allow does not improve either (D8)"
    )
    return Diagnostic("D4", IMPROVES, "note", finding, gain, "accuracy a draw", advice)


def _falling(table: RunTable, cycles: Mapping[int, Sequence[float]]) -> Diagnostic:
    """D5: chi-bar-square test of a mean that never falls against any that does."""
    samples = [Sample.of(values) for values in cycles.values()]
    variance = sum(one.sd**2 * (one.n - 1) for one in samples) / sum(one.n - 1 for one in samples)
    smallest = min(one.n for one in samples)  # the test takes one standard error for all: the widest
    test = monotonicity_test([one.mean for one in samples], (variance / smallest) ** 0.5) if variance > 0 else None
    if test is None or test.p >= LEVEL:
        finding = "no cycle's mean is below an earlier one by more than chance" + (
            f" (p = {test.p:.2f})" if test else ""
        )
        return Diagnostic("D5", NEVER_FALLS, "ok", finding)
    blocks = _pooled(test.isotonic_fit.tolist(), list(cycles))
    finding = f"quality fell ({chance(test.p)}): no rising course fits the cycles {blocks}"
    advice = (
        "selection on one lucky training breeds noise (D15), too strong a fine-tune breaks what was learned (D1): "
        f"evaluation.seeds={table.config.evaluation.seeds + 1} (now {table.config.evaluation.seeds}), "
        f"{lighter(table.config.finetune)}"
    )
    return Diagnostic("D5", NEVER_FALLS, "problem", finding, advice=advice, cause="falling")


def _pooled(fit: Sequence[float], cycles: Sequence[int]) -> str:
    """The runs of cycles that the best rising course makes one of: `3 to 5, 8 to 9`."""
    groups = [
        [cycle for _, cycle in group] for _, group in groupby(zip(fit, cycles, strict=True), key=lambda pair: pair[0])
    ]
    return ", ".join(f"{group[0]} to {group[-1]}" for group in groups if len(group) > 1)
