"""R1: fine-tuning on elites is a Cross-Entropy step, and what one step can change at most.

In: elite rates, counts of elites and log-likelihoods of programs. Out: the smoothing a of the step, and forecasts.

The model of all of it: a cycle draws programs from p_t and keeps a program with probability w; Z = E[w] is the elite
rate, p_E = p_t w / Z the law of the elites. Maximum likelihood on elites projects p_E onto what the language model can
express. With a share 1 - a of self-replay the step is p_{t+1} = (1-a) p_t + a p_E, the smoothed step of Rubinstein and
Kroese, The Cross-Entropy Method (2004). Gains are in nats a program (summed over its tokens, not their mean).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, ndtri, softmax

from nas_ray.interval import LEVEL, mean_interval
from nas_ray.theory.inputs import require_not_negative, require_open_share, require_positive, require_share


class EliteGain(NamedTuple):
    """How far one smoothed step moves the log-likelihood of a program, in nats a program."""

    log_ratio_on_elite: float
    log_ratio_off_elite: float  # -inf at a = 1: what was not elite can no longer be drawn
    gain_bound: float  # the most that any step can give the elites on average


class CountedAlpha(NamedTuple):
    """The smoothing weight of one step as elite counts show it. nan where the counts do not determine it."""

    alpha: float  # below 0 where the share of elites fell
    se_log_ratio: float  # standard error of ln(1 - alpha)
    ci_low: float
    ci_high: float


class SharpenedLaw(NamedTuple):
    """A law after cycles of sampling at one temperature and training at temperature 1."""

    p_n: NDArray[np.float64]  # shares that sum to 1, in the order of the input
    exponent: float
    entropy: float  # nats


class LikelihoodGain(NamedTuple):
    """Mean fall of the negative log-likelihood of n programs, nats a program, with Student's t interval."""

    n: int
    gain: float  # nan without programs
    se: float  # nan for fewer than two programs, as are the bounds
    low: float
    high: float


class EliteRateForecast(NamedTuple):
    """The elite rate that the fine-tuned model is expected to have under the same bar, before it has drawn anything."""

    identity: float  # unbiased but heavy-tailed: a single program can carry it
    conservative: float  # a lower bound in expectation


def elite_gain(Z: float, a: float) -> EliteGain:
    """Log-likelihood ratios ln(p_{t+1} / p_t) of one smoothed step with a hard elite set: constant on it and off it.

    Statement: ln(1 - a + a/Z) on the elite set, ln(1 - a) off it; and for any step whatever, smoothed or not,
    E_{p_E}[ln(p'/p_t)] <= -ln Z. More than that on the training elites is memorising.
    Assumes the mixture step for the two ratios; nothing for the bound except that both likelihoods are taken under the
    prompt and the decoding that wrote the programs. Z in (0, 1], a in 0 .. 1. Source: docs/theory.md, R1 (e), (f).
    """
    _require_rate(Z)
    require_share("a", a)
    off = math.log1p(-a) if a < 1 else -math.inf
    return EliteGain(math.log1p(a * (1 / Z - 1)), off, -math.log(Z))


def alpha_from_gain(G: float, Z: float) -> float:
    """The smoothing weight a of a mixture step that raised held-out elites by G nats a program at elite rate Z.

    Statement: a = Z (e^G - 1) / (1 - Z). Below 0 where the elites lost likelihood, above 1 where they gained more
    than a Cross-Entropy step can give (G > -ln Z), inf where that overflows, nan at Z = 1, where every a is the same
    step. Assumes the mixture step and a hard elite set; take G from elites that were not trained on.
    Source: docs/theory.md, R1 (f).
    """
    _require_rate(Z)
    if Z == 1:
        return math.nan
    with np.errstate(over="ignore"):
        return float(Z * np.expm1(G) / (1 - Z))


def alpha_from_elite_counts(K0: int, N0: int, K1: int, N1: int, conf: float = LEVEL) -> CountedAlpha:
    """The smoothing weight of one step from K0 elites among N0 draws before it and K1 among N1 after it.

    Statement: with g = 1 - K/N, a = 1 - g1/g0; the standard error of ln(g1/g0) is
    sqrt((1-g1)/(N1 g1) + (1-g0)/(N0 g0)), and the interval is that of the log ratio, exponentiated.
    Assumes one fixed bar for both cycles, noise-free selection and independent draws. Without a non-elite before the
    step there is nothing to smooth, and all fields are nan; without one after it alpha is 1 and has no interval.
    Source: docs/theory.md, R1 (estimators); the standard error is the usual one of a log risk ratio (Katz et al. 1978).
    Raises ValueError for impossible counts.
    """
    require_open_share("conf", conf)
    for cycle, (elites, draws) in enumerate(((K0, N0), (K1, N1))):
        if not 0 <= elites <= draws or draws == 0:
            raise ValueError(f"K{cycle} is {elites} elites of N{cycle} = {draws} draws; give 0 <= K <= N and N over 0")
    if K0 == N0:
        return CountedAlpha(math.nan, math.nan, math.nan, math.nan)
    before, after = (N0 - K0) / N0, (N1 - K1) / N1
    if K1 == N1:
        return CountedAlpha(1.0, math.nan, math.nan, math.nan)
    se = math.sqrt((1 - after) / (N1 * after) + (1 - before) / (N0 * before))
    spread = math.exp(float(ndtri((1 + conf) / 2)) * se)
    ratio = after / before
    return CountedAlpha(1 - ratio, se, 1 - ratio * spread, 1 - ratio / spread)


