"""D10 and D11: do errors come token by token, and are edits worth it?

In: a `RunTable`. Out: diagnostics. Completions that were cut off at `generation.max_tokens` are left out: they are long
because they failed. Valid is what was trained to a number, or repeats a program that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nas_ray.diagnostics.diagnostic import Diagnostic, chance, untestable
from nas_ray.interval import Interval
from nas_ray.outcome import Outcome
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow
from nas_ray.theory.token_errors import delta_vs_full, hazard_slope_fit, loglinear_fit, strict_fit, validity_ratio_ci

BINS = 5  # of completion length, equally full
FEWEST = 100  # programs, for the slope
ENOUGH = 300  # programs, likewise: earlier cycles are added until there are so many
FEWEST_OF_A_KIND = 30  # edits and whole programs, to compare them
LEVEL = 0.05
UNAPPLIED = (Outcome.PATCH_FAILED, Outcome.NO_CHANGE, Outcome.NO_CODE)  # of edits

INDEPENDENT = "Do errors come token by token, at one rate?"
WORTH_IT = "Are edits worth it?"

Lengths = tuple[list[float], list[int], list[int]]  # mean tokens, programs, valid ones; an entry a bin


def diagnose_edits(table: RunTable) -> Iterator[Diagnostic]:
    """D10, D11."""
    whole = [row for row in table.candidates if row.mode == "full" and row.finish_reason != "length"]
    edits = [row for row in table.candidates if row.mode == "delta" and row.finish_reason != "length"]
    yield _slope(table, _latest(whole, ENOUGH))
    # Only where the same generator wrote both: a later one writes more valid programs in either way.
    both = {row.cycle for row in whole} & {row.cycle for row in edits}
    whole, edits = ([row for row in rows if row.cycle in both] for rows in (whole, edits))
    if min(len(whole), len(edits)) < FEWEST_OF_A_KIND:
        have = f"{len(whole)} whole programs and {len(edits)} edits in cycles with both"
        needs = f"{FEWEST_OF_A_KIND} of each (generation.full and generation.delta both over 0)"
        yield untestable("D11", WORTH_IT, have, needs)
    else:
        yield _worth(table, whole, edits)


def _latest(rows: Sequence[CandidateRow], enough: int) -> list[CandidateRow]:
    """Rows of the last cycles, of as few as hold `enough`: an earlier generator had another error rate."""
    chosen: list[CandidateRow] = []
    for cycle in sorted({row.cycle for row in rows}, reverse=True):
        chosen += [row for row in rows if row.cycle == cycle]
        if len(chosen) >= enough:
            break
    return chosen


def by_length(table: RunTable, rows: Sequence[CandidateRow]) -> Lengths:
    """Completions in BINS by length, those of one length together."""
    tokens = np.array([max(1, row.completion_tokens) for row in rows])
    valid = np.array([table.quality(row) is not None for row in rows])
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, tokens, side="left")
    bins = [place == number for number in np.unique(place)]
    return (
        [float(tokens[one].mean()) for one in bins],
        [int(one.sum()) for one in bins],
        [int(valid[one].sum()) for one in bins],
    )


def _slope(table: RunTable, whole: Sequence[CandidateRow]) -> Diagnostic:
    """D10: slope of the log hazard on log length; 1 under errors that come independently at one rate."""
    lengths, drawn, valid = by_length(table, whole) if whole else ([], [], [])
    if len(whole) < FEWEST or len(lengths) < 3 or not 0 < sum(valid) < sum(drawn):
        have = f"{len(whole)} whole programs of {len(lengths)} lengths, {sum(valid)} valid"
        return untestable("D10", INDEPENDENT, have, f"{FEWEST} of three lengths, valid and invalid ones")
    fit = hazard_slope_fit(lengths, drawn, valid)
    slope = Interval(fit.beta - 1.96 * fit.se_beta, fit.beta, fit.beta + 1.96 * fit.se_beta)
    finding = (
        f"the hazard of a program grows with its length to the power of {fit.beta:.2f} ({chance(fit.p_beta1)} of 1)"
    )
    if fit.p_beta1 >= LEVEL:
        return Diagnostic("D10", INDEPENDENT, "ok", finding, slope, "power of length")
    finding += (
        ": errors are repaired, or programs differ in difficulty, so (1 - e)^L does not carry over to other lengths"
        if fit.beta < 1
        else ": a token's risk grows with what stands before it"
    )
    factor = loglinear_fit(lengths, drawn, valid)
    finding += f"; what fits is {factor.C:.2f} x {factor.mu_plus:.4f}^L"
    return Diagnostic("D10", INDEPENDENT, "note", finding, slope, "power of length")


def _worth(table: RunTable, whole: Sequence[CandidateRow], edits: Sequence[CandidateRow]) -> Diagnostic:
    """D11: measured ratio of valid rates against the one that lengths, error rates and failed patches predict."""
    applied = [row for row in edits if row.outcome not in UNAPPLIED]
    phi = 1 - len(applied) / len(edits)
    valid_edits, valid_whole = (sum(table.quality(row) is not None for row in rows) for rows in (applied, whole))
    measured = validity_ratio_ci(valid_edits, len(edits), valid_whole, len(whole))
    interval = Interval(measured.low, measured.ratio, measured.high)
    length_whole, length_edit = (float(np.mean([row.completion_tokens for row in rows])) for rows in (whole, edits))
    finding = (
        f"edits are valid {measured.ratio:.2f} times as often as whole programs ({length_edit:.0f} against "
        f"{length_whole:.0f} tokens); {100 * phi:.0f} % of them do not apply or change nothing"
    )
    error_whole = strict_fit(*by_length(table, whole)).e
    if applied and phi < 1:
        error_edit = strict_fit(*by_length(table, applied)).e
        predicted = delta_vs_full(length_whole, length_edit, error_whole, error_edit, phi)
        finding += (
            f"; error rates of {error_whole:.4f} and {error_edit:.4f} a token predict {predicted.ratio:.2f}, and a "
            f"break-even at {100 * predicted.break_even_phi:.0f} % failing"
        )
    if measured.high >= 1:
        return Diagnostic("D11", WORTH_IT, "ok", finding, interval, "ratio of valid rates")
    advice = (
        f"generation.delta lower, or a model that quotes better; delta.format (now {table.config.delta.format}) and a "
        f"lower generation.temperature (now {table.config.generation.temperature:g})"
    )
    return Diagnostic("D11", WORTH_IT, "problem", finding, interval, "ratio of valid rates", advice, "edits fail")
