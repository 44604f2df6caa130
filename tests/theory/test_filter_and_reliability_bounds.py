"""Bounds, identities and edges of the formulas for token errors (R4), the novelty filter (R5) and reliability (R6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from scipy.integrate import quad, trapezoid
from scipy.special import xlog1py, xlogy
from scipy.stats import binom, norm

from nas_ray.diversity import entropy, jaccard_matrix, vendi_score
from nas_ray.shingles import Shingles
from nas_ray.theory.novelty_filter import (
    diversity_floor,
    entropy_path_bound,
    good_turing,
    hill_numbers,
    loop_yield,
    lsh_areas,
    lsh_curve,
)
from nas_ray.theory.quality_gain import selection_intensity
from nas_ray.theory.reliability import (
    best_repeats,
    design_gain,
    elite_precision,
    intensity_finite,
    rank_agreement,
    repeat_break_even,
    repeats_needed,
    spearman_brown,
)
from nas_ray.theory.reliability_estimates import (
    attenuation,
    icc1,
    icc_sample_size,
    reliability_mixed,
    variance_ratio,
)
from nas_ray.theory.token_errors import (
    delta_vs_full,
    hazard_slope_fit,
    loglinear_fit,
    strict_fit,
    validity_ratio_ci,
)

pytestmark = pytest.mark.filterwarnings("error")

CLOSE = 1e-6


def holds_for(*values: Any, **named: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`given`, without a time limit for an example: the machine may be busy."""
    return lambda test: settings(deadline=None)(given(*values, **named)(test))


shares = some.floats(0, 1)
open_shares = some.floats(0.001, 0.999)
lengths = some.integers(1, 2000)
counted = some.lists(
    some.tuples(lengths, some.integers(0, 60), shares).map(lambda one: (one[0], one[1], round(one[1] * one[2]))),
    max_size=6,
)


def columns(rows: list[tuple[int, int, int]]) -> tuple[list[int], list[int], list[int]]:
    """(L, n, y), as the fits take them."""
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


# R4


@holds_for(L_f=lengths, L_d=lengths, e_f=some.floats(1e-5, 0.01), e_d=some.floats(1e-5, 0.01), phi=some.floats(0, 0.99))
def test_at_either_break_even_a_delta_is_valid_as_often_as_full_code(
    L_f: int, L_d: int, e_f: float, e_d: float, phi: float
) -> None:
    found = delta_vs_full(L_f, L_d, e_f, e_d, phi)
    assert 0 <= found.V_full <= 1
    assert 0 <= found.V_delta <= 1 - phi
    assert found.tokens_per_valid_full >= L_f
    assert found.tokens_per_valid_delta >= L_d
    if found.break_even_L_d >= 0:
        assert delta_vs_full(L_f, found.break_even_L_d, e_f, e_d, phi).ratio == pytest.approx(1)
    if 0 <= found.break_even_phi < 0.999:
        assert delta_vs_full(L_f, L_d, e_f, e_d, found.break_even_phi).ratio == pytest.approx(1)
    assert (found.ratio > 1 + CLOSE) <= (found.break_even_L_d > L_d)
    assert (found.ratio > 1 + CLOSE) <= (found.break_even_phi > phi)


@holds_for(counted)
def test_the_strict_rate_is_the_likeliest_and_lies_inside_its_interval(rows: list[tuple[int, int, int]]) -> None:
    L, n, y = columns(rows)
    found = strict_fit(L, n, y)
    if not sum(n):
        assert math.isnan(found.theta)
        return
    assert 0 <= found.theta_low <= found.theta <= found.theta_high
    assert 0 <= found.e <= 1
    assert found.deviance >= 0
    assert math.isnan(found.p_deviance) or 0 <= found.p_deviance <= 1
    narrow = strict_fit(L, n, y, conf=0.5)
    assert found.theta_low <= narrow.theta_low <= narrow.theta_high <= found.theta_high
    for theta in (found.theta * 0.5, found.theta * 0.99, found.theta * 1.01, found.theta * 2):
        if 0 < theta < math.inf:
            p = np.exp(-theta * np.array(L, dtype=float))
            loglik = np.sum(xlogy(y, p) + xlog1py(np.subtract(n, y), -p))
            assert loglik <= found.loglik + CLOSE


