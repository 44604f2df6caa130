"""A cycle's time is booked to the phases at work, and what is left over is waiting."""

from __future__ import annotations

import pytest

from nas_ray import stopwatch
from nas_ray.stopwatch import Stopwatch


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_overlapping_phases_are_each_booked_and_count_once_as_work(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 2
    watch.note(generate=True, evaluate=False)
    clock.now += 3
    watch.note(generate=True, evaluate=True)
    clock.now += 1
    watch.note(generate=False, evaluate=False)
    assert (watch.seconds("generate"), watch.seconds("evaluate")) == (5, 3)
    assert (watch.total, watch.waiting) == (6, 1)


def test_work_reported_afterwards_leaves_the_rest_as_waiting(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 10
    watch.book("finetune", 4)
    assert (watch.seconds("finetune"), watch.waiting) == (4, 6)


def test_no_more_work_is_booked_than_time_has_passed(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 1
    watch.book("finetune", 50)
    assert (watch.seconds("finetune"), watch.waiting) == (1, 0)


def test_phase_that_never_was_has_no_seconds() -> None:
    assert Stopwatch().seconds("sleep") == 0
