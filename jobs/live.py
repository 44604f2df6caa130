"""What a person sees while a search runs.

In: phases, snapshots and finished cycles from the driver, as often as it likes. Out: on a terminal a live table (funnel
of every cycle, best so far, throughput, time left); anywhere else one plain line at every change of phase and every few
seconds, fit for a log file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from jobs.summary import print_summary
from jobs.tables import ID_DIGITS, duration, open_console, percent
from nas_ray.config import RunConfig
from nas_ray.funnel import STEPS, Funnel
from nas_ray.progress import CycleProgress
from nas_ray.schema import CycleRow
from nas_ray.store import Store

LINE_SECONDS = 5.0  # between two plain lines
DRAW_SECONDS = 0.25  # between two pictures on a terminal
WARNINGS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A running cycle at one moment, as the driver sees it."""

    cycle: int
    wanted: int  # candidates of this cycle
    funnel: Funnel  # of this cycle; elites are not chosen yet
    totals: Funnel  # of the whole run, this cycle included
    in_flight: int  # candidates asked for that have no final row yet
    cycle_mean: float | None = None  # accuracy of this cycle's valid candidates
    cycle_best: float | None = None
    best_accuracy: float | None = None  # of the run
    best_id: str = ""
    tokens_per_second: float | None = None  # of the generator, while it writes


@dataclass(slots=True)
class CycleLine:
    """One line of the live table."""

    cycle: int
    counts: tuple[int, ...]  # in the order of STEPS
    mean: float | None
    best: float | None
    seconds: float | None  # None while it runs


