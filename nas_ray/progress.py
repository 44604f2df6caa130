"""What a run has reached: each cycle in numbers with intervals, and the best candidate so far.

In: a `Store`, at any moment of a run. Out: a `Progress`, which the command line, the live table and the report show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas_ray.funnel import Funnel, count_funnel
from nas_ray.interval import Interval, mean_share, wilson
from nas_ray.leaderboard import rank
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow, CycleRow
from nas_ray.store import Store


@dataclass(frozen=True, slots=True)
class CycleProgress:
    """One cycle, finished or under way."""

    cycle: int
    funnel: Funnel
    valid_rate: Interval | None  # valid share of the judged candidates, Wilson; None before the first one
    accuracy: Interval | None  # mean over the valid candidates, Student's t cut to 0 .. 1; None before the first one
    best: float | None  # accuracy, this cycle's
    best_so_far: float | None  # accuracy, this cycle's and all earlier ones'
    adapter: int  # version that wrote its candidates (the newest, should there be several); 0 = the base model
    row: CycleRow | None  # None while it is not finished

    @property
    def mean(self) -> float | None:
        """Mean accuracy of its valid candidates."""
        return self.accuracy.estimate if self.accuracy else None

    @property
    def seconds(self) -> float | None:
        """Wall time; None while it is not finished."""
        return self.row.total_seconds if self.row else None


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment."""

    cycles: tuple[CycleProgress, ...]  # in order; those without any final row are not there yet
    wanted_cycles: int
    candidates_per_cycle: int
    best: CandidateRow | None

    @property
    def finished_cycles(self) -> int:
        """Cycles that are closed."""
        return sum(summary.row is not None for summary in self.cycles)

    @property
    def finished(self) -> bool:
        """True when every cycle of the configuration is closed."""
        return self.finished_cycles >= self.wanted_cycles


def measure_cycle(
    cycle: int, rows: Sequence[CandidateRow], closed: CycleRow | None, best_before: float | None = None
) -> CycleProgress:
    """A cycle from its final rows; `best_before` is the best accuracy of all earlier cycles."""
    funnel = count_funnel(rows, closed.elite_ids if closed else (), closed.top_up_ids if closed else ())
    accuracies = [row.accuracy for row in rows if row.outcome is Outcome.VALID and row.accuracy is not None]
    best = max(accuracies, default=None)
    return CycleProgress(
        cycle=cycle,
        funnel=funnel,
        valid_rate=wilson(funnel.trained, funnel.judged),
        accuracy=mean_share(accuracies),
        best=best,
        best_so_far=max((value for value in (best, best_before) if value is not None), default=None),
        adapter=max((row.adapter for row in rows), default=0),
        row=closed,
    )


def measure_progress(store: Store) -> Progress:
    """How far the run has come."""
    rows = store.candidates()
    closed = {row.cycle: row for row in store.cycles()}
    cycles: list[CycleProgress] = []
    for cycle in sorted({row.cycle for row in rows} | set(closed)):
        before = cycles[-1].best_so_far if cycles else None
        own = [row for row in rows if row.cycle == cycle]
        cycles.append(measure_cycle(cycle, own, closed.get(cycle), before))
    return Progress(
        cycles=tuple(cycles),
        wanted_cycles=store.config.cycles,
        candidates_per_cycle=store.config.candidates_per_cycle,
        best=next(iter(rank(rows, top=1)), None),
    )
