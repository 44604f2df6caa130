"""Candidates as dots on a terminal: accuracy against one cost.

In: candidates and those of the Pareto front among them. Out: lines of plain characters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nas_ray.pareto import goal_value
from nas_ray.schema import CandidateRow

WIDTH, HEIGHT = 60, 14  # characters
DOT, FRONT = ".", "#"


def draw_dots(rows: Iterable[CandidateRow], front: Iterable[CandidateRow], cost: str) -> str:
    """A dot for each candidate, `#` for those in `front`, the cost to the right on a logarithmic axis.

    What has no accuracy, or no cost above 0, is left out; without any dot the text is empty.
    """
    dots = [(DOT, dot) for row in rows if (dot := _place(row, cost))]
    dots += [(FRONT, dot) for row in front if (dot := _place(row, cost))]  # last, so that they lie on top
    if not dots:
        return ""
    costs, accuracies = zip(*(dot for _, dot in dots), strict=True)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, (x, y) in dots:
        line = _step(y, min(accuracies), max(accuracies), HEIGHT)
        grid[HEIGHT - 1 - line][_step(x, min(costs), max(costs), WIDTH)] = mark
    labels = {0: f"{100 * max(accuracies):.1f} %", HEIGHT - 1: f"{100 * min(accuracies):.1f} %"}
    lines = [f"{labels.get(number, ''):>8} |{''.join(line)}".rstrip() for number, line in enumerate(grid)]
    low, high = (f"{math.exp(value):,.3g}" if cost == "latency" else f"{round(math.exp(value)):,}"
                 for value in (min(costs), max(costs)))  # fmt: skip
    unit = "latency, ms" if cost == "latency" else cost
    between = f"{unit} (logarithmic)".center(WIDTH - len(low) - len(high))
    return "\n".join([*lines, " " * 9 + "+" + "-" * WIDTH, f"{'':10}{low}{between}{high}"])


def _place(row: CandidateRow, cost: str) -> tuple[float, float] | None:
    """(logarithm of the cost, accuracy)."""
    value = goal_value(row, cost)
    return (math.log(value), row.accuracy) if value and row.accuracy is not None else None


def _step(value: float, low: float, high: float, steps: int) -> int:
    return round((value - low) / (high - low) * (steps - 1)) if high > low else 0
