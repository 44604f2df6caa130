"""How large a search is to be: cycles, candidates per cycle, share kept, trainings of each, out of one budget.

In: a configuration, `Guesses` and `Wishes`. Out: `Sizes`. The rule: as many cycles as the target needs, the rest of the
budget into the cycles. More cycles bring the share of elites up; more candidates make it less likely that a cycle
teaches nothing, that a rare family is never seen, and that the writer drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq

from nas_ray.config import RunConfig
from nas_ray.forecast import Forecast
from nas_ray.guesses import Guesses
from nas_ray.interval import Interval
from nas_ray.theory.quality_gain import selection_intensity
from nas_ray.theory.reliability import best_repeats

FEWEST_PAIRS = 5  # programs that a fine-tune should have of its own cycle; of fewer it can only learn by heart
SMALLEST_QUANTILE = 0.01
HOUR = 3600.0  # seconds


class PlanError(ValueError):
    """A plan that cannot be made. `mistakes` holds one line each, all of them found."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"what to plan for has {count}:\n" + "\n".join(f"  - {line}" for line in mistakes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the search may cost and what it is to reach. Without trainings and hours: what the configuration costs."""

    trainings: int | None = None  # of one program on one data set from one seed
    hours: float | None = None  # wall time; needs the seconds of a training
    cycles: int | None = None  # None: as many as the target needs
    target: float = 0.9  # share of elites among all programs written
    family: float = 0.001  # share of the first writer's programs that are of a family which is to be seen
    miss: float = 0.05  # chance that is small enough: of a cycle without a lesson, of never seeing the family


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a search, and what they were taken from."""

    trainings: int  # the budget
    cycles: int
    candidates: int  # programs written in a cycle
    quantile: float  # share of a cycle's valid programs that is kept
    seeds: int
    per_program: float  # trainings that a written program costs: valid, novel, times seeds, times data sets
    fewest_elites: int  # in a cycle: the fine-tune's own, less those held out
    fewest_candidates: int  # for so many elites, and for hardly a cycle without any
    drift_elites: float  # training programs in a cycle that keep half of the diversity over all cycles
    purest_quantile: float  # share of the first cycle's valid programs that are elites: more would keep others too
    widest_quantile: float  # larger ones let a normal population collapse at this smoothing
    forecast: Forecast  # under this quantile and these seeds
    to_target: Interval  # fine-tunes

    @property
    def elites(self) -> float:
        """Novel elites of the first cycle."""
        known = self.forecast.guesses
        return self.quantile * known.first_valid_rate.estimate * known.novel_rate.estimate * self.candidates

    @property
    def falls_short(self) -> bool:
        """True where the budget cannot pay both the cycles that the target needs and enough candidates in each."""
        wanted = self.to_target.estimate
        return self.candidates < self.fewest_candidates or (math.isfinite(wanted) and self.cycles < wanted + 1)


def choose_sizes(config: RunConfig, guesses: Guesses, wishes: Wishes) -> Sizes:
    """Sizes for a budget. Raises PlanError with all that is wrong."""
    check_wishes(config, guesses, wishes)
    novel, first_valid = guesses.novel_rate.estimate, guesses.first_valid_rate.estimate
    useful = guesses.valid_rate.estimate * novel
    datasets = 1 + len(config.also)
    trainings = count_trainings(config, guesses, wishes)

    rate, steep = guesses.elite_rate.estimate, guesses.smoothing.high
    purest = min(rate / first_valid, 1.0)
    widest = widest_quantile(steep)
    quantile = round_down(min(purest, widest))
    cycles = wishes.cycles or _cycles_for(Forecast(guesses, quantile).cycles_to(wishes.target).estimate, config.cycles)

    drift = steep**2 / (1 - 0.5 ** (1 / cycles))
    fewest_elites = math.ceil(max(FEWEST_PAIRS, drift) / (1 - config.finetune.held_out))
    kept = quantile * first_valid * novel  # of the first cycle's programs: novel and selected
    lesson = min(rate * novel, 1 - 1e-9)  # chance that one program is a novel elite
    fewest = max(math.ceil(fewest_elites / kept), math.ceil(math.log(wishes.miss) / math.log1p(-lesson)))

    seeds = choose_seeds(trainings / (cycles * datasets), quantile, guesses.reliability.estimate)
    if trainings / (cycles * datasets * useful * seeds) < fewest:
        seeds = 1  # candidates first
    per_program = useful * datasets * seeds
    if wishes.cycles is None and trainings / (cycles * per_program) < fewest:
        cycles = max(1, math.floor(trainings / (fewest * per_program)))
    candidates = max(1, math.floor(trainings / (cycles * per_program)))
    needed = fewest_elites / (candidates * first_valid * novel)
    if needed > quantile:  # too few candidates: rather others among the elites than nothing to learn from
        quantile = min(1.0, math.ceil(100 * needed) / 100)
    forecast = Forecast(guesses, quantile, seeds)
    return Sizes(
        trainings, cycles, candidates, quantile, seeds, per_program, fewest_elites, fewest, drift, purest, widest,
        forecast, forecast.cycles_to(wishes.target),
    )  # fmt: skip


def check_wishes(config: RunConfig, guesses: Guesses, wishes: Wishes) -> None:
    """Raises PlanError with everything that cannot be planned for."""
    mistakes = []
    if wishes.trainings is not None and wishes.hours is not None:
        mistakes.append("trainings and hours are both given: a budget is one of them")
    if wishes.trainings is not None and wishes.trainings < 1:
        mistakes.append(f"trainings = {wishes.trainings}: must be at least 1")
    if wishes.hours is not None and not 0 < wishes.hours < math.inf:
        mistakes.append(f"hours = {wishes.hours:g}: must be over 0")
    if wishes.hours is not None and guesses.seconds is None:
        mistakes.append("hours needs the seconds of a training: say seconds, or give a pilot run that measured them")
    if wishes.cycles is not None and wishes.cycles < 1:
        mistakes.append(f"cycles = {wishes.cycles}: must be at least 1")
    for name in ("target", "family", "miss"):
        value = getattr(wishes, name)
        if not 0 < value < 1:
            mistakes.append(f"{name} = {value:g}: a share, over 0 and under 1")
    rate, valid = guesses.elite_rate, guesses.first_valid_rate
    if rate.source == "said" and rate.estimate > valid.estimate:
        mistakes.append(
            f"elite_rate = {rate.estimate:g} is over the first cycle's valid rate, {valid.estimate:g} "
            f"({valid.source}): both are shares of all its programs, and an elite is valid"
        )
    if not config.finetune.enabled:
        mistakes.append("finetune.enabled = False: a generator that never learns reaches no target; nothing to plan")
    if mistakes:
        raise PlanError(mistakes)


def count_trainings(config: RunConfig, guesses: Guesses, wishes: Wishes) -> int:
    """The budget in trainings of one program on one data set from one seed."""
    if wishes.trainings is not None:
        return wishes.trainings
    if wishes.hours is not None and guesses.seconds is not None:
        return max(1, math.floor(wishes.hours * HOUR / guesses.seconds.estimate))
    useful = guesses.valid_rate.estimate * guesses.novel_rate.estimate
    repeats = config.evaluation.seeds * (1 + len(config.also))
    return max(1, round(config.cycles * config.candidates_per_cycle * useful * repeats))


def choose_seeds(trainings: float, quantile: float, reliability: float) -> int:
    """Trainings of each program that make a cycle's elites best on average; `trainings` of one cycle and data set.

    The number kept is the same for any number of seeds, so that more seeds are paid for with candidates.
    """
    budget = math.floor(trainings)
    keep = max(1, round(quantile * budget))
    if keep >= budget or reliability >= 1:
        return 1
    return best_repeats(budget, keep, reliability).best_m or 1


def widest_quantile(smoothing: float) -> float:
    """The largest share kept at which a normal population keeps its spread: z(rho) / i(rho) = a; 0 where there is none.

    At rho = 1/2 and more the spread shrinks for every a (`nas_ray.theory.quality_gain.gaussian_ce_limit`).
    """

    def margin(rho: float) -> float:
        intensity = selection_intensity(rho)
        return intensity.z / intensity.i - smoothing

    if margin(SMALLEST_QUANTILE) <= 0:
        return 0.0
    return float(brentq(margin, SMALLEST_QUANTILE, 0.5)) if smoothing > 0 else 0.5


def round_down(share: float) -> float:
    """A quantile as a person would write it, two decimals."""
    return max(SMALLEST_QUANTILE, math.floor(100 * share + 1e-9) / 100)


def _cycles_for(finetunes: float, otherwise: int) -> int:
    """The cycles that hold so many fine-tunes before the last one is written; `otherwise` where no number is known."""
    return math.ceil(finetunes - 1e-9) + 1 if math.isfinite(finetunes) else otherwise