@holds_for(counted, some.integers(2, 50))
def test_the_unit_of_length_is_that_of_the_rate_and_rows_of_equal_length_add_up(
    rows: list[tuple[int, int, int]], unit: int
) -> None:
    L, n, y = columns(rows)
    assume(0 < sum(y) < sum(n))
    found = strict_fit(L, n, y)
    assert strict_fit([one * unit for one in L], n, y).theta == pytest.approx(found.theta / unit, rel=CLOSE)
    twice = strict_fit(L * 2, n * 2, y * 2)
    assert twice.theta == pytest.approx(found.theta, rel=CLOSE)
    assert twice.df == found.df


@holds_for(counted)
def test_a_model_with_one_more_number_fits_no_worse(rows: list[tuple[int, int, int]]) -> None:
    L, n, y = columns(rows)
    strict, slope, line = strict_fit(L, n, y), hazard_slope_fit(L, n, y), loglinear_fit(L, n, y)
    if not math.isnan(slope.beta):
        assert slope.loglik >= strict.loglik - CLOSE
        assert slope.lr_beta1 >= 0
        assert 0 <= slope.p_beta1 <= 1
    if not math.isnan(line.C):
        assert line.loglik >= strict.loglik - CLOSE
        assert 0 <= line.C <= 1
        assert 0 <= line.mu_plus <= 1


@pytest.mark.parametrize(
    ("rows", "theta", "beta"),
    [
        ([], math.nan, math.nan),
        ([(10, 0, 0)], math.nan, math.nan),
        ([(10, 5, 5), (20, 5, 5)], 0.0, math.nan),
        ([(10, 5, 0), (20, 5, 0)], math.inf, math.nan),
        ([(10, 4, 2)], math.log(2) / 10, math.nan),
        ([(10, 5, 5), (20, 5, 0)], 0.0549306, math.inf),
        ([(10, 5, 0), (20, 5, 5)], 0.0405465, -math.inf),
    ],
)
def test_what_counts_cannot_tell_is_nan_or_the_end_that_it_tends_to(
    rows: list[tuple[int, int, int]], theta: float, beta: float
) -> None:
    assert strict_fit(*columns(rows)).theta == pytest.approx(theta, rel=1e-5, nan_ok=True)
    assert hazard_slope_fit(*columns(rows)).beta == pytest.approx(beta, nan_ok=True)
    assert len(loglinear_fit(*columns(rows))) == 6


@pytest.mark.parametrize(("L", "n", "y"), [([10], [5], [6]), ([0], [5], [5]), ([10, 20], [5], [5]), ([10], [5], [-1])])
def test_impossible_counts_are_refused_in_words(L: list[int], n: list[int], y: list[int]) -> None:
    for fit in (strict_fit, hazard_slope_fit, loglinear_fit):
        with pytest.raises(ValueError, match=r"length L|n and y go together|can be valid"):
            fit(L, n, y)


@holds_for(n_d=some.integers(1, 500), n_f=some.integers(1, 500), share_d=shares, share_f=shares)
def test_the_ratio_the_other_way_round_is_its_inverse(n_d: int, n_f: int, share_d: float, share_f: float) -> None:
    y_d, y_f = round(n_d * share_d), round(n_f * share_f)
    there, back = validity_ratio_ci(y_d, n_d, y_f, n_f), validity_ratio_ci(y_f, n_f, y_d, n_d)
    if y_d and y_f:
        assert there.low <= there.ratio <= there.high
        assert (1 / there.high, 1 / there.ratio, 1 / there.low) == pytest.approx((back.low, back.ratio, back.high))
    else:
        assert math.isnan(there.se_log)


# R5


