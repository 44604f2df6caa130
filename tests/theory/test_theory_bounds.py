"""R1 to R3 keep the bounds and identities that their statements promise, for any input; fits survive any counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_ray.theory.convergence import (
    cycles_to_target_quantile,
    leaky_path,
    leaky_rate,
    never_sampled_prob,
    quantile_path,
)
from nas_ray.theory.cross_entropy import (
    alpha_from_elite_counts,
    alpha_from_gain,
    elite_gain,
    forecast_elite_rate,
    likelihood_gain,
    temperature_ratchet,
)
from nas_ray.theory.elite_rate_fits import (
    akaike,
    cycles_to_target_fit,
    geom_fit,
    logistic_fit,
    no_learning_lrt,
    plateau_fit,
    quantile_fit,
)
from nas_ray.theory.quality_gain import (
    drift_heterozygosity,
    gaussian_ce_limit,
    gaussian_gain,
    monotonicity_test,
    n_per_cycle,
    selection_intensity,
    welch_lcb_diff,
    winners_curse,
)

ROUNDING = 1e-9

shares = st.floats(0, 1)
inner_shares = st.floats(1e-3, 1 - 1e-3)
rates = st.floats(1e-3, 1)
spreads = st.floats(1e-3, 10)
ratios = st.floats(1, 1e3) | st.just(math.inf)
scores = st.floats(-10, 10)


@st.composite
def elite_counts(draw: st.DrawFn, fewest: int = 1) -> tuple[list[int], list[int], list[int]]:
    """Cycles, draws and elites; zeros, full cycles, gaps and falling rates are all among them."""
    cycles = sorted(draw(st.sets(st.integers(0, 25), min_size=fewest, max_size=8)))
    drawn = [draw(st.integers(1, 60)) for _ in cycles]
    elites = [draw(st.just(0) | st.just(count) | st.integers(0, count)) for count in drawn]
    return cycles, drawn, elites


def binomial(elites: Any, drawn: Any, share: Any) -> float:
    """Log-likelihood without the coefficients, written apart from the one that is tested."""
    total = 0.0
    for k, n, p in zip(elites, drawn, share, strict=True):
        if (p <= 0 < k) or (p >= 1 and k < n):
            return -math.inf
        total += (k * math.log(p) if k else 0.0) + ((n - k) * math.log(1 - p) if k < n else 0.0)
    return total


@given(rates, shares)
def test_the_elites_ratio_is_a_law_and_within_its_bound(Z: float, a: float) -> None:
    gain = elite_gain(Z, a)
    assert gain.log_ratio_off_elite <= 0 <= gain.log_ratio_on_elite <= gain.gain_bound + ROUNDING
    total = Z * math.exp(gain.log_ratio_on_elite) + (1 - Z) * math.exp(gain.log_ratio_off_elite)
    assert total == pytest.approx(1)
    if Z < 1 - 1e-6:  # nearer to 1 the ratio that a is read off is rounding
        assert alpha_from_gain(gain.log_ratio_on_elite, Z) == pytest.approx(a, abs=1e-9)


@given(st.integers(1, 80), st.integers(1, 80), shares, shares)
def test_the_counted_weight_lies_in_its_interval(N0: int, N1: int, first: float, second: float) -> None:
    found = alpha_from_elite_counts(round(first * (N0 - 1)), N0, round(second * (N1 - 1)), N1)
    assert found.ci_low <= found.alpha <= found.ci_high <= 1
    assert alpha_from_elite_counts(0, N0, N1, N1).alpha == 1
    assert math.isnan(alpha_from_elite_counts(N0, N0, 0, N1).alpha)


@given(st.lists(st.floats(1e-3, 1), min_size=2, max_size=8), st.floats(0.2, 1), st.integers(0, 8))
def test_cool_sampling_only_sharpens(weights: list[float], T: float, n: int) -> None:
    start, later = temperature_ratchet(weights, T, 0), temperature_ratchet(weights, T, n)
    assert later.p_n.sum() == pytest.approx(1)
    assert later.entropy <= start.entropy + ROUNDING
    assert np.argmax(weights) in np.flatnonzero(later.p_n == later.p_n.max())
    stepwise = start.p_n
    for _ in range(n):
        stepwise = stepwise ** (1 / T) / (stepwise ** (1 / T)).sum()
    np.testing.assert_allclose(later.p_n, stepwise, rtol=1e-6, atol=1e-12)


def test_a_law_that_is_sharpened_without_end_keeps_its_likeliest() -> None:
    np.testing.assert_allclose(temperature_ratchet([0.5, 0.5, 0.0], 0.01, 10_000).p_n, [0.5, 0.5, 0])


@given(rates, st.lists(st.floats(-50, 800), min_size=1, max_size=20))
def test_the_conservative_forecast_is_the_lower_one(Z: float, gains: list[float]) -> None:
    forecast = forecast_elite_rate(Z, gains)
    assert 0 <= forecast.conservative <= forecast.identity * (1 + ROUNDING)
    assert forecast.identity <= 1


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=30))
def test_the_likelihood_gain_agrees_with_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    before, after = zip(*pairs, strict=True)
    gain = likelihood_gain(before, after)
    falls = np.subtract(before, after)
    assume(falls.std() > 1e-6)
    expected = stats.ttest_rel(before, after).confidence_interval(0.95)
    assert (gain.n, gain.gain) == (len(pairs), pytest.approx(falls.mean(), abs=1e-9))
    assert gain.se == pytest.approx(stats.sem(falls))
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_without_programs_there_is_no_gain_and_no_forecast() -> None:
    none, one = likelihood_gain([], []), likelihood_gain([3.0], [1.0])
    assert none.n == 0
    assert all(math.isnan(value) for value in none[1:])
    assert one[:2] == (1, 2.0)
    assert all(math.isnan(value) for value in one[2:])
    assert all(math.isnan(value) for value in forecast_elite_rate(0.5, []))


@given(st.floats(1e-4, 1 - 1e-4))
def test_the_intensity_is_that_of_scipys_truncated_normal(rho: float) -> None:
    z, i, k = selection_intensity(rho)
    mean, variance = stats.truncnorm.stats(z, math.inf, moments="mv")
    assert stats.norm.sf(z) == pytest.approx(rho)
    assert (i, 1 - k) == pytest.approx((mean, variance), rel=1e-5, abs=1e-6)
    assert 0 <= k <= 1


@given(spreads, st.floats(0, 10), inner_shares, shares)
def test_noise_and_replay_only_cost_gain(sigma_a: float, sigma_n: float, rho: float, a: float) -> None:
    noisy, clean = gaussian_gain(sigma_a, sigma_n, rho, a), gaussian_gain(sigma_a, 0, rho, 1)
    assert 0 <= noisy.gain <= clean.gain * (1 + ROUNDING)
    assert 0 <= noisy.R <= clean.R == 1
    assert noisy.var_next >= 0
    # What the elites' scores exceed the mean by is true gain and luck, and nothing else.
    lift = selection_intensity(rho).i * math.hypot(sigma_a, sigma_n)
    assert lift == pytest.approx(winners_curse(sigma_a, sigma_n, rho) + gaussian_gain(sigma_a, sigma_n, rho, 1).gain)


def test_where_nothing_varies_nothing_is_gained() -> None:
    assert gaussian_gain(0, 0, 0.1, 1)[1:] == (0, 0)
    assert winners_curse(0, 0, 0.1) == 0


@given(inner_shares, rates)
def test_the_variance_collapses_exactly_above_the_critical_weight(rho: float, a: float) -> None:
    limit = gaussian_ce_limit(rho, a)
    assume(abs(a - limit.a_crit) > 1e-6)
    assert (limit.var_factor < 1) == (a > limit.a_crit) == math.isfinite(limit.total_gain_in_sd)
    assert limit.total_gain_in_sd > 0


@given(scores, spreads, st.integers(2, 60), scores, spreads, st.integers(2, 60))
def test_the_gain_between_cycles_agrees_with_scipys_welch(
    mean0: float, sd0: float, n0: int, mean1: float, sd1: float, n1: int
) -> None:
    found = welch_lcb_diff(mean0, sd0, n0, mean1, sd1, n1)
    expected = stats.ttest_ind_from_stats(mean1, sd1, n1, mean0, sd0, n0, equal_var=False, alternative="greater")
    assert found.p_one_sided == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.df >= min(n0, n1) - 1 - ROUNDING
    assert found.lcb < found.diff
    assert (found.lcb > 0) == (found.p_one_sided < 0.05) or found.p_one_sided == pytest.approx(0.05)


def test_a_difference_without_spread_or_without_a_second_program_is_still_told() -> None:
    assert welch_lcb_diff(0.5, 0, 9, 0.6, 0, 9)[3:] == (pytest.approx(0.6 - 0.5), 0)
    assert welch_lcb_diff(0.5, 0, 9, 0.5, 0, 9).p_one_sided == 0.5
    assert welch_lcb_diff(0.6, 0, 9, 0.5, 0, 9).p_one_sided == 1
    single = welch_lcb_diff(0.5, 0.0, 1, 0.6, 0.1, 9)
    assert single.diff == pytest.approx(0.1)
    assert all(math.isnan(value) for value in single[1:])


@given(st.floats(0.01, 1), spreads, spreads, st.floats(0.01, 0.2), st.floats(0.3, 0.99))
def test_the_planned_size_has_the_power_asked_for(
    gain: float, sd0: float, sd1: float, alpha: float, power: float
) -> None:
    size = n_per_cycle(gain, sd0, sd1, alpha, power)
    se = math.sqrt((sd0**2 + sd1**2) / size.n_real)
    assert stats.norm.sf(stats.norm.isf(alpha) - gain / se) == pytest.approx(power)
    assert size.n - 1 < size.n_real <= size.n


@given(st.lists(scores, min_size=1, max_size=15), spreads)
def test_the_isotonic_fit_rises_and_keeps_the_mean(means: list[float], se: float) -> None:
    found = monotonicity_test(means, se)
    assert (np.diff(found.isotonic_fit) >= -ROUNDING).all()
    assert found.isotonic_fit.mean() == pytest.approx(np.mean(means), abs=1e-9)
    assert 0 <= found.p <= 1
    assert monotonicity_test(sorted(means), se).p == 1
    assert monotonicity_test([means[0]] * len(means), se).p == 1


@given(shares, st.integers(1, 50), shares, st.integers(0, 40))
def test_drift_only_loses_diversity(H0: float, n: int, a: float, t: int) -> None:
    drift = drift_heterozygosity(H0, n, a, t)
    assert 0 <= drift.H_t <= H0
    if 0 < drift.half_life < 1e6:
        assert drift_heterozygosity(H0, n, a, drift.half_life).H_t == pytest.approx(H0 / 2)


@given(shares, shares, ratios, st.integers(0, 40))
def test_the_leaky_path_stays_over_its_bound(P0: float, a: float, Lam: float, t: int) -> None:
    path = leaky_path(P0, a, Lam, t)
    assert path.P.shape == path.bound.shape == (t + 1,)
    assert (path.P - path.bound >= -ROUNDING).all()
    assert (np.diff(path.P) >= -ROUNDING).all()
    assert path.P.max() <= 1 + ROUNDING
    rate = leaky_rate(P0, a, Lam)
    assert rate.asymptotic_rate - ROUNDING <= rate.one_step_ratio <= 1
    if P0 > 0:
        perfect = 1 - (1 - P0) * (1 - a) ** np.arange(t + 1)
        np.testing.assert_allclose(leaky_path(P0, a, math.inf, t).P, perfect, atol=1e-9)


@given(st.floats(1e-4, 1), shares, inner_shares, st.integers(0, 60))
def test_the_quantile_path_stays_over_its_geometric_bound(P0: float, a: float, rho: float, t: int) -> None:
    path = quantile_path(P0, a, rho, t)
    odds = (P0 / (1 - P0) if P0 < 1 else math.inf) / (rho / (1 - rho))
    bound = 1 - (1 - P0) * (1 - a * min(1.0, odds)) ** np.arange(t + 1)
    assert (path >= bound - ROUNDING).all()
    assert (path <= 1 + ROUNDING).all()


@given(st.floats(1e-3, 1), st.floats(0.02, 1), inner_shares, st.floats(0.01, 0.99))
def test_the_cycles_to_a_target_are_those_of_the_path(P0: float, a: float, rho: float, target: float) -> None:
    cycles = cycles_to_target_quantile(P0, a, rho, target)
    path = quantile_path(P0, a, rho, int(cycles))
    assert path[-1] >= target * (1 - 1e-6)
    assert cycles == 0 or path[-2] < target * (1 + 1e-6)


def test_a_target_out_of_reach_takes_for_ever() -> None:
    assert cycles_to_target_quantile(0.1, 0, 0.2, 0.9) == math.inf
    assert cycles_to_target_quantile(0.1, 0.5, 0.2, 1) == math.inf
    assert cycles_to_target_quantile(0.1, 1, 0.2, 1) == 2


@given(shares, shares, st.integers(0, 200), st.integers(0, 60))
def test_the_miss_probability_is_within_its_bound(P0: float, a: float, N: int, T: int) -> None:
    found = never_sampled_prob(P0, a, N, T)
    assert 0 <= found.exact <= found.bound * (1 + 1e-6) <= 1 + 1e-6
    assert found.bound_infinite <= found.bound * (1 + 1e-6)
    if a == 1 and T > 0 and P0 < 1:
        assert found.exact == pytest.approx((1 - P0) ** N)


@settings(deadline=None, max_examples=150)
@given(elite_counts(), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_no_other_line_fits_better_than_the_geometric_fit(
    counts: tuple[list[int], list[int], list[int]], shift: float, turn: float
) -> None:
    cycles, drawn, elites = counts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit, test = geom_fit(cycles, drawn, elites), no_learning_lrt(cycles, drawn, elites)
    assert ((fit.fitted >= 0) & (fit.fitted <= 1)).all()
    assert fit.loglik == pytest.approx(binomial(elites, drawn, fit.fitted), rel=1e-6, abs=1e-6)
    assert fit.deviance >= 0
    if len(cycles) > 1:
        assert 0 <= test.p_one_sided <= 1
        assert test.lr >= 0
    if math.isfinite(fit.b1):
        assert 0 <= fit.r_ci_low <= fit.r * (1 + ROUNDING) <= fit.r_ci_high * (1 + 1e-6)
        other = [1 - math.exp(min(0.0, fit.b0 + shift + (fit.b1 + turn) * cycle)) for cycle in cycles]
        # A line over the bound is no law; cut at the bound it may fit a shade better, so it is left out.
        if all(fit.b0 + shift + (fit.b1 + turn) * cycle <= 0 for cycle in cycles):
            assert binomial(elites, drawn, other) <= fit.loglik + 1e-7
        assert (test.p_one_sided <= 0.5) or fit.b1 > -1e-6


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(elite_counts(), inner_shares, shares)
def test_no_other_start_and_weight_fit_better_than_the_quantile_fit(
    counts: tuple[list[int], list[int], list[int]], P0: float, a: float
) -> None:
    cycles, drawn, elites = counts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = quantile_fit(cycles, drawn, elites, 0.2)
    if math.isnan(fit.a):
        return
    assert 0 <= fit.a_low <= fit.a + 1e-7
    assert fit.a - 1e-7 <= fit.a_high <= 1
    assert 0 <= fit.P0 <= 1
    path = quantile_path(P0, a, 0.2, cycles[-1])[cycles]
    assert binomial(elites, drawn, path) <= fit.loglik + 1e-6


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(elite_counts(), shares, shares, shares)
def test_no_other_plateau_and_no_other_logistic_curve_fit_better(
    counts: tuple[list[int], list[int], list[int]], plateau: float, A0: float, r: float
) -> None:
    cycles, drawn, elites = counts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat, logistic = plateau_fit(cycles, drawn, elites), logistic_fit(cycles, drawn, elites)
    other = plateau - (plateau - A0) * r ** np.array(cycles, dtype=float)
    assert binomial(elites, drawn, other) <= flat.loglik + 1e-5
    geometric = geom_fit(cycles, drawn, elites)
    if geometric.r < 1 and geometric.b0 <= 0:
        assert geometric.loglik <= flat.loglik + 1e-4
    for c0, c1 in ((A0, r), (-3 * plateau, r / 5), (A0, -r)):
        curve = 1 / (1 + np.exp(-(c0 + c1 * np.array(cycles))))
        assert binomial(elites, drawn, curve) <= logistic.loglik + 1e-6
    assert logistic.deviance >= 0


def test_the_fits_recover_the_laws_that_expected_counts_follow() -> None:
    cycles = np.arange(10)
    drawn = np.full(10, 200.0)
    geometric = geom_fit(cycles, drawn, drawn * (1 - 0.9 * 0.8**cycles))
    assert (geometric.g0, geometric.r) == pytest.approx((0.9, 0.8))
    flat = plateau_fit(cycles, drawn, drawn * (0.6 - 0.5 * 0.7**cycles))
    assert flat[:3] == pytest.approx((0.6, 0.1, 0.7), rel=1e-4)
    grown = quantile_fit(cycles, drawn, drawn * quantile_path(0.02, 0.3, 0.1, 9), 0.1)
    assert (grown.P0, grown.a) == pytest.approx((0.02, 0.3), rel=1e-5)
    logistic = logistic_fit(cycles, drawn, drawn / (1 + np.exp(3 - 0.5 * cycles)))
    assert (logistic.c0, logistic.c1) == pytest.approx((-3, 0.5))
    forecast = cycles_to_target_fit(
        *(getattr(geometric, key) for key in ("b0", "b1", "se_b0", "se_b1", "cov_b0b1")), 0.9
    )
    assert forecast[0] == pytest.approx(math.log(0.1 / 0.9) / math.log(0.8))
    assert forecast.fieller_low < forecast.T < forecast.fieller_high


ALL = [10, 10, 10, 10]


@pytest.mark.parametrize(
    ("elites", "r", "interval"),
    [
        pytest.param([0, 0, 0, 0], 1.0, True, id="no elite at all"),
        pytest.param([10, 10, 10, 10], math.nan, False, id="nothing but elites"),
        pytest.param([0, 10, 10, 10], 0.0, True, id="all in one step"),
        pytest.param([10, 10, 10, 0], math.inf, True, id="all lost in the last cycle"),
        pytest.param([0, 3, 5, 7], None, True, id="none in the first cycle"),
        pytest.param([7, 5, 3, 0], None, True, id="falling to none"),
        pytest.param([4, 4, 4, 4], 1.0, True, id="no trend"),
    ],
)
def test_the_geometric_fit_knows_its_boundaries(elites: list[int], r: float | None, interval: bool) -> None:
    fit = geom_fit(range(4), ALL, elites)
    if r is not None:
        assert fit.r == pytest.approx(r, nan_ok=True)
    if interval:
        assert fit.r_ci_low <= fit.r <= fit.r_ci_high
    else:
        assert math.isnan(fit.r_ci_low)
        assert math.isnan(fit.r_ci_high)
    if 0 in (elites[0], elites[-1]):
        assert math.isnan(fit.se_b0)
        assert math.isnan(fit.se_b1)


def test_one_cycle_has_a_share_and_no_rate() -> None:
    fit = geom_fit([0], [40], [10])
    assert fit.fitted == pytest.approx([0.25])
    assert fit.g0 == pytest.approx(0.75)
    assert math.isnan(fit.r)
    assert fit.df == 0
    assert math.isnan(fit.p_deviance)
    assert math.isnan(no_learning_lrt([3], [40], [10]).lr)
    assert quantile_fit([0], [40], [10], 0.1).P0 == 0.25
    assert math.isnan(plateau_fit([0], [40], [10]).plateau)


def test_two_cycles_are_fitted_exactly() -> None:
    fit = geom_fit([0, 1], [40, 40], [10, 20])
    assert fit.fitted == pytest.approx([0.25, 0.5])
    assert fit.deviance == pytest.approx(0, abs=1e-9)
    assert fit.r_ci_low < fit.r < fit.r_ci_high


def test_a_cycle_without_draws_is_left_out_of_the_fit_and_still_has_a_fitted_share() -> None:
    with_gap, without = (
        geom_fit([0, 1, 2, 3], [40, 0, 40, 40], [4, 0, 9, 15]),
        geom_fit([0, 2, 3], [40] * 3, [4, 9, 15]),
    )
    assert (with_gap.r, with_gap.df) == pytest.approx((without.r, without.df))
    assert with_gap.fitted[1] == pytest.approx(1 - with_gap.g0 * with_gap.r)


def test_a_rate_that_falls_is_no_learning() -> None:
    test = no_learning_lrt([0, 1, 2, 3], [100] * 4, [40, 30, 20, 10])
    assert test.p_one_sided > 0.99
    fit = geom_fit([0, 1, 2, 3], [100] * 4, [40, 30, 20, 10])
    forecast = cycles_to_target_fit(fit.b0, fit.b1, fit.se_b0, fit.se_b1, fit.cov_b0b1, 0.9)
    assert math.isinf(forecast.T)
    assert not forecast.bounded


def test_a_fit_on_its_bound_has_a_forecast_without_interval() -> None:
    fit = geom_fit([0, 1, 2, 3], ALL, [0, 3, 5, 7])
    forecast = cycles_to_target_fit(fit.b0, fit.b1, fit.se_b0, fit.se_b1, fit.cov_b0b1, 0.9)
    assert math.isfinite(forecast.T)
    assert not forecast.bounded
    assert all(math.isnan(value) for value in (forecast.se_delta, forecast.delta_low, forecast.fieller_high))


def test_the_criterion_prefers_the_law_that_made_the_counts() -> None:
    cycles = np.arange(12)
    drawn = np.full(12, 300.0)
    elites = drawn * (0.5 - 0.45 * 0.5**cycles)
    line = akaike(geom_fit(cycles, drawn, elites).loglik, 2)
    assert akaike(plateau_fit(cycles, drawn, elites).loglik, 3) < line


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: geom_fit([0, 1], [5, 5], [1, 6]), "6 elites of 5 draws"),
        (lambda: geom_fit([0, 1], [5, 5], [1, -1]), "-1 elites"),
        (lambda: logistic_fit([0, 1], [5, 5], [1]), "one length"),
        (lambda: plateau_fit([], [], []), "no cycle drew"),
        (lambda: no_learning_lrt([0, 1], [0, 0], [0, 0]), "no cycle drew"),
        (lambda: geom_fit([-1, 1], [5, 5], [1, 1]), "at least 0"),
        (lambda: quantile_fit([0, 1.5], [5, 5], [1, 1], 0.1), "whole cycles"),
        (lambda: quantile_fit([0, 1], [5, 5], [1, 1], 1.0), "rho"),
        (lambda: cycles_to_target_fit(-0.1, -0.1, 0.1, 0.1, 0, 1.0), "target"),
        (lambda: alpha_from_elite_counts(1, 0, 1, 5), "K0 is 1"),
        (lambda: elite_gain(0, 0.5), "Z"),
        (lambda: temperature_ratchet([0, 0], 0.5, 1), "weights"),
        (lambda: likelihood_gain([1], []), "paired"),
        (lambda: forecast_elite_rate(0.5, [math.nan]), "finite"),
        (lambda: selection_intensity(0), "rho"),
        (lambda: gaussian_gain(-1, 1, 0.1, 1), "sigma_a"),
        (lambda: n_per_cycle(0, 1, 1), "gain"),
        (lambda: n_per_cycle(1, 1, 1, alpha=0.5, power=0.4), "coin"),
        (lambda: monotonicity_test([], 1), "means"),
        (lambda: monotonicity_test([1], 0), "se"),
        (lambda: leaky_rate(0.5, 0.5, 0.9), "Lam"),
        (lambda: never_sampled_prob(0.5, 2, 1, 1), "a is a share"),
    ],
)
def test_impossible_inputs_are_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
