"""Which earlier candidates are edited: the parents of a cycle's deltas.

In: the archive, every novel valid candidate so far, and a `DeltaConfig`. Out: one parent for each edit. The choice
depends on nothing but the archive's rows and the seed, so that a cycle which is gone on with edits the same programs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from nas_ray.config import DeltaConfig


class Archived(Protocol):
    """What the choice reads of a candidate; `nas_ray.schema.CandidateRow` has it."""

    @property
    def id(self) -> str: ...
    @property
    def cycle(self) -> int: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def depth(self) -> int | None: ...


Row = TypeVar("Row", bound=Archived)
Cell = tuple[int | None, int | None]  # (factor of two of the parameters, depth)


def choose_parents(archive: Sequence[Row], config: DeltaConfig, count: int, seed: int) -> list[Row]:
    """`count` independent draws from `archive`, in any order of its rows the same for the same seed.

    - `rank`: linear ranking (J. E. Baker, Adaptive selection methods for genetic algorithms, 1985): of n candidates the
      best has the weight n, the next n - 1, the last 1. How far ahead a candidate is plays no part.
    - `tournament`: the best of `config.tournament` different candidates, drawn uniformly (D. E. Goldberg and K. Deb, A
      comparative analysis of selection schemes used in genetic algorithms, 1991).
    - `cells`: the best of a cell, drawn uniformly among those that hold a candidate (J.-B. Mouret and J. Clune,
      Illuminating search spaces by mapping elites, arXiv:1504.04909): see `cell_of`.

    Better is: higher accuracy, then fewer parameters, then the earlier cycle. A program that is there twice counts
    once. The first draws are the same for every count. Raises ValueError where parents are asked of an empty archive,
    or where a row has no accuracy.
    """
    ranked = _rank(archive)
    if count and not ranked:
        raise ValueError(f"{count} parents are asked of an empty archive; give it a novel valid candidate first")
    # A string seeds Random through SHA-512: the same on every machine, unlike hash().
    dice = random.Random(f"parents {seed}")
    if config.parents == "rank":
        return dice.choices(ranked, weights=range(len(ranked), 0, -1), k=count) if count else []
    if config.parents == "tournament":
        size = min(config.tournament, len(ranked))
        return [ranked[min(dice.sample(range(len(ranked)), size))] for _ in range(count)]
    champions: dict[Cell, Row] = {}
    for row in ranked:
        champions.setdefault(cell_of(row), row)
    cells = list(champions.values())
    return [dice.choice(cells) for _ in range(count)]


def cell_of(row: Archived) -> Cell:
    """Where a candidate stands in the grid: sizes of one factor of two (1024 .. 2047 parameters) and of one depth.

    What is not known, as the depth in rows of old runs, is a place of its own.
    """
    size = None if row.parameters is None else row.parameters.bit_length()
    return size, row.depth


def _rank(archive: Sequence[Row]) -> list[Row]:
    """Best first, each id once; the id is the last word, so that the order of `archive` never is."""
    best: dict[str, Row] = {}
    for row in sorted(archive, key=_merit):
        best.setdefault(row.id, row)
    return list(best.values())


def _merit(row: Archived) -> tuple[float, float, int, str]:
    if row.accuracy is None:
        raise ValueError(
            f"candidate {row.id} of cycle {row.cycle} has no accuracy; only valid candidates have children"
        )
    return (-row.accuracy, float("inf") if row.parameters is None else row.parameters, row.cycle, row.id)
