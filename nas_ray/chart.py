"""Line charts as SVG text, for the report: no scripts, no fonts, no files.

In: points with intervals, one for each cycle. Out: an `<svg>` element that takes its colours from the page, by the
classes `series-0`, `series-1`, ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nas_ray.interval import Interval

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 34
MOST_LABELS = 24  # on the x axis


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a name and, for each cycle, an estimate with bounds (nan bounds: a dot without a bar; None: a gap)."""

    name: str
    points: Sequence[tuple[int, Interval | None]]  # (cycle, share 0 .. 1)


def draw_lines(series: Sequence[Series], title: str) -> str:
    """A chart of shares 0 .. 1 over cycles, the y axis in per cent; bars are the bounds."""
    cycles = sorted({cycle for line in series for cycle, _ in line.points})
    if not cycles:
        return ""
    first, span = cycles[0], max(cycles[-1] - cycles[0], 1)

    def x_of(cycle: int) -> float:
        inner = WIDTH - LEFT - RIGHT - 24
        return LEFT + 12 + (inner * (cycle - first) / span if len(cycles) > 1 else inner / 2)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for tenth in range(0, 11, 2):
        y = _y_of(tenth / 10)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10 * tenth}</text>')
    step = math.ceil(len(cycles) / MOST_LABELS)
    for cycle in cycles[::step]:
        parts.append(f'<text x="{x_of(cycle):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{cycle}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">cycle</text>')
    for number, line in enumerate(series):
        aside = 4 * (number - (len(series) - 1) / 2)  # so that bars of one cycle stand beside each other
        there = [(x_of(cycle) + aside, interval) for cycle, interval in line.points if interval is not None]
        path = " ".join(f"{x:.1f},{_y_of(interval.estimate):.1f}" for x, interval in there)
        parts.append(f'<g class="series-{number}"><polyline fill="none" points="{path}"/>')
        for x, interval in there:
            y = _y_of(interval.estimate)
            note = f"{100 * interval.estimate:.1f} %"
            if not math.isnan(interval.low) and interval.high > interval.low:
                low, high = _y_of(interval.low), _y_of(interval.high)
                parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
                note += f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
            hint = f"<title>{escape(line.name)}: {note}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5">{hint}</circle>')
        parts.append("</g>")
    parts.append("</svg>")
    names = "".join(f'<li class="series-{number}">{escape(line.name)}</li>' for number, line in enumerate(series))
    return f'<figure>{"".join(parts)}<figcaption><ul class="legend">{names}</ul></figcaption></figure>'


def _y_of(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)