def temperature_ratchet(p: ArrayLike, T: float, n: int) -> SharpenedLaw:
    """What n cycles of drawing at temperature T and training at temperature 1 do to the law p without any selection.

    Statement: p_n is proportional to p ** (T ** -n): below T = 1 the likely become likelier in every cycle, although
    nothing was selected. Assumes exact training and that every draw is trained on.
    p: (M,) weights, not negative, of any positive sum; T over 0; n cycles. Source: docs/theory.md, R1.
    """
    weights = np.asarray(p, dtype=np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError("p must be a list of weights that are finite, not negative, and not all 0")
    require_positive("T", T)
    require_not_negative("n", n)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        exponent = np.exp(-n * np.log(T))
        shift = np.log(weights) - np.log(weights.max())
        # The likeliest stay where they are, also where the exponent overflows.
        law = softmax(np.where(shift == 0, 0.0, shift * exponent))
    return SharpenedLaw(law, float(exponent), float(entr(law).sum()))


def likelihood_gain(before: Sequence[float], after: Sequence[float], conf: float = LEVEL) -> LikelihoodGain:
    """Mean fall of the negative log-likelihood, G, over the same n programs before and after a fine-tuning.

    Statement: G = mean(before - after), se = sd / sqrt(n), Student's t interval with n - 1 degrees of freedom.
    before, after: nats a program (sums over its tokens), paired. Assumes that the programs are independent draws.
    Of elites that were trained on it measures the fit, of held-out elites the step. Source: docs/theory.md, R1 (f);
    the interval is Student's. Raises ValueError for different lengths and for numbers that are not finite.
    """
    require_open_share("conf", conf)
    if len(before) != len(after):
        raise ValueError(f"{len(before)} likelihoods before cannot be paired with {len(after)} after")
    falls = [first - second for first, second in zip(before, after, strict=True)]
    if not all(math.isfinite(fall) for fall in falls):
        raise ValueError("a negative log-likelihood is not a finite number; leave out the programs that have none")
    interval = mean_interval(falls, conf)
    if interval is None:
        return LikelihoodGain(0, math.nan, math.nan, math.nan, math.nan)
    se = float(np.std(falls, ddof=1)) / math.sqrt(len(falls)) if len(falls) > 1 else math.nan
    return LikelihoodGain(len(falls), interval.estimate, se, interval.low, interval.high)


def forecast_elite_rate(Z: float, gains: Sequence[float]) -> EliteRateForecast:
    """The elite rate of the next cycle from this cycle's rate Z and the gains ln(p'/p_t) of its elites.

    Statement: E_{p'}[w] >= Z E_{p_E}[p'/p_t] >= Z exp(E_{p_E}[ln(p'/p_t)]), the first with equality where p' puts no
    mass on elites that p_t cannot write. `identity` estimates the first by Z mean(exp(gain)), `conservative` the
    second by Z exp(mean(gain)); both are cut at 1. gains: nats a program, of held-out elites; without any, nan.
    Assumes the same bar in both cycles. Source: docs/theory.md, R1 (estimators) and R2 (B), after Dayan and Hinton,
    Neural Computation 9 (1997).
    """
    _require_rate(Z)
    if len(gains) == 0:
        return EliteRateForecast(math.nan, math.nan)
    if not np.isfinite(gains).all():
        raise ValueError("a gain is not a finite number; leave out the programs that have none")
    log_identity = math.log(Z) + float(logsumexp(gains)) - math.log(len(gains))
    log_conservative = math.log(Z) + math.fsum(gains) / len(gains)
    return EliteRateForecast(math.exp(min(0.0, log_identity)), math.exp(min(0.0, log_conservative)))


def _require_rate(Z: float) -> None:
    if not 0 < Z <= 1:
        raise ValueError(f"Z is the rate of elites among the draws and must be over 0 and at most 1, not {Z}")
