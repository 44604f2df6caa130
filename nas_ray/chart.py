"""Line charts as SVG text, for the report: no scripts, no fonts, no files.

In: points with intervals, one for each cycle. Out: an `<svg>` element that takes its colours from the page, by the
classes `series-0`, `series-1`, ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from nas_ray.interval import Interval

WIDTH = 640
LEFT, TOP, BOTTOM = 48, 12, 34
INSET = 12  # between the frame and the first and last point
MOST_LABELS = 24  # on the x axis


@dataclass(frozen=True, slots=True)
class Frame:
    """What every plot of shares 0 .. 1 has around its points: the y axis in per cent, labels and names below."""

    height: int  # pixels
    right: int  # pixels of margin

    def x_of(self, share: float) -> float:
        """Where the share of the x axis, 0 .. 1, lies."""
        return LEFT + INSET + (WIDTH - LEFT - self.right - 2 * INSET) * share

    def y_of(self, share: float) -> float:
        """Where a share lies on the y axis."""
        return TOP + (self.height - TOP - BOTTOM) * (1 - share)

    def begin(self, title: str) -> list[str]:
        """The beginning of the element, with the grid."""
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(title)}" '
            'xmlns="http://www.w3.org/2000/svg">'
        ]
        for tenth in range(0, 11, 2):
            y = self.y_of(tenth / 10)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10 * tenth}</text>')
        return parts

    def label_x(self, labels: Iterable[tuple[float, str]], name: str) -> list[str]:
        """Labels at their places on the x axis, and what the axis is."""
        y, middle = self.height - BOTTOM + 16, (LEFT + WIDTH - self.right) / 2
        parts = [f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{label}</text>' for x, label in labels]
        return [*parts, f'<text x="{middle}" y="{self.height - 3}" text-anchor="middle">{escape(name)}</text>']

    def end(self, parts: Iterable[str], names: Iterable[str]) -> str:
        """The whole figure; `names` are those of the series."""
        legend = "".join(f'<li class="series-{number}">{escape(name)}</li>' for number, name in enumerate(names))
        picture = "".join(parts)
        return f'<figure>{picture}</svg><figcaption><ul class="legend">{legend}</ul></figcaption></figure>'


FRAME = Frame(height=260, right=12)


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
        return FRAME.x_of((cycle - first) / span if len(cycles) > 1 else 0.5)

    step = math.ceil(len(cycles) / MOST_LABELS)
    parts = FRAME.begin(title) + FRAME.label_x(((x_of(cycle), str(cycle)) for cycle in cycles[::step]), "cycle")
    for number, line in enumerate(series):
        aside = 4 * (number - (len(series) - 1) / 2)  # so that bars of one cycle stand beside each other
        there = [(x_of(cycle) + aside, interval) for cycle, interval in line.points if interval is not None]
        path = " ".join(f"{x:.1f},{FRAME.y_of(interval.estimate):.1f}" for x, interval in there)
        parts.append(f'<g class="series-{number}"><polyline fill="none" points="{path}"/>')
        for x, interval in there:
            y = FRAME.y_of(interval.estimate)
            note = f"{100 * interval.estimate:.1f} %"
            if not math.isnan(interval.low) and interval.high > interval.low:
                low, high = FRAME.y_of(interval.low), FRAME.y_of(interval.high)
                parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
                note += f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
            hint = f"<title>{escape(line.name)}: {note}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5">{hint}</circle>')
        parts.append("</g>")
    return FRAME.end(parts, (line.name for line in series))
