"""What the novelty filter is good for: settings of it beside one another, over several seeds, as Markdown.

    for seed in 0 1 2; do
        nas-ray search -c examples/paper_digits.yaml --run on$seed -s seed=$seed
        nas-ray search -c examples/paper_digits.yaml --run exact$seed -s seed=$seed -s novelty.tau=1
        nas-ray search -c examples/paper_digits.yaml --run code$seed -s seed=$seed -s novelty.graph=false
    done
    python -m benchmarks.ablation "tau 0.9=on0,on1,on2" "tau off=exact0,exact1,exact2" "graph off=code0,code1,code2"

In: finished runs, grouped by setting. Out: for each setting how different the programs of a cycle are (the first one,
and the mean of the last three), and what whole runs found. Numbers are means over the runs with Student's t interval,
95 %; shares are pooled over the runs with Wilson's. Every program that was written counts, those refused as duplicates
too, and the Vendi score's similarity is the same in all settings, so that a setting is not measured by its own filter.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.learning import LAST, percent, print_table, show
from nas_ray.config import NoveltyConfig
from nas_ray.diversity import Diversity, measure_diversity
from nas_ray.interval import Interval, mean_interval, wilson
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, StoreError, find_run

CYCLE_COLUMNS = (
    "setting, cycles",
    "distinct programs",
    "duplicates, %",
    "distinct graphs",
    "entropy of graphs, nats",
    "entropy of cells, nats",
    "Vendi score",
    "mean accuracy, %",
    "best, %",
)
RUN_COLUMNS = (
    "setting, whole runs",
    "runs",
    "programs",
    "distinct programs",
    "duplicates, %",
    "novel and valid",
    "distinct graphs, novel and valid",
    "mean accuracy, %",
    "best, %",
)


@dataclass(frozen=True)
class Run:
    """A finished run, read once."""

    name: str
    rows: list[CandidateRow]
    cycles: list[int]
    bar: float  # the fixed one of its configuration

    @classmethod
    def read(cls, name: str) -> Run:
        store = Store.open(find_run(name))
        cycles = [row.cycle for row in store.cycles()]
        if not cycles:
            raise StoreError(f"{name} has no finished cycle; give finished runs")
        return cls(name, store.candidates(), cycles, store.config.selection.threshold or 0.0)

    def rows_of(self, cycles: Sequence[int]) -> list[CandidateRow]:
        return [row for row in self.rows if row.cycle in cycles]


def read_groups(arguments: Sequence[str]) -> dict[str, list[Run]]:
    """NAME=RUN,RUN,... as finished runs by name. Raises ValueError for anything else, StoreError for no run."""
    groups: dict[str, list[Run]] = {}
    for argument in arguments:
        name, separator, runs = argument.rpartition("=")
        if not separator or not name or not all(runs.split(",")) or name in groups:
            raise ValueError(f"{argument!r}: give each setting once, as NAME=RUN,RUN,...")
        groups[name] = [Run.read(run) for run in runs.split(",")]
    return groups


def spread(values: Sequence[float], digits: int = 1) -> str:
    """A mean over runs with its interval; those that could not be measured (nan) are left out."""
    return show(mean_interval([value for value in values if not math.isnan(value)]), digits)


def mean_accuracy(rows: Sequence[CandidateRow]) -> float:
    """Of the valid ones; nan without any."""
    graded = [row.accuracy for row in rows if row.accuracy is not None]
    return sum(graded) / len(graded) if graded else math.nan


def best_accuracy(rows: Sequence[CandidateRow]) -> float:
    """nan without a valid one."""
    return max((row.accuracy for row in rows if row.accuracy is not None), default=math.nan)


def share(rows: Sequence[CandidateRow], *outcomes: Outcome) -> Interval | None:
    """Share of the candidates that the generator answers for which ended so, Wilson."""
    judged = [row for row in rows if not row.outcome.is_engine_fault]
    return wilson(sum(row.outcome in outcomes for row in judged), len(judged))


def describe_cycles(runs: Sequence[Run], chosen: Callable[[Run], list[int]], shingle_tokens: int) -> list[str]:
    """The cells of `CYCLE_COLUMNS`: each run's mean over its chosen cycles, then mean and interval over the runs."""
    measured = [[measure_diversity(run.rows, cycle, shingle_tokens) for cycle in chosen(run)] for run in runs]

    def over_runs(value: Callable[[Diversity], float], digits: int) -> str:
        return spread([sum(map(value, cycles)) / len(cycles) for cycles in measured], digits)

    rows = [run.rows_of(chosen(run)) for run in runs]
    return [
        over_runs(lambda one: one.distinct, 1),
        percent(share([row for part in rows for row in part], Outcome.DUPLICATE)),
        over_runs(lambda one: one.graphs, 1),
        over_runs(lambda one: one.graph_entropy, 2),
        over_runs(lambda one: one.cell_entropy, 2),
        over_runs(lambda one: one.vendi, 1),
        spread([100 * mean_accuracy(part) for part in rows]),
        spread([100 * best_accuracy(part) for part in rows]),
    ]


def describe_runs(runs: Sequence[Run]) -> list[str]:
    """The cells of `RUN_COLUMNS`."""
    found = [[row for row in run.rows if row.novel and row.outcome is Outcome.VALID] for run in runs]
    return [
        str(len(runs)),
        spread([sum(bool(row.id) for row in run.rows) for run in runs], 0),
        spread([len({row.id for row in run.rows if row.id}) for run in runs], 0),
        percent(share([row for run in runs for row in run.rows], Outcome.DUPLICATE)),
        spread([len(rows) for rows in found], 0),
        spread([len({row.graph for row in rows if row.graph}) for rows in found], 0),
        spread([100 * mean_accuracy(run.rows) for run in runs]),
        spread([100 * best_accuracy(run.rows) for run in runs], 2),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=RUN,RUN,...")
    parser.add_argument("--shingle-tokens", type=int, default=NoveltyConfig().shingle_tokens)
    arguments = parser.parse_args()
    try:
        groups = read_groups(arguments.groups)
    except (ValueError, StoreError) as error:
        parser.error(str(error))
    lines = []
    for name, runs in groups.items():
        lines.append((f"{name}, first", describe_cycles(runs, lambda run: run.cycles[:1], arguments.shingle_tokens)))
        lines.append(
            (f"{name}, last {LAST}", describe_cycles(runs, lambda run: run.cycles[-LAST:], arguments.shingle_tokens))
        )
    print_table(CYCLE_COLUMNS, lines)
    print_table(RUN_COLUMNS, [(name, describe_runs(runs)) for name, runs in groups.items()])


if __name__ == "__main__":
    main()
