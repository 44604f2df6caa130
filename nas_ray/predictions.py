"""What the theory expects of a search of given sizes, and where it expects trouble.

In: `Sizes` and `Wishes`. Out: `Prediction`s: a number as an interval over what is uncertain, its formula in words, and
whether it is as wished. Assumptions are those of `nas_ray.theory`, docs/theory.md says how far real runs keep them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from nas_ray.design_advice import quality_spread
from nas_ray.diagnostics.diagnostic import chance
from nas_ray.guesses import Guesses, Known
from nas_ray.interval import Interval
from nas_ray.sizing import FEWEST_PAIRS, HOUR, Sizes, Wishes
from nas_ray.theory.convergence import never_sampled_prob
from nas_ray.theory.cross_entropy import elite_gain
from nas_ray.theory.novelty_filter import loop_yield
from nas_ray.theory.quality_gain import (
    drift_heterozygosity,
    gaussian_ce_limit,
    gaussian_gain,
    n_per_cycle,
    winners_curse,
)
from nas_ray.theory.reliability import elite_precision, spearman_brown

DOUBTFUL = 0.05  # p of the goodness of fit under which a law is not believed
TELLING = 2.0  # difference in AIC from which one law is preferred (Burnham and Anderson 2002)

Unit = Literal["share", "cycles", "programs", "trainings", "hours", "nats", "accuracy", "sd"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One number that is expected. Infinite bounds: not bounded, or never."""

    subject: str
    value: Interval
    unit: Unit
    why: str
    warning: str = ""  # what to do, where the number is not as wished


def predict(sizes: Sizes, wishes: Wishes, held_out: float) -> Iterator[Prediction]:
    """All predictions, most asked for first. `held_out`: share of the elites that no fine-tune trains on."""
    yield _to_target(sizes, wishes)
    yield from _to_target_logistic(sizes, wishes)
    yield _share_at_end(sizes, wishes)
    yield _never_seen(sizes, wishes)
    yield _empty_lesson(sizes, wishes)
    yield from _cost(sizes)
    yield _lesson_size(sizes, held_out)
    yield _diversity(sizes, held_out)
    yield from _ceiling(sizes)
    yield from _precision(sizes)
    yield from _accuracies(sizes)
    yield _gain_of_elites(sizes)


def over_range(law: Callable[[float], float], known: Known) -> Interval:
    """A monotone law of one uncertain number, at its estimate and at the ends of its range."""
    ends = (law(known.low), law(known.high))
    return Interval(min(ends), law(known.estimate), max(ends))


def _to_target(sizes: Sizes, wishes: Wishes) -> Prediction:
    value, known = sizes.to_target, sizes.forecast.guesses
    if known.fit is not None and math.isinf(value.estimate):
        return Prediction(
            f"fine-tunes to {wishes.target:.0%} elites", value, "cycles",
            f"no bounded forecast: over the pilot's {len(known.fit.fitted)} cycles the slope of the elite share is not "
            "distinguishable from 0",
            "a longer pilot; or say a smoothing, LOW:HIGH, to see what it would imply",
        )  # fmt: skip
    if known.fit is not None:
        why = f"(ln(1 - target) - b0) / b1 of the pilot's geometric fit; {sizes.forecast.basis}"
    else:
        ratio = sizes.forecast.likelihood_ratio(known.elite_rate.estimate, known.reliability.estimate)
        why = (
            "1 - P shrinks by 1 - a P (L-1) / (1 + P (L-1)) a cycle, P the share of elites, "
            f"L = {ratio:.3g} from the reliability; {sizes.forecast.basis}"
        )
    warning = ""
    doubt = describe_doubt(known)
    if doubt:
        warning = doubt
    elif sizes.falls_short and math.isfinite(value.estimate):
        warning = _more_budget(sizes, value.estimate)
    elif math.isinf(value.high):
        warning = "without an upper bound: at the low end of the smoothing nothing is learned"
    return Prediction(f"fine-tunes to {wishes.target:.0%} elites", value, "cycles", why, warning)


def describe_doubt(known: Guesses) -> str:
    """Why the pilot speaks against the geometric law; "" where it does not."""
    if known.fit is None or known.logistic is None:
        return ""
    if known.fit.p_deviance < DOUBTFUL:
        return f"the geometric law does not fit the pilot ({chance(known.fit.p_deviance)})"
    better = 2 * (known.logistic.loglik - known.fit.loglik)
    return f"the pilot prefers the logistic law (difference in AIC {better:.1f})" if better > TELLING else ""


