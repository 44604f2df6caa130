"""Where a cycle's wall time goes.

In: notes on which phases are at work. Out: seconds a phase, which overlap where the work does, and the seconds in which
nothing that counts was at work: starting processes, moving files, waiting for a place.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stopwatch:
    """Runs from its making on. Times are wall-clock seconds."""

    _begun: float = field(init=False)
    _noted: float = field(init=False)
    _busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _working: float = 0.0

    def __post_init__(self) -> None:
        self._begun = self._noted = time.monotonic()

    def note(self, **phases: bool) -> None:
        """Book the time since the last note to each phase that is true; to none, it counts as waiting."""
        now = time.monotonic()
        elapsed, self._noted = now - self._noted, now
        for phase, busy in phases.items():
            self._busy[phase] += elapsed * busy
        self._working += elapsed * any(phases.values())

    def book(self, phase: str, seconds: float) -> None:
        """Of the time since the last note, `seconds` were that phase's work; the rest was waiting."""
        now = time.monotonic()
        worked = min(seconds, now - self._noted)
        self._noted = now
        self._busy[phase] += worked
        self._working += worked

    def seconds(self, phase: str) -> float:
        """Seconds in which that phase was at work, 0 for one that never was."""
        return self._busy.get(phase, 0.0)

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    @property
    def waiting(self) -> float:
        """Seconds in which no phase was at work."""
        return max(self.total - self._working, 0.0)
