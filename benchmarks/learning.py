"""Does the loop learn? A run beside its frozen control, cycle by cycle, with 95 % intervals, as Markdown.

    nas-ray search --config examples/paper_digits.yaml --run paper
    nas-ray search --config examples/paper_digits.yaml --run frozen --set finetune.enabled=false
    python benchmarks/learning.py runs/paper runs/frozen

In: finished runs, of several seeds. Out: a table of each, the pooled last three cycles beside the first cycle, and the
means over all runs that learn and over all that do not, with Student's t over runs. The bar is the fixed one of the
configuration, so that shares mean the same in every cycle.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from nas_ray.interval import Interval, mean_interval, wilson
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, find_run

LAST = 3  # cycles pooled at the end
COLUMNS = (
    "valid, %",
    "mean accuracy, %",
    "valid ones over the bar, %",
    "all over the bar, %",
    "elites",
    "dup.",
    "best",
)


def show(interval: Interval | None, digits: int = 2) -> str:
    """`0.25 [0.20, 0.30]`; the estimate alone where there are no bounds, because one value has none."""
    if interval is None:
        return "-"
    low, estimate, high = interval
    bounds = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{estimate:.{digits}f}{bounds}"


def percent(interval: Interval | None) -> str:
    return show(Interval(*(100 * value for value in interval)) if interval is not None else None, 1)


def describe(rows: Sequence[CandidateRow], bar: float, elites: int) -> list[str]:
    """One table row: valid rate, mean accuracy, share over the bar (both of the valid ones), novel elites, best."""
    graded = [row.accuracy for row in rows if row.accuracy is not None]
    judged = sum(not row.outcome.is_engine_fault for row in rows)
    over = sum(accuracy >= bar for accuracy in graded)
    duplicates = sum(row.outcome is Outcome.DUPLICATE for row in rows)
    best = f"{100 * max(graded):.1f}" if graded else "-"
    return [
        percent(wilson(len(graded), judged)),
        percent(mean_interval(graded)),
        percent(wilson(over, len(graded))),
        f"{percent(wilson(over, judged))}",
        str(elites),
        str(duplicates),
        best,
    ]


def print_table(columns: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A Markdown table; the first of `columns` is that of the lines' names."""
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name, cells in lines:
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def pool(store: Store, cycles: Sequence[int], bar: float) -> list[str]:
    closed = {row.cycle: row for row in store.cycles()}
    rows = [row for cycle in cycles for row in store.candidates(cycle)]
    return describe(rows, bar, sum(closed[cycle].elite for cycle in cycles))


def summarise(rows: Sequence[CandidateRow], bar: float) -> tuple[float, float, float, float]:
    """One run's shares of valid programs, mean accuracy of these, share of all over the bar, share of duplicates."""
    judged = [row for row in rows if not row.outcome.is_engine_fault]
    graded = [row.accuracy for row in judged if row.accuracy is not None]
    over = sum(accuracy >= bar for accuracy in graded)
    duplicates = sum(row.outcome is Outcome.DUPLICATE for row in judged)
    count = max(1, len(judged))
    return len(graded) / count, sum(graded) / max(1, len(graded)), over / count, duplicates / count


def print_means(stores: Sequence[Store]) -> None:
    """Means over the runs that learn and over the controls, first cycle and last ones."""
    lines = []
    for word, enabled in (("learning", True), ("control", False)):
        chosen = [store for store in stores if store.config.finetune.enabled == enabled]
        for name, part in (("first cycle", slice(0, 1)), (f"last {LAST} cycles", slice(-LAST, None))):
            values = []
            for store in chosen:
                cycles = [row.cycle for row in store.cycles()][part]
                rows = [row for cycle in cycles for row in store.candidates(cycle)]
                values.append(summarise(rows, store.config.selection.threshold or 0.0))
            if values:
                cells = [percent(mean_interval(column)) for column in zip(*values, strict=True)]
                lines.append((f"{word}, n = {len(chosen)}, {name}", cells))
    print("### Means over runs\n")
    print_table(("runs", "valid, %", "mean accuracy, %", "all over the bar, %", "duplicates, %"), lines)


def main() -> None:
    stores = {name: Store.open(find_run(name)) for name in sys.argv[1:]}
    pooled = []
    for name, store in stores.items():
        bar = store.config.selection.threshold or 0.0
        cycles = [row.cycle for row in store.cycles()]
        minutes = sum(row.total_seconds for row in store.cycles()) / 60
        print(
            f"### {name}: {len(cycles)} cycles, {len(store.candidates())} candidates, bar {bar:g}, {minutes:.1f} min\n"
        )
        print_table(("cycle", *COLUMNS), [(str(cycle), pool(store, [cycle], bar)) for cycle in cycles])
        pooled.append((f"{name}, first cycle", pool(store, cycles[:1], bar)))
        pooled.append((f"{name}, last {LAST} cycles", pool(store, cycles[-LAST:], bar)))
    print("### Together\n")
    print_table(("cycles", *COLUMNS), pooled)
    print_means(list(stores.values()))


if __name__ == "__main__":
    main()
