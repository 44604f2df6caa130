"""Intervals agree with formulas and programs that were not written here."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_ray.interval import mean_interval, wilson


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    successes, trials = case
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    interval = wilson(successes, trials)
    assert interval is not None
    assert interval == pytest.approx((expected.low, successes / trials, expected.high), abs=1e-12)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_mean_agrees_with_scipys_t(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval is not None
    spread = stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=spread) if spread else (
        interval.estimate, interval.estimate
    )  # fmt: skip
    assert interval == pytest.approx((low, sum(values) / len(values), high), rel=1e-6, abs=1e-6)


def test_without_trials_or_values_there_is_no_interval() -> None:
    assert wilson(0, 0) is None
    assert mean_interval([]) is None


def test_one_value_has_a_mean_and_no_bounds() -> None:
    interval = mean_interval([0.5])
    assert interval is not None
    assert interval.estimate == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 3 trials, not 4"):
        wilson(4, 3)