@dataclass(slots=True)
class Watcher:
    """Shows a search. Use it as a context manager, or call `start` and `stop`; all other calls are cheap.

    Args:
        done: the cycles that an earlier process wrote, where a run is resumed; one that it left open is passed over.
    """

    config: RunConfig
    folder: str
    done: Sequence[CycleProgress] = ()
    console: Console = field(default_factory=open_console)
    _lines: list[CycleLine] = field(init=False, default_factory=list)
    _warnings: list[str] = field(init=False, default_factory=list)
    _phase: str = field(init=False, default="start")
    _snapshot: Snapshot | None = field(init=False, default=None)
    _cycle: int | None = field(init=False, default=None)  # None before the first and after the last one
    _begun: float = field(init=False, default=0.0)
    _phase_begun: float = field(init=False, default=0.0)
    _shown: float = field(init=False, default=0.0)
    _inherited: int | None = field(init=False, default=None)  # final rows that an earlier process had written
    _live: Live | None = field(init=False, default=None)
    _spinner: Spinner = field(init=False, default_factory=lambda: Spinner("dots"))

    def start(self) -> None:
        """Begin to show."""
        self._begun = self._phase_begun = time.monotonic()
        self._lines = [
            CycleLine(one.cycle, tuple(count for _, count in one.funnel.steps), one.mean, one.best, one.seconds)
            for one in self.done
            if one.row is not None
        ]
        self._print(f"{self.config.name}: {self.config.dataset.name}, {self.config.model.path} model, in {self.folder}")
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=1 / DRAW_SECONDS)
            self._live.start()

    def stop(self) -> None:
        """Leave the last picture where it is and give the terminal back. May be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def due(self) -> bool:
        """Whether the next `update` will be seen; a driver that finds a snapshot dear may ask first."""
        return time.monotonic() - self._shown >= (DRAW_SECONDS if self.console.is_terminal else LINE_SECONDS)

    def phase(self, name: str) -> None:
        """The search has begun to `name`: "start the generator", "search", "fine-tune"."""
        if name != self._phase:
            self._phase, self._phase_begun = name, time.monotonic()
            if self._live is None:
                self._print(f"{self._clock()} {self._place()}{name}")

    def update(self, snapshot: Snapshot) -> None:
        """The latest state of the running cycle; shown when it is time for a new picture or line."""
        due = self.due
        self._snapshot, self._cycle = snapshot, snapshot.cycle
        if self._inherited is None:
            self._inherited = snapshot.totals.generated
        if due:
            self._shown = time.monotonic()
            if self._live is None:
                self._print(f"{self._clock()} {self._place()}{', '.join(self._facts(snapshot))}")

    def cycle_done(self, row: CycleRow) -> None:
        """A cycle is closed."""
        last = self._snapshot if self._snapshot is not None and self._snapshot.cycle == row.cycle else None
        mean, best = (last.cycle_mean, last.cycle_best) if last else (None, None)
        counts = tuple(int(getattr(row, step)) for step in STEPS)
        self._lines.append(CycleLine(row.cycle, counts, mean, best, row.total_seconds))
        if self._live is None:
            steps = ", ".join(f"{step} {count}" for step, count in zip(STEPS, counts, strict=True))
            facts = f"{steps}, mean {percent(mean)}, best {percent(best)}"
            self._print(f"{self._clock()} {self._place()}finished in {duration(row.total_seconds)}: {facts}")
        self._cycle = row.cycle + 1 if row.cycle + 1 < self.config.cycles else None

    def say(self, text: str) -> None:
        """One line that stays; on a terminal above the table."""
        self._print(text if self._live is not None else f"{self._clock()} {text}")

    def warn(self, text: str) -> None:
        """Something that a person should know and that does not end the search."""
        self._warnings.append(text)
        if self._live is None:
            self._print(f"{self._clock()} warning: {text}")

    def finish(self, store: Store) -> None:
        """The search is over: tables, where things are, and what to run next."""
        self.stop()
        print_summary(store, self.console)

    # Text

    def _print(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _clock(self) -> str:
        return f"[{duration(time.monotonic() - self._begun)}]"

    def _place(self) -> str:
        """`cycle 0 (1 of 3): `, or nothing before the first one; counted from 0 as in the tables of a run."""
        return "" if self._cycle is None else f"cycle {self._cycle} ({self._cycle + 1} of {self.config.cycles}): "

    def _facts(self, snapshot: Snapshot) -> list[str]:
        """Short facts on a running cycle, the important ones first."""
        facts = [f"{snapshot.funnel.generated} of {snapshot.wanted} done", f"{snapshot.in_flight} in flight"]
        facts += [f"{step} {count}" for step, count in snapshot.funnel.steps[1:-1]]
        if snapshot.best_accuracy is not None:
            facts.append(f"best {percent(snapshot.best_accuracy)} ({snapshot.best_id[:ID_DIGITS]})")
        return facts + self._speeds(snapshot)

    def _speeds(self, snapshot: Snapshot) -> list[str]:
        speeds = []
        if snapshot.tokens_per_second is not None:
            speeds.append(f"{snapshot.tokens_per_second:,.0f} tokens/s")
        elapsed = time.monotonic() - self._begun
        finished = snapshot.totals.generated - (self._inherited or 0)
        if finished > 0:
            speeds.append(f"{finished / elapsed:.2f} candidates/s")
            # Fine-tunes and starts are in `elapsed`, so after the first cycle they are in the estimate too.
            left = self.config.cycles * self.config.candidates_per_cycle - snapshot.totals.generated
            speeds.append(f"about {duration(elapsed / finished * max(left, 0))} left")
        return speeds

    # Picture

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
        for name in ("cycle", *STEPS, "mean", "best", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        for line in self._lines:
            table.add_row(*_cells(line))
        snapshot = self._snapshot
        running = snapshot is not None and all(line.cycle != snapshot.cycle for line in self._lines)
        if snapshot is not None and running:
            counts = tuple(count for _, count in snapshot.funnel.steps)
            line = CycleLine(snapshot.cycle, counts, snapshot.cycle_mean, snapshot.cycle_best, None)
            table.add_row(*_cells(line), style="cyan")
        if table.row_count:
            parts.append(table)
        if snapshot is not None and running:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=snapshot.wanted, completed=snapshot.funnel.generated, width=30),
                Text(f"{snapshot.funnel.generated} of {snapshot.wanted} candidates, {snapshot.in_flight} in flight"),
            )
            parts.append(bar)
        if snapshot is not None and snapshot.best_accuracy is not None:
            parts.append(Text(f"best so far {percent(snapshot.best_accuracy)}  {snapshot.best_id}", style="green"))
        status = f"{self._place()}{self._phase} ({duration(time.monotonic() - self._phase_begun)})"
        speeds = [f"{duration(time.monotonic() - self._begun)} in all"]
        self._spinner.update(text=Text(" · ".join([status, *speeds, *(self._speeds(snapshot) if snapshot else [])])))
        parts.append(self._spinner)
        parts += [Text(f"warning: {text}", style="yellow") for text in self._warnings[-WARNINGS_SHOWN:]]
        return Group(*parts)


def _cells(line: CycleLine) -> list[str]:
    *counts, elite = line.counts
    return [
        str(line.cycle),
        *(str(count) for count in counts),
        "-" if line.seconds is None else str(elite),
        percent(line.mean),
        percent(line.best),
        "" if line.seconds is None else duration(line.seconds),
    ]
