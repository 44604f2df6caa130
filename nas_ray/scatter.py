"""Candidates as dots, accuracy against one cost, as SVG text for the report: no scripts, no fonts, no files.

In: candidates and those of the Pareto front among them. Out: an `<svg>` element in a figure, coloured by the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from nas_ray.chart import Frame
from nas_ray.pareto import Costed, goal_value
from nas_ray.schema import CandidateRow

FRAME = Frame(height=300, right=16)
NAMES = {"parameters": "parameters", "flops": "FLOPs of one image", "latency": "latency of one image, ms"}
MOST_TICKS = 8


def draw_scatter(rows: Sequence[CandidateRow], front: Sequence[CandidateRow], cost: str) -> str:
    """A dot for each of `rows`, a line through `front`; the cost on a logarithmic axis, accuracy in per cent.

    `cost` is one of `NAMES`. What has no accuracy, or no cost above 0, is left out; without any dot the text is empty.
    """
    known = [row for row in rows if _is_known(row, cost)]
    if not known:
        return ""
    costs = [_cost_of(row, cost) for row in known]
    low, high = math.log10(min(costs)), math.log10(max(costs))

    def place(row: CandidateRow) -> tuple[float, float]:
        return _x_of(_cost_of(row, cost), low, high), FRAME.y_of(row.accuracy or 0.0)

    ticks = ((_x_of(tick, low, high), f"{tick:,.10g}") for tick in _ticks(low, high))
    parts = FRAME.begin(f"accuracy against {NAMES[cost]}") + FRAME.label_x(ticks, NAMES[cost])
    parts.append('<g class="series-0 cloud">')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in map(place, known)]
    best = sorted((row for row in front if _is_known(row, cost)), key=lambda row: _cost_of(row, cost))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, best))
    parts.append(f'</g><g class="series-1"><polyline fill="none" points="{path}"/>')
    for row in best:
        x, y = place(row)
        hint = f"{row.id}: {100 * (row.accuracy or 0.0):.2f} %, {_cost_of(row, cost):,.10g} {NAMES[cost]}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(hint)}</title></circle>')
    parts.append("</g>")
    names = (
        f"{len(known)} novel valid candidates, accuracy in %",
        f"Pareto front: {len(best)} that no other beats in both",
    )
    return FRAME.end(parts, names)


def _is_known(row: CandidateRow, cost: str) -> bool:
    return row.accuracy is not None and bool(goal_value(row, cost))


def _cost_of(row: Costed, cost: str) -> float:
    return goal_value(row, cost) or 0.0


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within powers of ten: the tens alone where those are many enough, else also 2 and 5."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(inside) <= MOST_TICKS:
            break
    return inside or [10.0**low]


def _x_of(cost: float, low: float, high: float) -> float:
    return FRAME.x_of((math.log10(cost) - low) / (high - low) if high > low else 0.5)