@holds_for(J=shares, b=some.integers(1, 64), r=some.integers(1, 32))
def test_the_chance_of_being_looked_at_rises_with_similarity_through_one_half(J: float, b: int, r: int) -> None:
    found = lsh_curve(J, b, r)
    assert 0 <= found.candidate_prob <= 1
    assert lsh_curve(J * 0.9, b, r).candidate_prob <= found.candidate_prob
    assert lsh_curve(found.J50, b, r).candidate_prob == pytest.approx(0.5)
    assert found.candidate_prob <= lsh_curve(J, b + 1, r).candidate_prob + CLOSE


@holds_for(tau=shares, b=some.integers(1, 40), r=some.integers(1, 20))
def test_the_areas_are_those_under_the_curve(tau: float, b: int, r: int) -> None:
    areas = lsh_areas(tau, b, r)
    below = quad(lambda J: lsh_curve(J, b, r).candidate_prob, 0, tau, limit=200)[0]
    above = quad(lambda J: 1 - lsh_curve(J, b, r).candidate_prob, tau, 1, limit=200)[0]
    assert (areas.false_positive_area, areas.false_negative_area) == pytest.approx((below, above), abs=CLOSE)


@holds_for(some.lists(some.sets(some.integers(0, 12), min_size=1), min_size=1, max_size=12), open_shares)
def test_programs_that_passed_the_filter_are_no_less_different_than_promised(sets: list[set[int]], tau: float) -> None:
    accepted: list[Shingles] = []
    for one in sets:
        new = np.array(sorted(one), dtype=np.uint32)
        if all(jaccard_matrix([old, new])[0, 1] < tau for old in accepted):
            accepted.append(new)
    floor, similarity = diversity_floor(len(accepted), tau), jaccard_matrix(accepted)
    assert floor.log_M == pytest.approx(entropy(range(len(accepted))))
    assert 1 / similarity.mean() >= floor.leinster_cobbold_2 - CLOSE
    assert vendi_score(similarity) >= floor.vendi_2 - CLOSE


@holds_for(
    some.lists(some.floats(0.01, 1), min_size=1, max_size=20),
    some.lists(some.integers(0, 20), max_size=8),
    shares,
    some.randoms(use_true_random=False),
)
def test_a_mixture_keeps_the_entropy_that_is_promised(
    start: list[float], accepted: list[int], a: float, random: Any
) -> None:
    law = np.zeros(20)
    law[: len(start)] = np.array(start) / sum(start)
    promised = entropy_path_bound(-float(np.sum(law[law > 0] * np.log(law[law > 0]))), accepted, a)
    for count in accepted:
        if count:
            law = (1 - a) * law
            law[random.sample(range(20), count)] += a / count
    assert -float(np.sum(law[law > 0] * np.log(law[law > 0]))) >= promised - CLOSE


@holds_for(some.lists(some.integers(0, 30), max_size=20))
def test_estimates_of_kinds_keep_their_order(counts: list[int]) -> None:
    unseen, hill = good_turing(counts), hill_numbers(counts)
    if not sum(counts):
        assert math.isnan(unseen.unseen_mass)
        assert math.isnan(hill.D1)
        return
    assert 0 <= unseen.unseen_mass <= 1
    assert unseen.se >= 0
    assert unseen.chao1_bc >= hill.D0
    assert hill.D0 + CLOSE >= hill.D1 >= hill.D2 - CLOSE
    assert hill.D2 + CLOSE >= hill.Dinf >= 1


@holds_for(N=some.integers(0, 1000), v=shares, p_elite=shares, nu=shares)
def test_a_cycle_without_pairs_is_no_rarer_than_its_mean_says(N: int, v: float, p_elite: float, nu: float) -> None:
    found = loop_yield(N, v, p_elite, nu)
    assert 0 <= found.expected <= N
    assert max(0.0, 1 - found.expected) - CLOSE <= found.prob_zero <= math.exp(-found.expected) + CLOSE


