"""A plan of a search before it runs: what to set, why, and what to expect of it.

In: a configuration, `Guesses` (said, measured by a pilot, or round numbers) and `Wishes`. Out: a `Plan`: for each key
what the configuration has, what is advised and the formula; predictions with intervals; what the theory does not say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nas_ray.bands import choose_bands
from nas_ray.config import RunConfig
from nas_ray.guesses import Guesses, Known
from nas_ray.predictions import Prediction, predict
from nas_ray.sizing import FEWEST_PAIRS, Sizes, Wishes, choose_seeds, choose_sizes
from nas_ray.theory.cross_entropy import temperature_ratchet
from nas_ray.theory.novelty_filter import lsh_areas, lsh_curve
from nas_ray.theory.quality_gain import gaussian_ce_limit
from nas_ray.theory.reliability import repeat_break_even

EXACT_IS_CHEAP = 10_000  # programs; under so many an exact comparison with all of them would do as well as bands


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration. `advised` equals `now` where nothing speaks for a change."""

    key: str
    now: Any
    advised: Any
    why: str

    @property
    def changes(self) -> bool:
        return bool(self.now != self.advised)


@dataclass(frozen=True, slots=True)
class Plan:
    """Advice for one search."""

    config: RunConfig
    guesses: Guesses
    wishes: Wishes
    sizes: Sizes
    settings: tuple[Setting, ...]
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...]  # what the theory does not give, or what this plan assumes

    @property
    def overrides(self) -> list[str]:
        """What `nas-ray search --set` takes, one entry for each key that changes."""
        return [f"{one.key}={one.advised}" for one in self.settings if one.changes]

    @property
    def known(self) -> dict[str, Known]:
        """Every number that the plan starts from, by name."""
        values = {entry.name: getattr(self.guesses, entry.name) for entry in dataclasses.fields(self.guesses)}
        return {name: value for name, value in values.items() if isinstance(value, Known)}

    def as_values(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite number is None."""
        return {
            "budget_trainings": self.sizes.trainings,
            "wishes": dataclasses.asdict(self.wishes),
            "known": {name: _plain(dataclasses.asdict(value)) for name, value in self.known.items()},
            "settings": [dataclasses.asdict(one) | {"changes": one.changes} for one in self.settings],
            "predictions": [
                {
                    "subject": one.subject,
                    "unit": one.unit,
                    **_plain(one.value._asdict()),
                    "why": one.why,
                    "warning": one.warning,
                }
                for one in self.predictions
            ],
            "notes": list(self.notes),
            "overrides": self.overrides,
        }


def make_plan(config: RunConfig, guesses: Guesses, wishes: Wishes) -> Plan:
    """Sizes, settings and predictions. Raises `nas_ray.sizing.PlanError` with all that is wrong."""
    sizes = choose_sizes(config, guesses, wishes)
    settings = (
        *_size_settings(config, sizes, wishes),
        *_selection_settings(config, sizes),
        _replay_setting(config, sizes),
        _seed_setting(config, sizes),
        *_novelty_settings(config, sizes),
        _temperature_setting(config, sizes),
    )
    predictions = tuple(predict(sizes, wishes, config.finetune.held_out))
    return Plan(config, guesses, wishes, sizes, settings, predictions, tuple(_notes(config, guesses)))


def _size_settings(config: RunConfig, sizes: Sizes, wishes: Wishes) -> Iterator[Setting]:
    if wishes.cycles is not None:
        why = "as said"
    elif math.isinf(sizes.to_target.estimate):
        why = "no forecast says how many the target needs: as in the configuration, if the budget allows"
    elif sizes.falls_short:
        why = f"the budget over the fewest candidates; the target needs {math.ceil(sizes.to_target.estimate) + 1}"
    else:
        why = f"fine-tunes to the target, {sizes.to_target.estimate:.1f}, and one cycle more that shows it"
    yield Setting("cycles", config.cycles, sizes.cycles, why)
    why = (
        f"{sizes.trainings:,} trainings / ({sizes.cycles} cycles x {sizes.per_program:.3g} trainings a program); at "
        f"least {sizes.fewest_candidates}, for {sizes.fewest_elites} elites a cycle and a chance under "
        f"{wishes.miss:.0%} of none"
    )
    yield Setting("candidates_per_cycle", config.candidates_per_cycle, sizes.candidates, why)


def _selection_settings(config: RunConfig, sizes: Sizes) -> Iterator[Setting]:
    kept = max(sizes.fewest_elites, 1)
    if sizes.quantile > min(sizes.purest_quantile, sizes.widest_quantile) + 1e-9:
        why = f"so that a cycle has {kept} elites; it also keeps programs under the bar, or uses up the spread"
    elif sizes.widest_quantile < sizes.purest_quantile:
        why = f"the largest that keeps a normal population's spread: z / i = a = {_steepest(sizes):.2g} (high end)"
    else:
        rates = f"elite rate / valid rate = {sizes.purest_quantile:.2f}"
        why = f"{rates}, of the first cycle: more would keep programs under the bar too"
    yield Setting("selection.quantile", config.selection.quantile, sizes.quantile, why)
    bar = sizes.forecast.guesses.bar
    if bar is not None:
        advised = math.floor(1e4 * bar.estimate + 1e-9) / 1e4
        why = f"the bar ({bar.source}), the same in all cycles: a quantile alone moves, and its rates compare nothing"
        yield Setting("selection.threshold", config.selection.threshold, advised, why)


def _replay_setting(config: RunConfig, sizes: Sizes) -> Setting:
    """This cycle's share of the lesson is 1 / replay_last once under way, so a longer window means a smaller step."""
    tuning = config.finetune
    drift = math.sqrt(max(sizes.elites * (1 - tuning.held_out), 1.0) * (1 - 0.5 ** (1 / sizes.cycles)))
    spread = gaussian_ce_limit(sizes.quantile, 1.0).a_crit if sizes.quantile < 1 else 0.0
    # Rounded down quantiles keep the limit; one at 1/2 or over has none, and its ceiling is a prediction of its own.
    limit = min(drift, spread) if spread > 0 else drift
    steepest = _steepest(sizes)
    if tuning.replay != "last":
        why = f"no rule for replay: {tuning.replay}; the smoothing should stay at or under {limit:.2g}"
        return Setting("finetune.replay", tuning.replay, tuning.replay, why)
    advised = max(tuning.replay_last, math.ceil(tuning.replay_last * steepest / limit - 1e-9))
    why = (
        f"replay share {1 - 1 / advised:.0%} once under way. a = {steepest:.2g} (high end) "
        f"{'is at most' if steepest <= limit else 'is over'} {limit:.2g}, which keeps spread and half of the diversity"
    )
    return Setting("finetune.replay_last", tuning.replay_last, advised, why)


def _seed_setting(config: RunConfig, sizes: Sizes) -> Setting:
    known, datasets = sizes.forecast.guesses.reliability, 1 + len(config.also)
    budget = sizes.trainings / (sizes.cycles * datasets)
    choices = [choose_seeds(budget, sizes.quantile, one) for one in (known.low, known.estimate, known.high)]
    border = repeat_break_even(sizes.quantile) if sizes.quantile < 0.5 else math.nan
    many = f"{min(choices)} to {max(choices)}" if min(choices) < max(choices) else str(choices[1])
    rule = f"2 seeds pay under R = {border:.2f}" if border > 0 else "at this quantile 2 seeds never pay"
    why = f"most gain for {budget:.0f} trainings a cycle: {many} over the range of R; {rule}"
    if sizes.seeds < choices[1]:
        why += "; 1 here, because candidates are too few"
    return Setting("evaluation.seeds", config.evaluation.seeds, sizes.seeds, why)


def _novelty_settings(config: RunConfig, sizes: Sizes) -> Iterator[Setting]:
    novelty = config.novelty
    if novelty.tau >= 1:
        yield Setting("novelty.tau", novelty.tau, novelty.tau, "exact duplicates only: no bands, nothing is missed")
        return
    bands, rows = choose_bands(novelty.permutations, novelty.tau, novelty.miss_rate)
    curve, areas = lsh_curve(novelty.tau, bands, rows), lsh_areas(novelty.tau, bands, rows)
    written = sizes.cycles * sizes.candidates
    why = (
        f"k = {novelty.permutations} in b = {bands} bands of r = {rows}: misses {1 - curve.candidate_prob:.2%} of "
        f"pairs at tau = {novelty.tau:g} (1 - (1 - tau^r)^b), half at {curve.J50:.2f}; areas: looked at in vain "
        f"{areas.false_positive_area:.3f}, missed {areas.false_negative_area:.4f}. Every find is verified exactly"
    )
    if written < EXACT_IS_CHEAP:
        why += f"; with {written:,} programs bands only save time"
    yield Setting("novelty.permutations", novelty.permutations, novelty.permutations, why)
    rate = sizes.forecast.guesses.novel_rate
    why = f"not from theory. Novel rate {rate.estimate:.0%} ({rate.source}); if it falls towards 0, raise tau"
    yield Setting("novelty.tau", novelty.tau, novelty.tau, why)


def _temperature_setting(config: RunConfig, sizes: Sizes) -> Setting:
    now = config.generation.temperature
    after = temperature_ratchet([0.5, 0.5], now, sizes.cycles - 1).exponent
    if now == 1:
        why = "fine-tuning is at 1: any other temperature drifts by itself, p^(1/T^n)"
    else:
        why = (
            f"at {now:g}, {sizes.cycles - 1} exact cycles alone would raise every probability to the power {after:.3g}"
        )
    return Setting("generation.temperature", now, 1.0, why)


def _steepest(sizes: Sizes) -> float:
    return sizes.forecast.guesses.smoothing.high


def _notes(config: RunConfig, guesses: Guesses) -> Iterator[str]:
    yield (
        "Smoothing a is an outcome, not a key: finetune.epochs, finetune.lr, finetune.rank and replay move it, nobody "
        f"can say by how much beforehand. Here: {guesses.smoothing.source}. A pilot measures it, for its own settings "
        "and its own number of candidates."
    )
    yield (
        "Replay in nas-ray is of earlier elites, and not of fresh samples of the last writer, which is what the theory "
        "mixes: it slows the step, but what was never an elite is not kept alive."
    )
    guessed = [name for name in ("elite_rate", "valid_rate", "novel_rate", "smoothing", "reliability")
               if getattr(guesses, name).source == "guess"]  # fmt: skip
    if guessed:
        yield (
            f"Built-in guesses, which know nothing of your model and data: {', '.join(guessed)}. What follows "
            "from them is no better."
        )
    if guesses.noise_sd is None:
        yield (
            "Winner's curse, gain of accuracy in a cycle and the programs that would show it are left out: they need "
            "the noise of a training, which `nas-ray reliability RUN` measures on a pilot (or say --noise-sd)."
        )
    if config.selection.quantile is None:
        yield "The configuration keeps all over a threshold; the quantile is advised beside it."
    if len(config.selection.goals) > 1:
        yield "With several goals the quantile chooses by Pareto fronts; the forecasts are of accuracy alone."
    if config.finetune.start == "fresh" and config.finetune.replay == "all":
        yield "Fresh adapters on all elites so far: a falls as 1/(t+1), and 1 - P as 1/T, not geometrically."
    if config.evaluation.scheduler == "asha":
        yield "With asha trainings are of different lengths; the plan counts trainings, not epochs."
    if config.generation.delta > 0:
        yield "Edits draw from their parents as well as from the writer: the law of independent draws is approximate."
    yield (
        f"{FEWEST_PAIRS} own programs of a fine-tune are the least that the diagnosis of a run accepts; how many a "
        "model needs to learn from, the theory does not say."
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Infinite numbers as None, which JSON can hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
