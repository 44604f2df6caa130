"""Who is edited: better candidates more often, cells alike, and the same ones for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray.config import DeltaConfig
from nas_ray.parents import cell_of, choose_parents

WAYS = ["rank", "tournament", "cells"]


@dataclass(frozen=True)
class Row:
    id: str
    cycle: int
    accuracy: float | None
    parameters: int | None = 1000
    depth: int | None = 3


def config_of(way: str, tournament: int = 4) -> DeltaConfig:
    return DeltaConfig.model_validate({"parents": way, "tournament": tournament})


archives = st.lists(
    st.builds(
        Row,
        id=st.text("abcdef", min_size=1, max_size=4),
        cycle=st.integers(0, 5),
        accuracy=st.sampled_from([0.1, 0.5, 0.9]),
        parameters=st.none() | st.integers(0, 5000),
        depth=st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row.id,
)


@settings(deadline=None)
@given(archives, st.sampled_from(WAYS), st.integers(0, 100), st.randoms(use_true_random=False))
def test_same_seed_draws_the_same_parents_in_any_order_of_rows_and_for_any_count(
    archive: list[Row], way: str, seed: int, order: random.Random
) -> None:
    drawn = choose_parents(archive, config_of(way), 12, seed)
    shuffled = order.sample(archive, len(archive))
    assert choose_parents(shuffled, config_of(way), 12, seed) == drawn
    assert choose_parents(archive, config_of(way), 5, seed) == drawn[:5]
    assert set(drawn) <= set(archive)


@pytest.mark.parametrize("way", WAYS)
def test_another_seed_draws_other_parents(way: str) -> None:
    archive = [Row(f"{index}", 0, index / 50, 2**index, index) for index in range(12)]
    assert choose_parents(archive, config_of(way), 20, 0) != choose_parents(archive, config_of(way), 20, 1)


def test_rank_draws_in_proportion_to_the_rank_whatever_the_accuracies() -> None:
    archive = [Row("best", 0, 0.99), Row("second", 0, 0.2), Row("worst", 0, 0.1999)]
    drawn = Counter(row.id for row in choose_parents(archive, config_of("rank"), 6000, 0))
    assert drawn["best"] == pytest.approx(3000, abs=200)
    assert drawn["second"] == pytest.approx(2000, abs=200)
    assert drawn["worst"] == pytest.approx(1000, abs=200)


def test_a_tournament_of_all_is_won_by_the_best_and_one_of_one_by_anyone() -> None:
    archive = [Row(f"{index}", 0, index / 10) for index in range(5)]
    assert {row.id for row in choose_parents(archive, config_of("tournament", 99), 20, 0)} == {"4"}
    alike = Counter(row.id for row in choose_parents(archive, config_of("tournament", 1), 5000, 0))
    assert all(count == pytest.approx(1000, abs=150) for count in alike.values())


def test_a_tournament_of_two_never_takes_the_worst() -> None:
    archive = [Row("a", 0, 0.1), Row("b", 0, 0.2), Row("c", 0, 0.3)]
    drawn = Counter(row.id for row in choose_parents(archive, config_of("tournament", 2), 3000, 0))
    assert drawn["a"] == 0  # two different candidates are drawn
    assert drawn["c"] == pytest.approx(2000, abs=150)


def test_each_cell_gives_its_best_and_all_cells_alike() -> None:
    crowd = [Row(f"crowd {index}", 0, 0.5 + index / 100, 1500, 3) for index in range(30)]
    lone = [Row("large", 0, 0.2, 90_000, 3), Row("deep", 0, 0.1, 1500, 9)]
    drawn = Counter(row.id for row in choose_parents(crowd + lone, config_of("cells"), 3000, 0))
    assert set(drawn) == {"crowd 29", "large", "deep"}
    assert all(count == pytest.approx(1000, abs=120) for count in drawn.values())


@settings(deadline=None)
@given(archives)
def test_no_other_candidate_of_its_cell_is_better_than_a_parent_from_cells(archive: list[Row]) -> None:
    for parent in choose_parents(archive, config_of("cells"), 10, 0):
        rivals = [row.accuracy for row in archive if cell_of(row) == cell_of(parent)]
        assert parent.accuracy == max(rivals)  # type: ignore[type-var]


def test_a_cell_is_one_factor_of_two_of_parameters_and_one_depth() -> None:
    sizes = [1023, 1024, 2047, 2048]
    cells = [cell_of(Row("a", 0, 0.5, size)) for size in sizes]
    assert cells[1] == cells[2]
    assert len(set(cells)) == 3
    assert cell_of(Row("a", 0, 0.5, 1024, 4)) != cells[1]
    unknown = Row("a", 0, 0.5, None, None)
    assert cell_of(unknown) == cell_of(replace(unknown, id="b", cycle=7))


def test_ties_go_to_fewer_parameters_then_the_earlier_cycle() -> None:
    first = Row("c", 0, 0.5, 1100)
    archive = [Row("a", 1, 0.5, 1100), Row("b", 0, 0.5, 1200), first]
    assert set(choose_parents(archive, config_of("cells"), 9, 0)) == {first}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_is_there_twice_counts_once(way: str) -> None:
    row = Row("a", 0, 0.5)
    archive = [row, Row("b", 0, 0.4)]
    assert choose_parents([*archive, replace(row, cycle=3)], config_of(way), 20, 0) == choose_parents(
        archive, config_of(way), 20, 0
    )


@pytest.mark.parametrize("way", WAYS)
def test_nobody_can_be_drawn_from_an_empty_archive(way: str) -> None:
    assert choose_parents([], config_of(way), 0, 0) == []
    with pytest.raises(ValueError, match="3 parents are asked of an empty archive"):
        choose_parents([], config_of(way), 3, 0)


def test_a_row_without_an_accuracy_is_refused() -> None:
    with pytest.raises(ValueError, match="candidate abc of cycle 2 has no accuracy"):
        choose_parents([Row("abc", 2, None)], config_of("rank"), 1, 0)