@pytest.mark.parametrize(
    "call",
    [
        lambda: lsh_curve(1.1, 3, 3),
        lambda: lsh_areas(0.5, 0, 3),
        lambda: diversity_floor(-1, 0.5),
        lambda: entropy_path_bound(-1, [3], 0.5),
        lambda: entropy_path_bound(1, [-3], 0.5),
        lambda: good_turing([-1]),
        lambda: loop_yield(-1, 0.5, 0.5, 0.5),
        lambda: delta_vs_full(10, 10, 1, 0, 0),
        lambda: validity_ratio_ci(3, 2, 1, 2),
        lambda: rank_agreement(-1, 1),
        lambda: intensity_finite(3, 2),
        lambda: elite_precision(1.1, 0.1),
        lambda: spearman_brown(0.5, 0),
        lambda: repeats_needed(0.5, 1),
        lambda: repeat_break_even(0),
        lambda: best_repeats(3, 5, 0.5),
        lambda: design_gain(10, 1, 0, 1, 0.5, 0.5),
        lambda: design_gain(10, 1, 1, 1, 0.5, 1.5),
        lambda: reliability_mixed(-1, 10, 1, 10),
        lambda: attenuation(1.1, 0.5, 0.5, 10),
        lambda: attenuation(0.5, 1.5, 0.5, 10),
        lambda: icc_sample_size(0.5, 1, 0.3),
        lambda: variance_ratio(-1, 3, 1, 3),
    ],
)
def test_an_impossible_number_is_refused_in_words(call: Any) -> None:
    with pytest.raises(ValueError, match=r"\w+ .* \w+"):
        call()


# R6


@holds_for(sigma_a=some.floats(0, 10), sigma_n=some.floats(0, 10))
def test_two_noisy_orders_agree_less_than_one_does_with_the_truth(sigma_a: float, sigma_n: float) -> None:
    assume(math.hypot(sigma_a, sigma_n) > 1e-6)
    found = rank_agreement(sigma_a, sigma_n)
    assert 0.5 <= found.seed_seed_pair_agree <= found.pair_correct + CLOSE <= 1 + CLOSE
    assert found.pair_correct == pytest.approx(0.5 + math.atan2(sigma_a, sigma_n) / math.pi)
    assert 0 <= found.kendall_tau <= found.spearman + CLOSE
    assert rank_agreement(sigma_a + 1, sigma_n).pair_correct >= found.pair_correct - CLOSE


@holds_for(N=some.integers(2, 400), share=shares)
def test_the_best_and_the_rest_balance_and_few_are_less_extreme_than_many(N: int, share: float) -> None:
    k = min(max(1, round(share * N)), N - 1)
    found = intensity_finite(k, N)
    assert k * found.i == pytest.approx((N - k) * intensity_finite(N - k, N).i, rel=CLOSE)
    assert 0 < found.i < selection_intensity(k / N).i
    assert intensity_finite(k + 1, N).i < found.i


@holds_for(k=some.integers(1, 12), rest=some.integers(1, 80))
def test_the_finite_intensity_is_the_mean_of_the_best_by_quadrature(k: int, rest: int) -> None:
    N = k + rest
    x = np.linspace(-9, 9, 4001)
    whole = trapezoid(x * norm.pdf(x) * binom.cdf(k - 1, N - 1, norm.sf(x)), x)
    assert intensity_finite(k, N).i == pytest.approx(N / k * whole, rel=CLOSE)


@holds_for(R=shares, more=shares, rho=open_shares)
def test_elites_belong_there_more_often_than_by_chance_and_ever_more_with_reliability(
    R: float, more: float, rho: float
) -> None:
    found, better = elite_precision(R, rho), elite_precision(R + (1 - R) * more, rho)
    assert rho - CLOSE <= found.precision <= better.precision + CLOSE <= 1 + 2 * CLOSE
    assert found.misclassified == pytest.approx(2 * rho * (1 - found.precision), abs=CLOSE)
    assert found.Lambda >= 1 - CLOSE


@pytest.mark.parametrize(
    ("R", "precision", "Lambda"), [(-0.3, 0.1, 1.0), (0, 0.1, 1.0), (1, 1.0, math.inf), (math.nan, math.nan, math.nan)]
)
def test_no_and_full_reliability_are_the_ends_of_precision(R: float, precision: float, Lambda: float) -> None:
    found = elite_precision(R, 0.1)
    assert found.precision == pytest.approx(precision, nan_ok=True)
    assert found.Lambda == pytest.approx(Lambda, nan_ok=True)


