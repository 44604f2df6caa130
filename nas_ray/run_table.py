"""A run as the theory reads it: what was drawn in each cycle, what of it lay over one frozen bar, what it cost.

In: a run's store. Out: a `RunTable`, and counts for `nas_ray.theory` (`count_elites`, `freeze_bar`).

The bar is frozen because the share that a cycle's own quantile keeps is that quantile in every cycle and says nothing
about learning. A candidate that was refused as a duplicate is a draw of the generator like any other, and counts with
the accuracy of the program that it repeats, through any chain of duplicates: whether the novelty filter let it pass is
another question. An edit that changes nothing counts with its parent's. One that repeats a program of a corpus has no
accuracy in this run, and counts as one that could not be trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.selection import select
from nas_ray.store import Store

Counts = npt.NDArray[np.int64]


class EliteCounts(NamedTuple):
    """Programs of each closed cycle, and those at or over one bar. All arrays are (T,), one entry a closed cycle."""

    bar: float  # accuracy, 0 .. 1; the same for all cycles
    cycles: Counts
    drawn: Counts  # programs written, of any outcome but the engine's own faults
    over: Counts  # of those, at or over the bar


@dataclass(frozen=True)
class RunTable:
    """The rows of one run. Cycles are those that are closed, candidates those of the closed cycles."""

    config: RunConfig
    candidates: tuple[CandidateRow, ...]
    cycles: tuple[CycleRow, ...]
    evaluations: tuple[EvaluationRow, ...]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        candidates: Iterable[CandidateRow],
        cycles: Iterable[CycleRow],
        evaluations: Iterable[EvaluationRow],
    ) -> RunTable:
        closed = tuple(sorted(cycles, key=lambda row: row.cycle))
        numbers = {row.cycle for row in closed}
        drawn = (row for row in candidates if row.cycle in numbers and not row.outcome.is_engine_fault)
        return cls(config, tuple(sorted(drawn, key=lambda row: (row.cycle, row.index))), closed, tuple(evaluations))

    @classmethod
    def read(cls, store: Store) -> RunTable:
        """All of a run that is written down; a run that is still going on gives its closed cycles."""
        return cls.of(store.config, store.candidates(), store.cycles(), store.evaluations())

    @cached_property
    def valid(self) -> list[CandidateRow]:
        """Candidates that were trained to a number."""
        return [row for row in self.candidates if row.outcome is Outcome.VALID and row.accuracy is not None]

    @cached_property
    def archive(self) -> dict[str, CandidateRow]:
        """The valid candidates by id."""
        return {row.id: row for row in self.valid}

    @cached_property
    def repeats(self) -> dict[str, str]:
        """What each refused program repeats, by ids; a duplicate of a duplicate is known by the latter's id."""
        refused = (row for row in self.candidates if row.outcome is Outcome.DUPLICATE)
        return {row.id: row.duplicate_of for row in refused if row.id != row.duplicate_of}

    def original(self, one: str) -> str:
        """The id at the beginning of a chain of duplicates; a program that was trained is its own."""
        seen: set[str] = set()
        while one not in self.archive and one in self.repeats and one not in seen:
            seen.add(one)
            one = self.repeats[one]
        return one

    def quality(self, row: CandidateRow) -> float | None:
        """Accuracy of a draw, 0 .. 1: its own, or that of the program that it repeats; None for a draw without one."""
        if row.outcome is Outcome.DUPLICATE:
            earlier = self.archive.get(self.original(row.duplicate_of))
        elif row.outcome is Outcome.NO_CHANGE and row.parent_ids:
            earlier = self.archive.get(row.parent_ids[0])
        else:
            earlier = row if row.outcome is Outcome.VALID else None
        return earlier.accuracy if earlier is not None else None

    @property
    def elites(self) -> list[CandidateRow]:
        """Candidates that their cycle chose as elites; top-ups are none."""
        chosen = {(cycle.cycle, one) for cycle in self.cycles for one in cycle.elite_ids}
        return [row for row in self.valid if (row.cycle, row.id) in chosen]


def freeze_bar(table: RunTable) -> float | None:
    """The bar of the first closed cycle that set one, by the run's own rule of selection; None where none did.

    It is set before anything was learned, so that later cycles cannot move it.
    """
    for cycle in table.cycles:
        rows = [row for row in table.valid if row.cycle == cycle.cycle]
        bar = select(rows, table.config.selection, cycle.cycle).bar
        if bar is not None:
            return bar
    return None


def count_elites(table: RunTable, bar: float) -> EliteCounts:
    """Draws and draws at or over `bar`, cycle by cycle."""
    cycles = np.array([cycle.cycle for cycle in table.cycles], dtype=np.int64)
    place = {int(cycle): number for number, cycle in enumerate(cycles)}
    drawn, over = np.zeros_like(cycles), np.zeros_like(cycles)
    for row in table.candidates:
        drawn[place[row.cycle]] += 1
        accuracy = table.quality(row)
        over[place[row.cycle]] += accuracy is not None and accuracy >= bar
    return EliteCounts(bar, cycles, drawn, over)
