"""What the theory predicts of finished runs, beside what they did, as Markdown (docs/theory.md has the statements).

    for seed in 1 2 3 4 5; do
        nas-ray search -c examples/paper_digits.yaml --run full$seed -s seed=$seed
        nas-ray search -c examples/paper_digits.yaml --run delta$seed -s seed=$seed \\
            -s generation.full=0 -s generation.delta=1
    done
    python -m benchmarks.theory full1 full2 full3 full4 full5 \\
        --edits delta1 delta2 delta3 --without-filter exact1 exact2

In: finished runs. Out: R1 (what likelihoods foretell of the next cycle), R3 (fit, forecast from the first half), R4
(edits against whole programs), R5 (entropy against its floor). R6 is `nas-ray reliability`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from benchmarks.learning import print_table, show
from nas_ray.diagnostics.convergence import fit_course
from nas_ray.diagnostics.edits import UNAPPLIED, by_length
from nas_ray.diagnostics.likelihoods import own_gains
from nas_ray.diversity import measure_diversity
from nas_ray.interval import Interval, mean_interval
from nas_ray.run_table import RunTable, count_elites, freeze_bar
from nas_ray.selection import select
from nas_ray.store import Store, find_run
from nas_ray.theory.convergence import quantile_path
from nas_ray.theory.cross_entropy import forecast_elite_rate
from nas_ray.theory.elite_rate_fits import geom_fit, quantile_fit
from nas_ray.theory.novelty_filter import entropy_path_bound
from nas_ray.theory.token_errors import delta_vs_full, hazard_slope_fit, strict_fit, validity_ratio_ci

Runs = dict[str, RunTable]


def bar_of(table: RunTable) -> float:
    bar = freeze_bar(table)
    if bar is None:
        raise SystemExit("a run without a single elite has no bar to count over")
    return bar


def foretell(table: RunTable) -> tuple[list[float], list[float], list[float], list[float]]:
    """For each step: share over the cycle's own bar, what its held-out elites' likelihoods foretell of the next cycle's
    share over the same bar (the identity, and the conservative value), and that share.
    """
    before, identity, conservative, after = [], [], [], []
    for number, cycle in enumerate(table.cycles[:-1]):
        rows = [row for row in table.candidates if row.cycle == cycle.cycle]
        bar = select(rows, table.config.selection, cycle.cycle).bar
        gains = own_gains(cycle, held_out=True)
        if bar is None or not gains:
            continue
        counts = count_elites(table, bar)
        share = counts.over[number] / counts.drawn[number]
        foretold = forecast_elite_rate(share, gains)
        before.append(float(share))
        identity.append(foretold.identity)
        conservative.append(foretold.conservative)
        after.append(float(counts.over[number + 1] / counts.drawn[number + 1]))
    return before, identity, conservative, after


def print_steps(runs: Runs) -> None:
    """R1: one line a run."""
    lines = []
    for name, table in runs.items():
        before, identity, conservative, after = (np.array(values) for values in foretell(table))
        errors = [fmean(np.abs(guess - after)) for guess in (identity, conservative, before)]
        lines.append(
            (
                name,
                [
                    str(len(after)),
                    *(f"{value.mean():.3f}" for value in (before, after, identity, conservative)),
                    *(f"{error:.3f}" for error in errors),
                ],
            )
        )
    print("\nR1: share over a cycle's own bar, in the next cycle, and as foretold from held-out elites' likelihoods\n")
    columns = (
        "run",
        "steps",
        "before",
        "after",
        "foretold",
        "lower bound",
        "mean error",
        "of the bound",
        "of no change",
    )
    print_table(columns, lines)


def print_courses(runs: Runs) -> None:
    """R3: the fit to the whole run, and the second half foretold from the first."""
    fits, halves = [], []
    for name, table in runs.items():
        bar = bar_of(table)
        course = fit_course(table, count_elites(table, bar))
        counts, fit = course.counts, course.fit
        rate = show(Interval(fit.r_ci_low, fit.r, fit.r_ci_high), 3)
        best = min(course.models.values())
        others = ", ".join(f"{model} +{value - best:.1f}" for model, value in course.models.items() if value > best)
        first, last = counts.over[0] / counts.drawn[0], counts.over[-3:].sum() / counts.drawn[-3:].sum()
        fits.append(
            (
                name,
                [
                    f"{100 * bar:.0f}",
                    f"{100 * first:.0f}",
                    f"{100 * last:.0f}",
                    rate,
                    f"{fit.p_deviance:.3f}",
                    f"{fit.dispersion:.2f}",
                    f"{course.preferred} ({others})",
                ],
            )
        )
        halves.append((name, forecast_half(table, bar)))
    print("\nR3: the share over the first cycle's bar\n")
    columns = (
        "run",
        "bar, %",
        "first, %",
        "last 3, %",
        "left a cycle, r",
        "p of the fit",
        "dispersion",
        "best by AIC (others)",
    )
    print_table(columns, fits)
    print("\nR3: mean share over the bar in the second half, as foretold from the first\n")
    print_table(("run", "geometric law", "quantile law", "measured"), halves)


def forecast_half(table: RunTable, bar: float) -> list[str]:
    """Mean share of the second half: by the geometric law and by the quantile law of the first, and as it was."""
    counts = count_elites(table, bar)
    half = len(counts.cycles) // 2
    t = np.arange(len(counts.cycles))
    geometric = geom_fit(t[:half], counts.drawn[:half], counts.over[:half])
    kept = sum(cycle.elite for cycle in table.cycles[:half]) / sum(cycle.generated for cycle in table.cycles[:half])
    quantile = quantile_fit(t[:half], counts.drawn[:half], counts.over[:half], kept)
    foretold = 1 - np.exp(np.minimum(geometric.b0 + geometric.b1 * t[half:], 0))
    path = np.asarray(quantile_path(quantile.P0, quantile.a, kept, len(t) - 1))[half:]
    measured = counts.over[half:] / counts.drawn[half:]
    return [f"{values.mean():.2f}" for values in (foretold, path, measured)]


def print_edits(whole: Runs, edits: Runs) -> None:
    """R4: over all runs of a kind, without their first cycles, which have nothing to edit."""
    tables = {"full": list(whole.values()), "delta": list(edits.values())}
    lengths: dict[str, list[tuple[int, bool, bool]]] = {"full": [], "delta": []}
    bins: dict[str, tuple[list[float], list[int], list[int]]] = {"full": ([], [], []), "delta": ([], [], [])}
    for mode, group in tables.items():
        for table in group:
            rows = [row for row in table.candidates if row.cycle and row.mode == mode and row.finish_reason != "length"]
            applied = [row for row in rows if row.outcome not in UNAPPLIED]
            lengths[mode] += [
                (row.completion_tokens, (fits := row.outcome not in UNAPPLIED), fits and table.quality(row) is not None)
                for row in rows
            ]
            for total, part in zip(bins[mode], by_length(table, applied), strict=True):
                total.extend(part)
    count = {mode: len(values) for mode, values in lengths.items()}
    valid = {mode: sum(one for _, _, one in values) for mode, values in lengths.items()}
    tokens = {mode: fmean(length for length, _, _ in values) for mode, values in lengths.items()}
    phi = 1 - sum(applied for _, applied, _ in lengths["delta"]) / count["delta"]
    errors = {mode: strict_fit(*values).e for mode, values in bins.items()}
    slope = hazard_slope_fit(*bins["full"])
    measured = validity_ratio_ci(valid["delta"], count["delta"], valid["full"], count["full"])
    print("\nR4: edits against whole programs, cycles from the second on\n")
    cells = []
    for name, error in (("whole programs' error rate", errors["full"]), ("their own error rate", errors["delta"])):
        predicted = delta_vs_full(tokens["full"], tokens["delta"], errors["full"], error, phi)
        cells.append(
            (f"predicted, edits with {name}", [f"{predicted.ratio:.2f}", f"{100 * predicted.break_even_phi:.0f}"])
        )
    cells.append(
        ("measured", [f"{measured.ratio:.2f} [{measured.low:.2f}, {measured.high:.2f}]", f"phi = {100 * phi:.0f}"])
    )
    print_table(("", "ratio of valid rates", "break-even share of failures, %"), cells)
    print(
        f"\n{count['full']} whole programs of {tokens['full']:.0f} tokens, e = {errors['full']:.4f} a token, slope of "
        f"the hazard {slope.beta:.2f} (p = {slope.p_beta1:.2g}); {count['delta']} edits of {tokens['delta']:.0f} "
        f"tokens, e = {errors['delta']:.4f}"
    )


def print_entropies(groups: dict[str, Runs]) -> None:
    """R5: entropy of the networks that a cycle wrote, and the floor that the mixture would keep."""
    lines = []
    for name, runs in groups.items():
        measured: list[float] = []
        floors: list[float] = []
        repeated: list[float] = []
        for table in runs.values():
            tokens = table.config.novelty.shingle_tokens
            of_cycle = [measure_diversity(table.candidates, cycle.cycle, tokens) for cycle in table.cycles]
            a = max(0.0, min(1.0, fit_course(table, count_elites(table, bar_of(table))).fit.alpha))
            elites = [max(1, cycle.elite) for cycle in table.cycles]
            floors.append(entropy_path_bound(of_cycle[0].graph_entropy, elites, a))
            measured.append(fmean(one.graph_entropy for one in of_cycle[-3:]))
            repeated.append(fmean(1 - one.graphs / max(1, one.programs) for one in of_cycle[-3:]))
        lines.append(
            (name, [str(len(runs)), *(show(mean_interval(values)) for values in (measured, floors, repeated))])
        )
    print("\nR5: traced networks among what was built, or repeats what was, in the last three cycles\n")
    print_table(("runs", "n", "entropy, nats", "floor under the mixture, nats", "share of repeats and unbuilt"), lines)


def read_runs(names: Sequence[str]) -> Runs:
    return {name.rstrip("/").split("/")[-1]: RunTable.read(Store.open(find_run(name))) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="of whole programs")
    parser.add_argument("--edits", nargs="*", default=[], metavar="RUN")
    parser.add_argument("--without-filter", nargs="*", default=[], metavar="RUN")
    parser.add_argument("--without-graph", nargs="*", default=[], metavar="RUN")
    given = parser.parse_args()
    runs = read_runs(given.runs)
    print_steps(runs)
    print_courses(runs)
    if given.edits:
        print_edits(runs, read_runs(given.edits))
    groups = {"with the filter": runs}
    for name, others in (
        ("exact duplicates only", given.without_filter),
        ("without the graph view", given.without_graph),
    ):
        if others:
            groups[name] = read_runs(others)
    print_entropies(groups)


if __name__ == "__main__":
    main()
