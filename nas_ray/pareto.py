"""More than one goal: Pareto fronts and crowding, as NSGA-II orders its population.

In: rows of objectives, smaller is better, or candidates and the names of goals. Out: the front of each row (0 = no
other row is better), how much room each has in its front, and the order that follows.

K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6 (2002): one row dominates another if it is no worse in every objective and
better in one; front k is what nothing dominates once the fronts before it are taken away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]  # (rows, objectives)

SMALLEST = 1e-3  # of a cost, before its logarithm: under one parameter, one FLOP and a microsecond


class Costed(Protocol):
    """What goals are read from; `nas_ray.schema.CandidateRow` has it."""

    @property
    def accuracy(self) -> float | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def flops(self) -> int | None: ...
    @property
    def latency_ms(self) -> float | None: ...


Row = TypeVar("Row", bound=Costed)

COLUMNS = {"accuracy": "accuracy", "parameters": "parameters", "flops": "flops", "latency": "latency_ms"}


class GoalError(ValueError):
    """Goals that nothing can be ordered by."""


def parse_goals(text: str) -> tuple[str, ...]:
    """`accuracy,parameters` as goals: accuracy first, then any of the costs, each once. Raises GoalError."""
    goals = tuple(part.strip() for part in text.split(","))
    if goals[0] != "accuracy" or len(goals) < 2 or len(set(goals)) < len(goals) or not set(goals) <= set(COLUMNS):
        costs = ", ".join(list(COLUMNS)[1:])
        raise GoalError(
            f"goals are {text!r}: give accuracy and then one or more of {costs}, each once and with commas, for "
            "example accuracy,parameters"
        )
    return goals


def goal_value(row: Costed, goal: str) -> float | None:
    """What a candidate has for a goal, in the goal's own unit; None where it was not measured."""
    value: float | None = getattr(row, COLUMNS[goal])
    return value


def objectives_of(rows: Sequence[Costed], goals: Sequence[str]) -> Matrix:
    """The objectives of candidates, (rows, goals), smaller is better; what was not measured is the worst, inf.

    Accuracy enters negated. Costs enter by their logarithm, so that in the crowding a factor of two counts
    the same for a small network and for a large one; the fronts do not depend on it.
    """
    matrix = np.full((len(rows), len(goals)), math.inf)
    for place, row in enumerate(rows):
        for column, goal in enumerate(goals):
            value = goal_value(row, goal)
            if value is not None and not math.isnan(value):
                matrix[place, column] = -value if goal == "accuracy" else math.log(max(value, SMALLEST))
    return matrix


def order_rows(rows: Sequence[Row], goals: Sequence[str]) -> list[Row]:
    """Candidates by front, then by room in it, the larger first; ties keep the order in which they come."""
    objectives = objectives_of(rows, goals)
    fronts = number_fronts(objectives)
    crowding = measure_crowding(objectives, fronts)
    return [rows[place] for place in np.lexsort((-crowding, fronts))]


def number_fronts(objectives: Matrix) -> npt.NDArray[np.int64]:
    """The front of each row, 0 the best; nan counts as inf, the worst. Equal rows share a front.

    A row's front is the length of the longest chain of rows that dominate one another above it. In lexicographic order
    whatever dominates a row stands before it, so that one pass is enough: O(rows^2 objectives) time, O(rows) memory.
    """
    values = _worst_for_nan(objectives)
    order = np.lexsort(values.T[::-1])
    ordered = values[order]
    fronts = np.zeros(len(values), dtype=np.int64)
    for place in range(1, len(ordered)):
        before, row = ordered[:place], ordered[place]
        dominates = np.all(before <= row, axis=1) & np.any(before < row, axis=1)
        if dominates.any():
            fronts[place] = fronts[:place][dominates].max() + 1
    numbers = np.empty_like(fronts)
    numbers[order] = fronts
    return numbers


def measure_crowding(objectives: Matrix, fronts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The crowding distance of each row in its front, (rows,): the more room, the larger; inf for a front's ends.

    As Deb et al., section III-B: for each objective the gap between a row's two neighbours as a share of the front's
    spread, summed. Two details they leave open make it independent of the order of rows: equal rows count as one and
    share its distance, and where two rows tie in one objective the others decide which comes first. An objective in
    which a front does not differ says nothing. inf stands for the worst finite value of the front.
    """
    values = _worst_for_nan(objectives)
    crowding = np.zeros(len(values))
    for front in np.unique(fronts):
        members = np.flatnonzero(fronts == front)
        distinct, copies = np.unique(_finite(values[members]), axis=0, return_inverse=True)
        distances = np.zeros(len(distinct))
        if len(distinct) == 1:
            distances[:] = math.inf
        for column in range(distinct.shape[1]):
            order = np.lexsort((*np.delete(distinct, column, axis=1).T[::-1], distinct[:, column]))
            along = distinct[order, column]
            spread = along[-1] - along[0]
            if spread > 0:
                distances[order[[0, -1]]] = math.inf
                distances[order[1:-1]] += (along[2:] - along[:-2]) / spread
        crowding[members] = distances[copies.reshape(-1)]
    return crowding


def _worst_for_nan(objectives: Matrix) -> Matrix:
    return np.where(np.isnan(objectives), math.inf, objectives)


def _finite(values: Matrix) -> Matrix:
    """Each column with inf replaced by its largest finite value (0 where it has none)."""
    known = np.isfinite(values)
    worst = np.where(known, values, -math.inf).max(axis=0)
    return np.where(known, values, np.where(np.isfinite(worst), worst, 0.0))
