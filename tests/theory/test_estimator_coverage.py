"""Intervals hold the truth as often as they say, by simulation: 95 % of RUNS samples from a known law.

Exact intervals must cover 0.95 within 4 standard errors of a binomial of RUNS (0.020): 6 in 100,000 sound tests would
fail, and the seeds are fixed. Approximate ones (likelihood, normal) may be off by 0.015 more on either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from nas_ray.theory.novelty_filter import good_turing
from nas_ray.theory.reliability_estimates import attenuation, icc1, reliability_mixed, variance_ratio
from nas_ray.theory.token_errors import strict_fit, validity_ratio_ci

pytestmark = pytest.mark.slow

LEVEL = 0.95
RUNS = 2000
BINOMIAL = 4 * math.sqrt(LEVEL * (1 - LEVEL) / RUNS)
APPROXIMATE = 0.015

Draw = Callable[[np.random.Generator], tuple[float, float, float]]  # (low, truth, high)


def coverage(draw: Draw, runs: int = RUNS) -> float:
    """Share of intervals that hold their truth."""
    random = np.random.default_rng(5)
    samples = (draw(random) for _ in range(runs))
    return sum(low <= truth <= high for low, truth, high in samples) / runs


def draw_strict(random: np.random.Generator) -> tuple[float, float, float]:
    lengths, n, theta = np.array([50, 100, 200, 400]), 40, 0.002
    found = strict_fit(lengths, np.full(4, n), random.binomial(n, np.exp(-theta * lengths)))
    return found.theta_low, theta, found.theta_high


def draw_validity_ratio(random: np.random.Generator) -> tuple[float, float, float]:
    found = validity_ratio_ci(int(random.binomial(100, 0.7)), 100, int(random.binomial(120, 0.45)), 120)
    return found.low, 0.7 / 0.45, found.high


def draw_good_turing(random: np.random.Generator) -> tuple[float, float, float]:
    law = 1 / np.arange(1, 201)
    law /= law.sum()
    counts = random.multinomial(150, law)
    found = good_turing(counts)
    return found.unseen_mass - 1.96 * found.se, float(law[counts == 0].sum()), found.unseen_mass + 1.96 * found.se


def draw_icc(sizes: list[int], R: float, random: np.random.Generator) -> tuple[float, float, float]:
    groups = [random.normal() * math.sqrt(R) + random.normal(size=size) * math.sqrt(1 - R) for size in sizes]
    found = icc1(groups)
    return found.ci_low, R, found.ci_high


def draw_balanced_icc(random: np.random.Generator) -> tuple[float, float, float]:
    return draw_icc([3] * 20, 0.42, random)


def draw_unbalanced_icc(random: np.random.Generator) -> tuple[float, float, float]:
    return draw_icc([2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 1, 1, 2, 3], 0.6, random)


def draw_mixed(random: np.random.Generator) -> tuple[float, float, float]:
    R, n = 0.5, 60
    scores = random.normal(size=n)  # quality and noise together have variance 1
    repeats = random.normal(size=(8, 3)) * math.sqrt(1 - R)  # fresh seeds of eight programs, without their quality
    found = reliability_mixed(float(scores.var(ddof=1)), n, float(repeats.var(axis=1, ddof=1).mean()), 16)
    return found.ci_low, R, found.ci_high


def draw_attenuation(random: np.random.Generator) -> tuple[float, float, float]:
    n, rho_f, R1, RF = 60, 0.55, 0.5, 0.8
    early = random.normal(size=n)
    late = rho_f * early + math.sqrt(1 - rho_f**2) * random.normal(size=n)
    seen = [math.sqrt(R) * q + math.sqrt(1 - R) * random.normal(size=n) for q, R in ((early, R1), (late, RF))]
    found = attenuation(float(np.corrcoef(*seen)[0, 1]), R1, RF, n)
    return found.ci_low, rho_f, found.ci_high


def draw_variance_ratio(random: np.random.Generator) -> tuple[float, float, float]:
    one, two = random.normal(size=8) * 2, random.normal(size=15)
    found = variance_ratio(float(one.var(ddof=1)), 7, float(two.var(ddof=1)), 14)
    return found.low, 4.0, found.high


@pytest.mark.parametrize("draw", [draw_balanced_icc, draw_mixed, draw_variance_ratio])
def test_exact_intervals_cover_what_they_say(draw: Draw) -> None:
    assert abs(coverage(draw) - LEVEL) <= BINOMIAL


@pytest.mark.parametrize(
    "draw", [draw_strict, draw_validity_ratio, draw_good_turing, draw_unbalanced_icc, draw_attenuation]
)
def test_approximate_intervals_cover_about_what_they_say(draw: Draw) -> None:
    assert abs(coverage(draw) - LEVEL) <= BINOMIAL + APPROXIMATE


def test_an_intraclass_correlation_of_the_elites_by_the_scores_that_chose_them_is_far_too_low() -> None:
    """Why `icc1` must not see selected scores: the best fifth by one of two runs, truth 0.5."""

    def draw(random: np.random.Generator) -> tuple[float, float, float]:
        runs = (random.normal(size=(200, 1)) + random.normal(size=(200, 2))) * math.sqrt(0.5)
        elites = runs[np.argsort(runs[:, 0])[-40:]]
        found = icc1(list(elites))
        return found.ci_low, 0.5, found.ci_high

    assert coverage(draw, 500) < 0.8
