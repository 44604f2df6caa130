"""Whole programs beside edits: what a valid program costs and what it is worth, as Markdown.

    for seed in 0 1 2; do
        nas-ray search -c examples/paper_digits.yaml --run full$seed -s seed=$seed
        nas-ray search -c examples/paper_digits.yaml --run delta$seed -s seed=$seed \\
            -s generation.full=0 -s generation.delta=1
    done
    python -m benchmarks.deltas full=full0,full1,full2 delta=delta0,delta1,delta2

In: finished runs, grouped by how their candidates are written. Out: a table of the groups (of one that mixes modes each
mode too), and each later group as a ratio to the first with a bootstrap interval over runs. The first cycle has nothing
to edit and is left out in every group (`--first-cycle 0` takes it in).

A candidate counts as valid if it was trained and graded; one that was refused as a duplicate, or whose edit did not fit
or changed nothing, counts against. Shares are pooled over the runs with Wilson's 95 % interval, means over candidates
are means over runs with Student's t.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.ablation import Run, mean_accuracy, read_groups, share, spread
from benchmarks.learning import percent, print_table
from nas_ray.interval import wilson
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow
from nas_ray.store import StoreError

RESAMPLES = 10_000  # of the runs of each group
COLUMNS = (
    "group",
    "runs",
    "candidates",
    "valid, %",
    "tokens a valid program",
    "mean accuracy, %",
    "valid ones over the bar, %",
    "all over the bar, %",
    "novel, %",
    "patch failed, %",
    "no change, %",
)
EDITS = ("delta", "fallback")

Part = tuple[list[CandidateRow], float]  # a run's rows and its bar


def judged(rows: Sequence[CandidateRow]) -> list[CandidateRow]:
    """Those that the generator answers for."""
    return [row for row in rows if not row.outcome.is_engine_fault]


def valid_share(rows: Sequence[CandidateRow]) -> float:
    counted = judged(rows)
    return sum(row.outcome is Outcome.VALID for row in counted) / len(counted) if counted else math.nan


def tokens_per_valid(rows: Sequence[CandidateRow]) -> float:
    """Tokens that were generated, for whatever candidate, for each valid one; inf without any."""
    valid = sum(row.outcome is Outcome.VALID for row in rows)
    return sum(row.completion_tokens for row in rows) / valid if valid else math.inf


def describe(parts: Sequence[Part]) -> list[str]:
    """The cells of `COLUMNS` but the first."""
    rows = judged([row for part, _ in parts for row in part])
    over = sum(row.accuracy is not None and row.accuracy >= bar for part, bar in parts for row in judged(part))
    valid = sum(row.outcome is Outcome.VALID for row in rows)
    # Whether a program is new is known of those that every view of novelty let pass, and of those that one refused.
    novel, refused = sum(row.novel for row in rows), sum(row.outcome is Outcome.DUPLICATE for row in rows)
    edits = [row for row in rows if row.mode in EDITS]
    return [
        str(len(parts)),
        str(len(rows)),
        percent(share(rows, Outcome.VALID)),
        spread([tokens_per_valid(part) for part, _ in parts], 0),
        spread([100 * mean_accuracy(part) for part, _ in parts]),
        percent(wilson(over, valid)),
        percent(wilson(over, len(rows))),
        percent(wilson(novel, novel + refused)),
        percent(share(edits, Outcome.PATCH_FAILED)),
        percent(share(edits, Outcome.NO_CHANGE)),
    ]


def ratio(
    group: Sequence[Part], reference: Sequence[Part], value: Callable[[Sequence[CandidateRow]], float]
) -> tuple[float, float, float]:
    """Mean over the group's runs by that of the reference's: 2.5 % quantile, estimate, 97.5 % quantile.

    The percentile bootstrap of B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7
    (1979): runs are drawn with replacement within each group. With three runs it knows few different samples, and is
    rather too narrow.
    """
    dice = np.random.default_rng(0)
    above, below = (np.array([value(rows) for rows, _ in parts]) for parts in (group, reference))
    drawn = [part[dice.integers(len(part), size=(RESAMPLES, len(part)))].mean(axis=1) for part in (above, below)]
    low, high = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    return float(low), float(above.mean() / below.mean()), float(high)


def parts_of(runs: Sequence[Run], first_cycle: int) -> list[Part]:
    return [([row for row in run.rows if row.cycle >= first_cycle], run.bar) for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=RUN,RUN,...")
    parser.add_argument("--first-cycle", type=int, default=1)
    arguments = parser.parse_args()
    try:
        groups = {name: parts_of(runs, arguments.first_cycle) for name, runs in read_groups(arguments.groups).items()}
    except (ValueError, StoreError) as error:
        parser.error(str(error))
    if empty := [name for name, parts in groups.items() if not all(rows for rows, _ in parts)]:
        parser.error(f"{', '.join(empty)}: a run without candidates from cycle {arguments.first_cycle} on")
    lines = []
    for name, parts in groups.items():
        lines.append((name, describe(parts)))
        modes = sorted({row.mode for rows, _ in parts for row in rows})
        for mode in modes if len(modes) > 1 else []:
            chosen = [([row for row in rows if row.mode == mode], bar) for rows, bar in parts]
            lines.append((f"{name}, written as {mode}", describe(chosen)))
    print_table(COLUMNS, lines)
    (first, reference), *others = groups.items()
    values = {"valid": valid_share, "tokens a valid program": tokens_per_valid, "mean accuracy": mean_accuracy}
    for name, parts in others:
        for word, value in values.items():
            low, estimate, high = ratio(parts, reference, value)
            bounds = f"[{low:.2f}, {high:.2f}]" if min(len(parts), len(reference)) > 1 else "(one run: no interval)"
            print(f"{name} / {first}, {word}: {estimate:.2f} {bounds}")


if __name__ == "__main__":
    main()
