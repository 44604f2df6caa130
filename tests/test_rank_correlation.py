"""Rank correlations depend on the orders alone, know ties, and say how sure they are."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas_ray import rank_correlation
from nas_ray.rank_correlation import FEWEST, correlate

NUMBERS = st.lists(st.floats(0, 1), min_size=FEWEST, max_size=12)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for these properties, in a moment."""
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 100)


def draw_pairs(count: int, noise: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Two noisy measurements of the same hidden quality."""
    dice = random.Random(seed)
    quality = [dice.random() for _ in range(count)]
    first, second = ([one + dice.gauss(0, noise) for one in quality] for _ in range(2))
    return first, second


def test_same_order_is_one_and_the_reversed_order_minus_one() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.5]
    for sign in (1, -1):
        correlation = correlate(values, [sign * value**3 for value in values])
        assert correlation.count == 5
        assert correlation.spearman == pytest.approx((sign, sign, sign))
        assert correlation.kendall == pytest.approx((sign, sign, sign))


def test_ties_count_as_tau_b_and_average_ranks_say() -> None:
    # Ranks 1, 2.5, 2.5, 4, 5 against 1, 2, 3, 4, 5: rho = 9.5 / sqrt(9.5 * 10). Of ten pairs nine agree and one is
    # tied on the left: tau-b = 9 / sqrt(9 * 10).
    correlation = correlate([1, 2, 2, 3, 4], [1, 2, 3, 4, 5])
    assert correlation.spearman is not None
    assert correlation.kendall is not None
    assert correlation.spearman.estimate == pytest.approx(9.5 / (9.5 * 10) ** 0.5)
    assert correlation.kendall.estimate == pytest.approx(9 / 90**0.5)


@pytest.mark.parametrize("count", range(FEWEST))
def test_too_few_candidates_have_no_correlation(count: int) -> None:
    correlation = correlate(range(count), range(count))
    assert (correlation.count, correlation.spearman, correlation.kendall) == (count, None, None)


def test_a_side_that_is_the_same_for_all_has_no_correlation() -> None:
    assert correlate([0.5] * 9, range(9)).spearman is None
    assert correlate(range(9), [0.5] * 9).kendall is None


def test_pairs_need_a_partner() -> None:
    with pytest.raises(ValueError, match="5 numbers cannot be paired with 6"):
        correlate(range(5), range(6))


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NUMBERS, st.randoms(use_true_random=False))
def test_interval_holds_its_estimate_within_the_possible(first: list[float], dice: random.Random) -> None:
    correlation = correlate(first, [dice.random() for _ in first])
    for interval in (correlation.spearman, correlation.kendall):
        if interval is not None:
            assert -1 - 1e-9 <= interval.low <= interval.high <= 1 + 1e-9
            assert -1 - 1e-9 <= interval.estimate <= 1 + 1e-9


def test_more_candidates_make_the_interval_narrower_and_noise_lowers_the_estimate() -> None:
    def of(count: int, noise: float) -> tuple[float, float]:
        interval = correlate(*draw_pairs(count, noise)).spearman
        assert interval is not None
        return interval.estimate, interval.high - interval.low

    assert of(200, 0.2)[1] < of(20, 0.2)[1]
    assert of(200, 0.5)[0] < of(200, 0.1)[0]


def test_same_pairs_give_the_same_interval_to_the_last_digit() -> None:
    assert correlate(*draw_pairs(20, 0.2)) == correlate(*draw_pairs(20, 0.2))