@holds_for(R=shares, m=some.integers(1, 30), again=some.integers(1, 30))
def test_repeats_of_repeats_are_repeats(R: float, m: int, again: int) -> None:
    once = spearman_brown(R, m)
    assert R - CLOSE <= once <= 1
    assert spearman_brown(once, again) == pytest.approx(spearman_brown(R, m * again))


@holds_for(R=some.floats(0.01, 0.99), target=some.floats(0, 0.99))
def test_the_repeats_needed_are_enough_and_one_less_is_not(R: float, target: float) -> None:
    needed = repeats_needed(R, target)
    assert spearman_brown(R, needed.m) >= target - CLOSE
    assert needed.m == 1 or spearman_brown(R, needed.m - 1) < target + CLOSE


def test_no_number_of_repeats_makes_a_proxy_of_pure_noise_reliable() -> None:
    assert repeats_needed(0, 0.8) == repeats_needed(-0.1, 0.8) == (math.inf, math.inf)
    assert repeats_needed(1, 0.8).m == repeats_needed(0.5, 0).m == 1
    assert spearman_brown(-0.1, 5) == 0


@holds_for(rho=some.floats(0.001, 0.5))
def test_at_the_break_even_half_of_the_programs_twice_is_as_good_as_all_once(rho: float) -> None:
    R = repeat_break_even(rho)
    assert -1 <= R < 1
    if R > 0:
        twice = math.sqrt(spearman_brown(R, 2)) * selection_intensity(2 * rho).i
        assert twice == pytest.approx(math.sqrt(R) * selection_intensity(rho).i)
    else:
        assert rho > 0.15


def test_without_half_of_the_programs_to_spare_there_is_no_break_even() -> None:
    assert repeat_break_even(0.5) == -1
    assert math.isnan(repeat_break_even(0.51))


