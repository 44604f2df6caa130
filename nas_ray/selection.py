"""Which candidates of a cycle are its elites.

In: one cycle's final rows and a `SelectionConfig`. Out: a frozen `Selection`: the elites, the top-ups (they fill the
training set, and are never counted as elites) and the accuracy bar that the cycle set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

from nas_ray.config import SelectionConfig
from nas_ray.outcome import Outcome
from nas_ray.pareto import Costed, order_rows


class Graded(Costed, Protocol):
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


Row = TypeVar("Row", bound=Graded)


@dataclass(frozen=True, slots=True)
class Selection(Generic[Row]):
    """A cycle's choice, each part best first: accuracy, then the earlier candidate; of several goals see `select`."""

    elites: tuple[Row, ...]
    top_ups: tuple[Row, ...]
    bar: float | None  # accuracy asked of an elite, 0 .. 1; None where no threshold and no candidate set one. With
    # several goals it is the threshold alone: the best share is then no matter of accuracy


def select(rows: Iterable[Row], config: SelectionConfig, cycle: int) -> Selection[Row]:
    """The elites and top-ups of `cycle`; rows of other cycles are passed over.

    A candidate is an elite if it is novel, valid, at or above `config.threshold` (where given) and among the best
    ceil(quantile * valid candidates of the cycle) (where given).
    A tie in accuracy goes to the earlier (cycle, index), so that the same rows always give the same elites.
    Top-ups are the next best novel, valid candidates from `config.top_up_threshold` on, until elites and top-ups
    together are `config.top_up_to`.

    With more than one of `config.goals` the elites are the first ceil(quantile * valid candidates) novel ones at or
    above the threshold in another order: by Pareto front over the goals, then by room in the front
    (`nas_ray.pareto.order_rows`), then as above. Top-ups follow in the same order. Without a threshold the smallest
    network may be an elite however little it has learned, because nothing is smaller.
    """
    graded = sorted(
        ((_accuracy(row), row) for row in rows if row.cycle == cycle and row.outcome == Outcome.VALID),
        key=lambda pair: (-pair[0], pair[1].cycle, pair[1].index),
    )
    places = len(graded) if config.quantile is None else _share_of(config.quantile, len(graded))
    if len(config.goals) > 1:
        able = [row for accuracy, row in graded if row.novel and accuracy >= (config.threshold or 0.0)]
        best = order_rows(able, config.goals)[:places]
        return Selection(tuple(best), _top_up(graded, best, config), config.threshold)
    bars = [] if config.threshold is None else [config.threshold]
    if config.quantile is not None and graded:
        bars.append(graded[places - 1][0])
    bar = max(bars, default=None)
    elites = [row for accuracy, row in graded[:places] if row.novel and (bar is None or accuracy >= bar)]
    return Selection(tuple(elites), _top_up(graded, elites, config), bar)


def _top_up(graded: Sequence[tuple[float, Row]], elites: Sequence[Row], config: SelectionConfig) -> tuple[Row, ...]:
    chosen = {row.id for row in elites}
    spare = [
        row for accuracy, row in graded if row.novel and row.id not in chosen and accuracy >= config.top_up_threshold
    ]
    if len(config.goals) > 1:
        spare = order_rows(spare, config.goals)
    return tuple(spare[: max(0, config.top_up_to - len(elites))])


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
