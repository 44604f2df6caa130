"""Which candidates of a cycle are its elites.

In: one cycle's final rows and a `SelectionConfig`. Out: a frozen `Selection`: the elites, the top-ups (they fill the
training set, and are never counted as elites) and the accuracy bar that the cycle set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from nas_ray.config import SelectionConfig
from nas_ray.outcome import Outcome


class Graded(Protocol):
    """What selection reads of a row; `nas_ray.schema.CandidateRow` has it."""

    @property
    def cycle(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def novel(self) -> bool: ...
    @property
    def accuracy(self) -> float | None: ...


Row = TypeVar("Row", bound=Graded)


@dataclass(frozen=True, slots=True)
class Selection(Generic[Row]):
    """A cycle's choice, each part best first (accuracy, then the earlier candidate)."""

    elites: tuple[Row, ...]
    top_ups: tuple[Row, ...]
    bar: float | None  # accuracy asked of an elite, 0 .. 1; None where no threshold and no candidate set one


def select(rows: Iterable[Row], config: SelectionConfig, cycle: int) -> Selection[Row]:
    """The elites and top-ups of `cycle`; rows of other cycles are passed over.

    A candidate is an elite if it is novel, valid, at or above `config.threshold` (where given) and among the best
    ceil(quantile * valid candidates of the cycle) (where given).
    A tie in accuracy goes to the earlier (cycle, index), so that the same rows always give the same elites.
    Top-ups are the next best novel, valid candidates from `config.top_up_threshold` on, until elites and top-ups
    together are `config.top_up_to`.
    """
    graded = sorted(
        ((_accuracy(row), row) for row in rows if row.cycle == cycle and row.outcome == Outcome.VALID),
        key=lambda pair: (-pair[0], pair[1].cycle, pair[1].index),
    )
    places = len(graded) if config.quantile is None else _share_of(config.quantile, len(graded))
    bars = [] if config.threshold is None else [config.threshold]
    if config.quantile is not None and graded:
        bars.append(graded[places - 1][0])
    bar = max(bars, default=None)
    elites = [row for accuracy, row in graded[:places] if row.novel and (bar is None or accuracy >= bar)]
    chosen = {row.id for row in elites}
    spare = [
        row for accuracy, row in graded if row.novel and row.id not in chosen and accuracy >= config.top_up_threshold
    ]
    return Selection(tuple(elites), tuple(spare[: max(0, config.top_up_to - len(elites))]), bar)


def _accuracy(row: Graded) -> float:
    if row.accuracy is None or not 0.0 <= row.accuracy <= 1.0:
        raise ValueError(
            f"candidate {row.id} (cycle {row.cycle}, index {row.index}) is valid but its accuracy is {row.accuracy}; "
            "a valid candidate has an accuracy from 0 to 1"
        )
    return row.accuracy


def _share_of(share: float, count: int) -> int:
    """ceil(share * count) for the share as it was written: 0.1 of 30 is 3, not 4 as in binary fractions."""
    return math.ceil(Fraction(str(share)) * count)