@holds_for(B=some.integers(1, 200), share=open_shares, R=shares)
def test_the_best_number_of_repeats_is_the_best_of_those_that_can_be_paid_for(B: int, share: float, R: float) -> None:
    k = max(1, round(B * share))
    found = best_repeats(B, k, R)
    assert found.best_m is not None
    assert found.gains_in_sd[found.best_m - 1] == np.nanmax(found.gains_in_sd)
    assert all(math.isnan(gain) == (B // m < k) for m, gain in enumerate(found.gains_in_sd, 1))


@holds_for(
    budget=some.integers(0, 300),
    keep=some.integers(1, 10),
    epochs=some.floats(0.5, 20),
    seeds=some.integers(1, 5),
    R1=shares,
    rho_f=some.floats(-1, 1),
)
def test_a_design_gains_at_most_what_a_perfect_proxy_would(
    budget: int, keep: int, epochs: float, seeds: int, R1: float, rho_f: float
) -> None:
    found = design_gain(budget, keep, epochs, seeds, R1, rho_f)
    assert found.N * epochs * seeds <= budget * (1 + CLOSE)
    if keep > found.N:
        assert math.isnan(found.gain_in_sd)
    else:
        assert abs(found.gain_in_sd) <= abs(rho_f) * intensity_finite(keep, found.N).i + CLOSE


scores = some.lists(some.lists(some.integers(-50, 50), min_size=0, max_size=5), max_size=8)


@holds_for(scores)
def test_the_intraclass_correlation_is_within_its_bounds_whatever_the_scores(groups: list[list[int]]) -> None:
    found = icc1(groups)
    if math.isfinite(found.ICC):
        assert found.ICC <= 1
        assert found.n0 >= 1
        assert found.sigma_n2 >= 0
    if math.isfinite(found.ci_low):
        assert found.ci_low <= found.ci_high <= 1
        if len({len(group) for group in groups if group}) == 1:
            assert found.ci_low - CLOSE <= found.ICC <= found.ci_high + CLOSE
            assert math.isclose(found.F_TH, found.F, rel_tol=CLOSE, abs_tol=CLOSE)
    elif found.df1 and found.df2 and found.MSW:
        pytest.fail("two programs and a repeated run have an interval")


@holds_for(scores, some.integers(-1000, 1000), some.integers(1, 100))
def test_neither_the_unit_of_the_scores_nor_the_order_of_the_programs_matters(
    groups: list[list[int]], shift: int, unit: int
) -> None:
    moved = [[unit * (score + shift) for score in group] for group in reversed(groups)]
    assert pytest.approx(icc1(groups).ICC, nan_ok=True, abs=CLOSE) == icc1(moved).ICC


@pytest.mark.parametrize(
    ("groups", "icc", "low"),
    [
        ([], math.nan, math.nan),
        ([[0.5, 0.6]], math.nan, math.nan),
        ([[0.5], [0.6]], math.nan, math.nan),
        ([[0.5, 0.5], [0.5, 0.5]], math.nan, math.nan),
        ([[0.1, 0.1, 0.1], [0.2, 0.2]], 1.0, 1.0),
    ],
)
def test_scores_without_repeats_or_without_differences_have_no_reliability(
    groups: list[list[float]], icc: float, low: float
) -> None:
    found = icc1(groups)
    assert (found.ICC, found.ci_low) == pytest.approx((icc, low), nan_ok=True)


@holds_for(some.floats(0, 10), some.integers(0, 300), some.floats(0, 10), some.integers(0, 300))
def test_reliability_from_two_variances_lies_inside_its_interval(
    var_scores: float, n_scores: int, var_noise: float, df_noise: int
) -> None:
    assume(var_scores == 0 or var_scores > 1e-6)
    found = reliability_mixed(var_scores, n_scores, var_noise, df_noise)
    if n_scores < 2 or df_noise < 1 or not var_scores:
        assert math.isnan(found.R)
    else:
        assert found.ci_low <= found.R <= found.ci_high <= 1


@holds_for(r=some.floats(-1, 1), R1=some.floats(0.01, 1), RF=some.floats(0.01, 1), n=some.integers(0, 500))
def test_noise_hides_correlation_and_never_its_sign(r: float, R1: float, RF: float, n: int) -> None:
    found = attenuation(r, R1, RF, n)
    assert abs(found.rho_fidelity) >= abs(r) - CLOSE
    assert found.rho_fidelity * r >= 0
    if n > 3:
        assert found.ci_low - CLOSE <= found.rho_fidelity <= found.ci_high + CLOSE
    assert math.isnan(attenuation(r, 0, RF, n).rho_fidelity)
    assert math.isnan(attenuation(r, -0.2, RF, n).ci_low)


@holds_for(R=shares, m=some.integers(2, 10), width=some.floats(0.05, 1))
def test_a_narrower_interval_needs_more_programs(R: float, m: int, width: float) -> None:
    found = icc_sample_size(R, m, width)
    assert found.n_real - CLOSE <= found.n < found.n_real + 1
    assert icc_sample_size(R, m, width / 2).n >= found.n


@holds_for(
    one=some.floats(0.01, 100), two=some.floats(0.01, 100), df=some.integers(1, 200), other=some.integers(1, 200)
)
def test_two_variances_the_other_way_round_have_the_inverse_ratio(one: float, two: float, df: int, other: int) -> None:
    there, back = variance_ratio(one, df, two, other), variance_ratio(two, other, one, df)
    assert there.low <= there.ratio <= there.high
    assert 1 / there.low == pytest.approx(back.high)
    assert there.p == pytest.approx(back.p)
    assert (there.p < 0.05) == (not there.low <= 1 <= there.high) or there.p == pytest.approx(0.05)


def test_variances_that_are_nothing_or_unknown_have_no_ratio() -> None:
    assert math.isnan(variance_ratio(0, 5, 0, 5).ratio)
    assert math.isnan(variance_ratio(1, 0, 1, 5).p)
    assert variance_ratio(1, 5, 0, 5) == (math.inf, math.inf, math.inf, 0)