def _to_target_logistic(sizes: Sizes, wishes: Wishes) -> Iterator[Prediction]:
    known = sizes.forecast.guesses
    cycles = sizes.forecast.logistic_cycles_to(wishes.target)
    if cycles is None or known.fit is None or known.logistic is None:
        return
    better = 2 * (known.logistic.loglik - known.fit.loglik)
    said = "cannot tell the two laws apart" if abs(better) < TELLING else f"prefers the {_better_law(better)} one"
    yield Prediction(
        "the same, if growth is logistic", Interval(cycles, cycles, cycles), "cycles",
        f"(logit(target) - c0) / c1; the pilot {said}: difference in AIC {better:+.1f}. The interval "
        "above knows nothing of this choice",
    )  # fmt: skip


def _better_law(better: float) -> str:
    return "logistic" if better > 0 else "geometric"


def _more_budget(sizes: Sizes, finetunes: float) -> str:
    cycles = math.ceil(finetunes) + 1
    needed = math.ceil(cycles * sizes.fewest_candidates * sizes.per_program)
    return (
        f"the budget falls short: {cycles} cycles of at least {sizes.fewest_candidates} candidates need about "
        f"{needed:,} trainings, not {sizes.trainings:,}"
    )


def _share_at_end(sizes: Sizes, wishes: Wishes) -> Prediction:
    value = sizes.forecast.share_after(sizes.cycles - 1)
    why = f"the same law after {sizes.cycles - 1} fine-tunes; {sizes.forecast.basis}"
    warning = "" if value.estimate >= wishes.target - 0.005 else f"under the target of {wishes.target:.0%}"
    return Prediction("elites in the last cycle", value, "share", why, warning)


def _never_seen(sizes: Sizes, wishes: Wishes) -> Prediction:
    def law(smoothing: float) -> float:
        return never_sampled_prob(wishes.family, smoothing, sizes.candidates, sizes.cycles).exact

    value = over_range(law, sizes.forecast.guesses.smoothing)
    warning = ""
    if value.estimate > wishes.miss:
        needed = math.ceil(sizes.candidates * math.log(wishes.miss) / math.log(value.estimate))
        warning = f"for {wishes.miss:.0%}: {needed} candidates a cycle, or more replay (smaller a)"
    return Prediction(
        f"chance of never seeing a family of {wishes.family:.2%}", value, "share",
        "product over cycles s of (1 - family (1-a)^s)^N: at worst, selection never favours it", warning,
    )  # fmt: skip


def _empty_lesson(sizes: Sizes, wishes: Wishes) -> Prediction:
    known = sizes.forecast.guesses

    def law(rate: float) -> float:
        valid = max(known.first_valid_rate.estimate, rate)
        return loop_yield(sizes.candidates, valid, rate / valid, known.novel_rate.estimate).prob_zero

    value = over_range(law, known.elite_rate)
    warning = "" if value.high <= wishes.miss else f"over {wishes.miss:.0%}: more candidates a cycle, or a lower bar"
    why = "(1 - elite rate x novel rate)^N, of the first cycle"
    return Prediction("chance that a cycle has no elite to learn from", value, "share", why, warning)


def _cost(sizes: Sizes) -> Iterator[Prediction]:
    written = float(sizes.cycles * sizes.candidates)
    yield Prediction("programs written", Interval(written, written, written), "programs", "cycles x candidates")
    known = sizes.forecast.guesses
    share = known.valid_rate.estimate * known.novel_rate.estimate
    ends = (known.valid_rate.low * known.novel_rate.low, share, known.valid_rate.high * known.novel_rate.high)
    yield Prediction(
        "trainings", Interval(*(written * sizes.per_program * one / share for one in ends)), "trainings",
        f"{sizes.per_program:.3g} a program: valid x novel x seeds x data sets, at the rates above. A writer that "
        "learns writes more valid programs and more duplicates",
    )  # fmt: skip
    seconds = known.seconds
    if seconds is not None:
        value = Interval(*(sizes.trainings * one / HOUR for one in (seconds.low, seconds.estimate, seconds.high)))
        yield Prediction("wall time", value, "hours", f"{seconds.estimate:.3g} s a training, {seconds.source}")


def _lesson_size(sizes: Sizes, held_out: float) -> Prediction:
    own = sizes.elites * (1 - held_out)
    return Prediction(
        "own programs of a fine-tune", Interval(own, own, own), "programs",
        f"quantile x valid x novel x N x (1 - {held_out:g} held out), without replay; elites and valid ones "
        "at the first cycle's rates",
        "" if own >= FEWEST_PAIRS - 0.5 else f"under {FEWEST_PAIRS}: it will learn them by heart",
    )  # fmt: skip


