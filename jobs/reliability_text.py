"""What `nas-ray reliability` prints: each number with its interval, what it is of, and one verdict.

In: a `Reliability` and an `Advice` for each data set. Out: lines on a console.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas_ray.design_advice import WELL, WIDTH, Advice, Alternative, count_needed
from nas_ray.diagnostics.diagnostic import chance
from nas_ray.interval import Interval
from nas_ray.rank_correlation import FEWEST
from nas_ray.reliability import Reliability

SIGNIFICANT = 0.05


def print_reliability(
    found: Sequence[tuple[Reliability, Advice | None]], left: int, lost: Sequence[str], console: Console
) -> None:
    """A table for each data set, the verdict, and what is still missing."""
    for measured, advice in found:
        console.print()
        console.print(Text(_heading(measured), style="bold"), soft_wrap=True)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for line in (*_lines(measured), *(_design(advice, measured.curse) if advice is not None else ())):
            table.add_row(*map(Text, line))
        console.print(table)
        verdict = tell_verdict(measured, advice)
        console.print(Text(verdict, style="green" if advice is not None else "yellow"), soft_wrap=True)
    lines = [f"The engine lost {one}. Run the command again." for one in lost]
    if left and not lost:
        trainings = "1 training is" if left == 1 else f"{left} trainings or fewer are"
        lines.append(f"{trainings} still to be made; the same command goes on. The order is random, so what is")
        lines[-1] += " measured counts."
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def tell_verdict(measured: Reliability, advice: Advice | None) -> str:
    """One line: seeds, epochs or neither, with the numbers; or what is missing for a verdict."""
    if measured.icc is None:
        return (
            f"Not testable with n = {measured.programs}: needs at least {FEWEST} programs with two fresh scores that "
            f"are not all the same, and about {count_needed(measured)} for an interval {WIDTH} wide."
        )
    if advice is None:
        return "No verdict: a cycle of this run keeps all that it trains, so there is nothing that a score decides."
    others = [one for one in (advice.more_seeds, advice.more_epochs) if one is not None]
    gains = [_gain(one, advice.keep) for one in others]
    heads = {
        "seeds": "Worth it: seeds.",
        "epochs": "Worth it: epochs.",
        "neither": "Neither seeds nor epochs are worth it."
        if advice.more_epochs is not None
        else "More seeds are not worth it; epochs are not testable yet.",
    }
    doubt = "" if advice.certain else " The intervals do not rule out the opposite."
    now = f"With the budget for {advice.trained} candidates a cycle, of which {advice.keep} are kept"
    return f"{heads[advice.verdict]} {now}: {'; '.join(gains)}.{doubt}"


def _heading(measured: Reliability) -> str:
    failed = sum(measured.failures.values())
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in measured.failures.items())
    failures = f"{failed} failed ({kinds})" if failed else "none failed"
    return (
        f"{measured.dataset}: {measured.programs} programs drawn at random, {measured.seeds} fresh seeds; "
        f"{measured.trainings} trainings, {failures}"
    )


def _lines(measured: Reliability) -> Iterator[tuple[str, str, str]]:
    if measured.icc is None:
        return
    single = "1 epoch" if measured.epochs == 1 else f"{measured.epochs} epochs"
    note = f"share of the variance of one score ({single}) that is not luck; from the fresh seeds alone"
    if measured.icc.high - measured.icc.low > WIDTH:
        note += f"; {count_needed(measured)} programs would make the interval {WIDTH} wide"
    yield "reliability over the run", _interval(measured.icc), note
    if measured.mixed is not None:
        yield "", _interval(measured.mixed), f"with the variance of all {measured.searched} scores of the search"
    if measured.in_cycle is not None:
        yield "reliability in a cycle", _interval(measured.in_cycle), "with their variance within a cycle"
    if measured.survivors:
        why = "asha trained only the better programs to the end, which cuts the variance of their scores off"
        yield "reliability in a cycle", "not testable", why
    if measured.sigma_a is not None and measured.sigma_n is not None:
        points = f"{100 * measured.sigma_a:.2f} and {100 * measured.sigma_n:.2f} points"
        yield "quality, noise", points, "standard deviations over the run"
    if (agreement := measured.agreement) is not None:
        predicted = f"share of pairs in the same order; {_interval(agreement.predicted)} predicted, were both Gaussian"
        yield "two seeds agree", _interval(agreement.observed), predicted
        if agreement.refutes:
            tail = "which the agreement stands for: a few bad programs make up the variance, and the others are closer"
            yield "reliability of the order", _interval(agreement.reliability), tail
    if (noise := measured.noise_ratio) is not None:
        said = "the same" if noise.p >= SIGNIFICANT else "more" if noise.ratio > 1 else "less"
        counted = f"{noise.n_elites} elites, {noise.n_others} others, {chance(noise.p)}"
        ratio = _interval(Interval(noise.low, noise.ratio, noise.high))
        meaning = {
            "the same": "no difference shown",
            "more": "selection rewards noise: use more seeds",
            "less": "elites are less noisy than others, so for them the reliability is another",
        }
        yield "noise, elites / others", ratio, f"ratio of variances; {counted}: {meaning[said]}"
    if (fidelity := measured.fidelity) is not None:
        taken = "" if fidelity.long_reliability is not None else "; the long score taken as free of noise"
        ranks = "" if fidelity.spearman is None else f", Spearman {_interval(fidelity.spearman)}"
        note = f"correlation with {fidelity.epochs} epochs, noise taken out{taken}; n = {fidelity.n}"
        yield "fidelity", _interval(fidelity.rho), f"{note}; observed {fidelity.observed:.2f}{ranks}"
    else:
        yield "fidelity", "not testable", f"needs at least {FEWEST} programs with all their long trainings (--long)"


def _design(advice: Advice, curse: Interval | None) -> Iterator[tuple[str, str, str]]:
    kept = f"of the {advice.keep} that a cycle keeps of {advice.trained}, by scores of {_seeds(advice.seeds)}"
    yield "belong to the best", _interval(advice.precision), kept
    yield "pairs in right order", _interval(advice.pair_correct), "of two candidates of a cycle"
    measured = "" if curse is None else f"; measured {_points(curse)} on the elites among the programs"
    told = f"by which the mean score of those kept is too high{measured}"
    yield "winner's curse", f"{100 * advice.curse:.2f} points", told
    needed = "no number" if advice.seeds_needed == float("inf") else _seeds(int(advice.seeds_needed))
    yield f"reliability of {WELL}", needed, "needed in a cycle"


def _gain(one: Alternative, keep: int) -> str:
    epochs = "1 epoch" if one.epochs == 1 else f"{one.epochs} epochs"
    design = f"{_seeds(one.seeds)} of {epochs}"
    if one.candidates <= keep:
        return f"{design} would leave {one.candidates} candidates, nothing to choose among"
    low, estimate, high = one.ratio
    return f"{design} for {one.candidates} candidates would bring {estimate:.2f} [{low:.2f}, {high:.2f}] times the gain"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _interval(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{interval.estimate:.2f} (one value has no interval)"
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _points(interval: Interval) -> str:
    return _interval(Interval(*(100 * value for value in interval)))
