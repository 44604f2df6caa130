"""The tables that several commands print.

In: what `nas_ray.progress` and `nas_ray.leaderboard` say. Out: rich tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from nas_ray.funnel import STEPS
from nas_ray.interval import Interval
from nas_ray.progress import CycleProgress
from nas_ray.schema import CandidateRow

ID_DIGITS = 10  # of an id's 16: enough to tell a run's candidates apart, and `show` takes a beginning


WIDTH_OF_A_FILE = 200  # columns; rich takes 80 where there is no terminal, and cuts tables off


def open_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_A_FILE)


def cycle_table(summaries: Iterable[CycleProgress]) -> Table:
    """One line for each cycle: its funnel, valid rate and mean accuracy with 95 % intervals, best, adapter, time."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for name in ("cycle", *STEPS):
        table.add_column(name, justify="right")
    for name in ("valid [95 %]", "mean accuracy [95 %]", "best", "adapter", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        *counts, elites = (count for _, count in summary.funnel.steps)
        elite = str(elites) if summary.row else "-"  # chosen at the end of a cycle
        if summary.funnel.top_up:
            elite += f" +{summary.funnel.top_up}"
        table.add_row(
            str(summary.cycle),
            *(str(count) for count in counts),
            elite,
            percent_interval(summary.valid_rate),
            percent_interval(summary.accuracy),
            percent(summary.best),
            str(summary.adapter),
            duration(summary.row.total_seconds) if summary.row else "under way",
            style="" if summary.row else "italic",
        )
    return table


def candidate_table(rows: Sequence[CandidateRow], details: bool = False) -> Table:
    """Ranked candidates, the first one first; with `details` also depth and latency, where any of them has one."""
    cells = {
        "rank": [str(number) for number in range(1, len(rows) + 1)],
        "id": [row.id[:ID_DIGITS] for row in rows],
        "accuracy": [percent(row.accuracy) for row in rows],
        "loss": ["-" if row.loss is None else f"{row.loss:.3f}" for row in rows],
        "parameters": ["-" if row.parameters is None else f"{row.parameters:,}" for row in rows],
        "MFLOPs": ["-" if row.flops is None else f"{row.flops / 1e6:,.2f}" for row in rows],
    }
    if details and any(row.depth is not None for row in rows):
        cells["depth"] = ["-" if row.depth is None else str(row.depth) for row in rows]
    if details and any(row.latency_ms is not None for row in rows):
        cells["ms"] = ["-" if row.latency_ms is None else f"{row.latency_ms:.2f}" for row in rows]
    cells["cycle"] = [str(row.cycle) for row in rows]
    cells["adapter"] = [str(row.adapter) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for name in cells:
        table.add_column(name, justify="left" if name == "id" else "right", no_wrap=True)
    for line in zip(*cells.values(), strict=True):
        table.add_row(*line)
    return table


def percent(share: float | None) -> str:
    """A share 0 .. 1 in per cent with two decimals."""
    return "-" if share is None else f"{100 * share:.2f} %"


def percent_interval(interval: Interval | None) -> str:
    """An interval of shares in per cent: `41.2 [30.0, 53.1]`."""
    if interval is None:
        return "-"
    if math.isnan(interval.low):
        return f"{100 * interval.estimate:.1f} [one value]"
    return f"{100 * interval.estimate:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