def _diversity(sizes: Sizes, held_out: float) -> Prediction:
    trained = max(sizes.elites * (1 - held_out), 1.0)
    value = over_range(
        lambda smoothing: drift_heterozygosity(1.0, trained, smoothing, 1).half_life, sizes.forecast.guesses.smoothing
    )
    return Prediction(
        "cycles until drift halves the diversity", value, "cycles",
        f"ln 2 / -ln(1 - a^2 / n), n = {trained:.1f} programs a fine-tune, without a novelty filter",
        "" if value.low >= sizes.cycles else "shorter than the search: more candidates, or more replay",
    )  # fmt: skip


def _ceiling(sizes: Sizes) -> Iterator[Prediction]:
    """Of a quantile that selects."""
    steep, rho = sizes.forecast.guesses.smoothing, sizes.quantile
    if rho >= 1:
        return

    def law(smoothing: float) -> float:
        return gaussian_ce_limit(rho, smoothing).total_gain_in_sd if smoothing > 0 else math.inf

    worst = law(steep.high)
    value = Interval(worst, law(steep.estimate), max(law(steep.low), worst))
    yield Prediction(
        "highest gain before the spread is used up", value, "sd",
        f"a normal population keeps its spread while a <= z / i = {gaussian_ce_limit(rho, 1.0).a_crit:.2f}; "
        "in standard deviations of quality at the start",
        "" if math.isinf(worst) else "a smaller quantile or more replay keeps the spread",
    )  # fmt: skip


def _precision(sizes: Sizes) -> Iterator[Prediction]:
    """Of a quantile that selects: where all are kept, all belong there."""
    rho = sizes.quantile
    if rho >= 1:
        return

    def law(reliability: float) -> float:
        return elite_precision(spearman_brown(reliability, sizes.seeds), rho).precision

    value = over_range(law, sizes.forecast.guesses.reliability)
    yield Prediction(
        "selected programs that belong there", value, "share",
        f"best {rho:.0%} by score also best {rho:.0%} in truth, {sizes.seeds} seed{'s' if sizes.seeds > 1 else ''}; "
        "normal quality and noise",
    )  # fmt: skip


def _accuracies(sizes: Sizes) -> Iterator[Prediction]:
    """In accuracy, where the noise of a training was measured or said.

    The spread of quality is the one that the reliability and this noise imply, never that of the raw scores: a few
    programs that learn nothing make that one wide, and say nothing of the others.
    """
    known, rho = sizes.forecast.guesses, sizes.quantile
    if known.noise_sd is None or known.reliability.estimate >= 1 or rho >= 1:
        return
    noise = known.noise_sd.estimate

    def law(reliability: float) -> float:
        if reliability >= 1:
            return 0.0  # quality without bounds, beside which there is no noise
        return winners_curse(quality_spread(reliability, noise), noise / math.sqrt(sizes.seeds), rho)

    yield Prediction(
        "elites' own accuracies too high by", over_range(law, known.reliability), "accuracy",
        f"winner's curse, noise variance x i / sd of scores, noise {100 * noise:.2g} points: compare re-trained "
        "accuracies only",
    )  # fmt: skip
    quality = quality_spread(known.reliability.estimate, noise)
    gain = over_range(lambda a: gaussian_gain(quality, noise / math.sqrt(sizes.seeds), rho, a).gain, known.smoothing)
    yield Prediction(
        "gain of mean accuracy in a cycle", gain, "accuracy",
        "a i sqrt(R) sigma_a (breeder's equation), sigma_a = sigma_n sqrt(R / (1 - R)) of one training; what fewer bad "
        "programs bring comes on top",
    )  # fmt: skip
    if gain.estimate > 0:
        spread = math.hypot(quality, noise / math.sqrt(sizes.seeds))
        needed = n_per_cycle(gain.estimate, spread, spread).n
        scored = sizes.candidates * known.valid_rate.estimate
        yield Prediction(
            "scored programs a cycle to show that gain", Interval(needed, needed, needed), "programs",
            f"(1.64 + 0.84)^2 x 2 sd^2 / gain^2: two neighbouring cycles, 5 % one-sided, power 80 %; here {scored:.0f}",
            "" if needed <= scored else "judge the trend over several cycles, not neighbours",
        )  # fmt: skip


def _gain_of_elites(sizes: Sizes) -> Prediction:
    rate = sizes.forecast.guesses.elite_rate.estimate

    def law(smoothing: float) -> float:
        return elite_gain(rate, smoothing).log_ratio_on_elite

    return Prediction(
        "likelihood that held-out elites should gain", over_range(law, sizes.forecast.guesses.smoothing), "nats",
        f"ln(1 - a + a/P), first cycle; more than -ln P = {elite_gain(rate, 0.1).gain_bound:.2f} is memorising",
    )  # fmt: skip
