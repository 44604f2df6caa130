"""Who becomes an elite: bars, ties, top-ups."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nas_ray.config import SelectionConfig
from nas_ray.outcome import Outcome
from nas_ray.selection import select


@dataclass(frozen=True)
class Row:
    cycle: int
    index: int
    id: str
    outcome: str
    novel: bool
    accuracy: float | None
    parameters: int | None = None
    flops: int | None = None
    latency_ms: float | None = None


def rows_of(*accuracies: float | None, cycle: int = 0) -> list[Row]:
    """One row each; None is a candidate that was not valid."""
    return [
        Row(cycle, index, f"{cycle}-{index}", Outcome.TIMEOUT if a is None else Outcome.VALID, a is not None, a)
        for index, a in enumerate(accuracies)
    ]


def indices(rows: tuple[Row, ...]) -> list[int]:
    return [row.index for row in rows]


def test_threshold_alone_takes_everyone_at_or_above_it() -> None:
    selection = select(rows_of(0.39, 0.4, None, 0.9), SelectionConfig(threshold=0.4, quantile=None), 0)
    assert indices(selection.elites) == [3, 1]
    assert selection.bar == 0.4
    assert selection.top_ups == ()


def test_quantile_counts_valid_candidates_only_and_rounds_up() -> None:
    selection = select(rows_of(0.1, None, 0.5, 0.3, None, 0.2, 0.4), SelectionConfig(quantile=0.25), 0)
    assert indices(selection.elites) == [2, 6]  # ceil(0.25 * 5)
    assert selection.bar == 0.4


def test_quantile_is_the_decimal_share_that_was_written() -> None:
    rows = rows_of(*[index / 100 for index in range(30)])
    assert len(select(rows, SelectionConfig(quantile=0.1), 0).elites) == 3  # 0.1 * 30 is 3.0000000000000004 in floats


def test_both_bars_must_be_met() -> None:
    config = SelectionConfig(threshold=0.45, quantile=0.5)
    assert indices(select(rows_of(0.5, 0.4, 0.3, 0.2), config, 0).elites) == [0]
    assert indices(select(rows_of(0.9, 0.8, 0.7, 0.6), config, 0).elites) == [0, 1]


def test_a_tie_goes_to_the_earlier_candidate_in_any_order_of_rows() -> None:
    for order in permutations(rows_of(0.5, 0.5, 0.5, 0.1)):
        assert indices(select(order, SelectionConfig(quantile=0.5), 0).elites) == [0, 1]


def test_a_valid_candidate_that_is_not_novel_is_neither_elite_nor_top_up() -> None:
    rows = rows_of(0.9, 0.5)
    rows[0] = replace(rows[0], novel=False)
    selection = select(rows, SelectionConfig(threshold=0.4, quantile=None, top_up_to=5), 0)
    assert indices(selection.elites) == [1]
    assert selection.top_ups == ()


def test_top_ups_fill_the_training_set_and_are_no_elites() -> None:
    config = SelectionConfig(threshold=0.4, quantile=None, top_up_to=3, top_up_threshold=0.2)
    selection = select(rows_of(0.5, 0.1, 0.3, 0.25, 0.2), config, 0)
    assert indices(selection.elites) == [0]
    assert indices(selection.top_ups) == [2, 3]


def test_no_top_up_where_the_elites_are_enough() -> None:
    config = SelectionConfig(threshold=0.1, quantile=None, top_up_to=2)
    selection = select(rows_of(0.5, 0.4, 0.3, 0.05), config, 0)
    assert indices(selection.elites) == [0, 1, 2]
    assert selection.top_ups == ()


def test_a_cycle_without_a_valid_candidate_has_no_elites() -> None:
    selection = select(rows_of(None, None), SelectionConfig(), 0)
    assert (selection.elites, selection.top_ups, selection.bar) == ((), (), None)


def test_other_cycles_are_passed_over() -> None:
    rows = rows_of(0.9, cycle=0) + rows_of(0.5, 0.4, cycle=1)
    assert [row.id for row in select(rows, SelectionConfig(quantile=0.5), 1).elites] == ["1-0"]


def sized(*sizes: tuple[float, int | None]) -> list[Row]:
    """One valid row for each (accuracy, parameters)."""
    rows = rows_of(*[accuracy for accuracy, _ in sizes])
    return [replace(row, parameters=parameters) for row, (_, parameters) in zip(rows, sizes, strict=True)]


SMALL_AND_GOOD = SelectionConfig(quantile=0.5, goals=("accuracy", "parameters"))


def test_with_two_goals_a_small_network_is_an_elite_beside_a_better_larger_one() -> None:
    rows = sized((0.9, 9000), (0.88, 9500), (0.6, 100), (0.5, 200))
    assert indices(select(rows, SMALL_AND_GOOD, 0).elites) == [0, 2]
    assert indices(select(rows, SelectionConfig(quantile=0.5), 0).elites) == [0, 1]


def test_with_two_goals_the_front_comes_first_then_its_ends_then_the_roomier_places() -> None:
    front = sized((0.9, 10_000), (0.89, 9_000), (0.7, 1_000), (0.3, 100), (0.29, 5_000), (0.2, 20_000))
    config = SelectionConfig(quantile=1.0, goals=("accuracy", "parameters"))
    assert indices(select(front, config, 0).elites) == [0, 3, 2, 1, 4, 5]


def test_with_two_goals_the_threshold_is_the_bar_and_nothing_below_it_is_an_elite() -> None:
    config = SelectionConfig(quantile=1.0, threshold=0.4, goals=("accuracy", "parameters"))
    selection = select(sized((0.9, 9000), (0.1, 1), (0.4, 5000)), config, 0)
    assert indices(selection.elites) == [0, 2]
    assert selection.bar == 0.4
    assert select(sized((0.9, 9000)), SMALL_AND_GOOD, 0).bar is None


def test_with_two_goals_one_that_was_not_measured_is_the_worst() -> None:
    rows = sized((0.9, None), (0.9, 100), (0.2, 5000), (0.1, 6000))
    assert indices(select(rows, SMALL_AND_GOOD, 0).elites)[0] == 1
    assert indices(select(rows, SMALL_AND_GOOD, 0).elites)[1] == 0  # what is left has fewer places than rows


def test_with_two_goals_top_ups_follow_in_the_same_order() -> None:
    config = SelectionConfig(quantile=0.25, top_up_to=2, goals=("accuracy", "parameters"))
    rows = sized((0.9, 10), (0.8, 500), (0.75, 600), (0.2, 20))
    selection = select(rows, config, 0)
    assert indices(selection.elites) == [0]
    assert indices(selection.top_ups) == [1]
    assert selection.bar is None


def test_with_two_goals_a_candidate_that_is_not_novel_is_no_elite() -> None:
    rows = [replace(row, novel=row.index != 0) for row in sized((0.9, 10), (0.8, 500))]
    assert indices(select(rows, SMALL_AND_GOOD, 0).elites) == [1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.none() | st.integers(0, 10**6)), max_size=25),
    st.floats(0.01, 1),
    st.none() | st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_with_two_goals_nothing_left_out_dominates_an_elite_in_any_order_of_rows(
    sizes: list[tuple[float, int | None]], quantile: float, threshold: float | None, order: random.Random
) -> None:
    rows = sized(*sizes)
    config = SelectionConfig(quantile=quantile, threshold=threshold, goals=("accuracy", "parameters"))
    elites = select(rows, config, 0).elites
    assert select(order.sample(rows, len(rows)), config, 0).elites == elites
    for elite in elites:
        for other in set(rows) - set(elites):
            no_worse = (other.accuracy or 0) >= (elite.accuracy or 0) and cost(other) <= cost(elite)
            assert not (no_worse and (other.accuracy != elite.accuracy or cost(other) < cost(elite)))


def cost(row: Row) -> float:
    return float("inf") if row.parameters is None else row.parameters


@pytest.mark.parametrize("accuracy", [None, float("nan"), 1.5])
def test_a_valid_row_without_a_sound_accuracy_is_refused(accuracy: float | None) -> None:
    row = Row(0, 0, "abc", Outcome.VALID, True, accuracy)
    with pytest.raises(ValueError, match="abc"):
        select([row], SelectionConfig(), 0)


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.floats(0.01, 1)),
    st.integers(0, 20),
)
def test_no_candidate_left_out_is_better_than_an_elite(
    accuracies: list[float | None], threshold: float | None, quantile: float | None, top_up_to: int
) -> None:
    assume(threshold is not None or quantile is not None)
    config = SelectionConfig(threshold=threshold, quantile=quantile, top_up_to=top_up_to)
    rows = rows_of(*accuracies)
    selection = select(rows, config, 0)
    elites = {row.id for row in selection.elites}
    left_out = [row.accuracy for row in rows if row.accuracy is not None and row.id not in elites]
    if elites and left_out:
        assert max(left_out) <= min(row.accuracy for row in selection.elites if row.accuracy is not None)
    assert elites.isdisjoint(row.id for row in selection.top_ups)
    assert not selection.top_ups or len(selection.elites) + len(selection.top_ups) <= top_up_to
