"""Fronts and crowding keep what their definitions promise, in any order of rows."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nas_ray.pareto import measure_crowding, number_fronts, objectives_of, order_rows

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    accuracy: float | None
    parameters: int | None = None
    flops: int | None = None
    latency_ms: float | None = None


def matrices(values: st.SearchStrategy[float]) -> st.SearchStrategy[Matrix]:
    return arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=values)


# Few values make many ties; the second kind makes none, in all likelihood.
tied = matrices(st.sampled_from([0.0, 1.0, 2.0, math.inf, math.nan]))
any_rows = st.one_of(tied, matrices(st.floats(-100, 100)))


def dominates(one: Matrix, other: Matrix) -> bool:
    one, other = (np.where(np.isnan(row), math.inf, row) for row in (one, other))
    return bool(np.all(one <= other) and np.any(one < other))


@settings(deadline=None)
@given(any_rows)
def test_no_member_of_a_front_dominates_another(rows: Matrix) -> None:
    fronts = number_fronts(rows)
    for one in range(len(rows)):
        for other in range(len(rows)):
            assert not (fronts[one] == fronts[other] and dominates(rows[one], rows[other]))


@settings(deadline=None)
@given(any_rows)
def test_each_member_of_a_later_front_is_dominated_by_one_of_the_front_before(rows: Matrix) -> None:
    fronts = number_fronts(rows)
    assert set(fronts) == set(range(max(fronts) + 1))
    for place in np.flatnonzero(fronts > 0):
        assert any(dominates(rows[other], rows[place]) for other in np.flatnonzero(fronts == fronts[place] - 1))


@settings(deadline=None)
@given(any_rows, st.randoms(use_true_random=False))
def test_fronts_and_crowding_do_not_depend_on_the_order_of_rows(rows: Matrix, dice: random.Random) -> None:
    order = dice.sample(range(len(rows)), len(rows))
    fronts = number_fronts(rows)
    assert np.array_equal(number_fronts(rows[order]), fronts[order])
    crowding = measure_crowding(rows, fronts)
    assert np.allclose(measure_crowding(rows[order], fronts[order]), crowding[order])


@settings(deadline=None)
@given(any_rows)
def test_fronts_do_not_depend_on_the_units_of_an_objective(rows: Matrix) -> None:
    assert np.array_equal(number_fronts(rows * 8), number_fronts(rows))


@settings(deadline=None)
@given(any_rows)
def test_crowding_is_never_negative_nor_undefined_and_every_front_has_an_end(rows: Matrix) -> None:
    fronts = number_fronts(rows)
    crowding = measure_crowding(rows, fronts)
    assert np.all(crowding >= 0)
    for front in set(fronts):
        assert math.inf in crowding[fronts == front]


def test_one_objective_makes_a_front_of_each_value() -> None:
    assert number_fronts(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [2, 0, 1, 0]


def test_equal_rows_share_front_and_crowding() -> None:
    rows = np.array([[0.0, 4.0], [1.0, 3.0], [1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])
    crowding = measure_crowding(rows, number_fronts(rows))
    assert crowding[1] == crowding[2] == pytest.approx(2 / 4 + 2 / 4)


def test_crowding_is_the_gap_between_the_neighbours_as_a_share_of_the_spread() -> None:
    rows = np.array([[0.0, 10.0], [1.0, 5.0], [4.0, 4.0], [10.0, 0.0]])
    assert measure_crowding(rows, number_fronts(rows)) == pytest.approx(
        [math.inf, 4 / 10 + 6 / 10, 9 / 10 + 5 / 10, math.inf]
    )


def test_each_front_has_crowding_of_its_own() -> None:
    near = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    rows = np.concatenate((near, near + 10))
    crowding = measure_crowding(rows, number_fronts(rows))
    assert crowding[:3].tolist() == crowding[3:].tolist() == [math.inf, 2.0, math.inf]


def test_no_rows_have_no_fronts() -> None:
    fronts = number_fronts(np.empty((0, 2)))
    assert fronts.tolist() == measure_crowding(np.empty((0, 2)), fronts).tolist() == []
    assert order_rows([], ("accuracy", "flops")) == []


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_cost_that_was_not_measured_is_the_worst(missing: float | None) -> None:
    rows = [Row(0.9, latency_ms=missing), Row(0.9, latency_ms=99.0), Row(0.8, latency_ms=1.0)]
    assert number_fronts(objectives_of(rows, ("accuracy", "latency"))).tolist() == [1, 0, 0]


def test_where_a_goal_was_never_measured_the_others_decide() -> None:
    rows = [Row(0.7, flops=20), Row(0.9, flops=10), Row(0.6, flops=5)]
    fronts = number_fronts(objectives_of(rows, ("accuracy", "flops", "latency")))
    assert fronts.tolist() == [1, 0, 0]


def test_a_factor_of_two_takes_the_same_room_among_small_and_large_networks() -> None:
    rows = [Row(0.1 * step, parameters=2**step) for step in range(1, 8)]
    objectives = objectives_of(rows, ("accuracy", "parameters"))
    inner = measure_crowding(objectives, number_fronts(objectives))[1:-1]
    assert inner == pytest.approx([inner[0]] * 5)


def test_rows_are_ordered_by_front_then_room_then_as_they_came() -> None:
    ends = [Row(0.9, 1000), Row(0.1, 1)]
    crowded = [Row(0.85, 900), Row(0.84, 890)]
    behind = [Row(0.5, 2000), Row(0.5, 2000)]
    ordered = order_rows([*behind, *crowded, *ends], ("accuracy", "parameters"))
    assert ordered[:2] == ends
    assert set(ordered[2:4]) == set(crowded)
    assert ordered[4:] == behind
