"""A plan keeps its promises, says where its numbers are from, and forecasts what a run of its own law then does."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import make_row

from nas_ray.config import FinetuneConfig, RunConfig, SelectionConfig
from nas_ray.config_file import override_config
from nas_ray.forecast import Forecast, check_forecast
from nas_ray.guesses import Guesses, Known
from nas_ray.interval import Interval
from nas_ray.outcome import Outcome, Stage
from nas_ray.plan import Plan, make_plan
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.sizing import PlanError, Wishes, choose_seeds, choose_sizes, widest_quantile
from nas_ray.theory.quality_gain import gaussian_ce_limit, winners_curse

BAR = 0.6


def said(**numbers: float | tuple[float, float]) -> Guesses:
    """The built-in guesses with these numbers said instead."""
    pairs = {name: value if isinstance(value, tuple) else (value, value) for name, value in numbers.items()}
    return Guesses().overrule({name: Interval(low, (low + high) / 2, high) for name, (low, high) in pairs.items()})


def make_table(smoothing: float, cycles: int, drawn: int = 400, rate: float = 0.1, seed: int = 0) -> RunTable:
    """A run whose share of elites follows 1 - P_t = (1 - rate) (1 - smoothing)^t, half of the others invalid."""
    dice, draws = random.Random(seed), np.random.default_rng(seed)
    rows: list[CandidateRow] = []
    for cycle in range(cycles):
        over = draws.binomial(drawn, 1 - (1 - rate) * (1 - smoothing) ** cycle)
        for index in range(drawn):
            valid = index < over or index % 2
            ending = (Outcome.VALID, Stage.TRAIN) if valid else (Outcome.SHAPE_ERROR, Stage.BUILD)
            accuracy = None if not valid else BAR + 0.2 * dice.random() if index < over else 0.5 * dice.random()
            rows.append(replace(make_row(cycle, index, ending, dice), accuracy=accuracy))
    config = RunConfig(cycles=cycles, candidates_per_cycle=drawn, selection=SelectionConfig(threshold=BAR))
    trained = [row for row in rows if row.outcome is Outcome.VALID]
    evaluations = [
        EvaluationRow(id=row.id, cycle=row.cycle, index=row.index, dataset="digits", protocol="p", seed=0, epochs=1,
                      accuracy=row.accuracy, loss=1.0) for row in trained
    ]  # fmt: skip
    closed = [CycleRow(cycle=cycle, total_seconds=60.0) for cycle in range(cycles)]
    return RunTable.of(config, rows, closed, evaluations)


def first_cycles(table: RunTable, cycles: int) -> RunTable:
    return RunTable.of(table.config, table.candidates, table.cycles[:cycles], table.evaluations)


def test_with_perfect_selection_the_cycles_are_those_of_the_closed_formula() -> None:
    guesses = said(elite_rate=0.1, smoothing=0.2, reliability=1.0)
    assert Forecast(guesses, 0.1).cycles_to(0.9) == (10, 10, 10)
    assert math.ceil(math.log(0.1 / 0.9) / math.log(0.8)) == 10
    assert choose_sizes(RunConfig(), guesses, Wishes(trainings=5000)).cycles == 11, "the last fine-tune must be seen"
    assert Forecast(guesses, 0.1).share_after(5).estimate == pytest.approx(0.705088)


def test_noise_slows_and_a_quantile_over_the_elites_dilutes() -> None:
    exact, noisy = said(elite_rate=0.1, smoothing=0.2, reliability=1.0), said(
        elite_rate=0.1, smoothing=0.2, reliability=0.4
    )  # fmt: skip
    assert Forecast(noisy, 0.1).cycles_to(0.9).estimate > Forecast(exact, 0.1).cycles_to(0.9).estimate
    assert Forecast(exact, 0.6).cycles_to(0.9).estimate > Forecast(exact, 0.2).cycles_to(0.9).estimate
    assert Forecast(noisy, 0.1, seeds=4).cycles_to(0.9).estimate < Forecast(noisy, 0.1).cycles_to(0.9).estimate


@settings(deadline=None, max_examples=60)
@given(
    trainings=st.integers(20, 20_000),
    rate=st.floats(0.02, 0.5),
    valid=st.floats(0.5, 1.0),
    smoothing=st.just(0.0) | st.floats(1e-3, 0.9),
    reliability=st.floats(0.05, 1.0),
    target=st.floats(0.3, 0.99),
    cycles=st.none() | st.integers(1, 60),
)
def test_a_plan_stays_in_its_budget_and_can_be_pasted(
    trainings: int,
    rate: float,
    valid: float,
    smoothing: float,
    reliability: float,
    target: float,
    cycles: int | None,
) -> None:
    guesses = said(elite_rate=rate, valid_rate=valid, smoothing=smoothing, reliability=reliability)
    plan = make_plan(RunConfig(), guesses, Wishes(trainings=trainings, target=target, cycles=cycles))
    sizes = plan.sizes
    if sizes.candidates > 1:
        assert sizes.cycles * sizes.candidates * sizes.per_program <= trainings * (1 + 1e-9)
    changed = override_config(RunConfig(), plan.overrides)
    assert (changed.cycles, changed.candidates_per_cycle) == (sizes.cycles, sizes.candidates)
    assert changed.selection.quantile == sizes.quantile
    for one in plan.predictions:
        assert not any(math.isnan(value) for value in one.value), one
        assert one.value.low <= one.value.estimate * (1 + 1e-9) + 1e-12, one
        assert one.value.estimate <= one.value.high * (1 + 1e-9) + 1e-12, one
        if one.unit == "share":
            assert one.value.low >= 0, one
            assert one.value.high <= 1, one
    json.loads(json.dumps(plan.as_values(), allow_nan=False))


def test_more_budget_buys_candidates_once_the_cycles_suffice() -> None:
    guesses = said(elite_rate=0.2, smoothing=0.1, reliability=0.8)
    plans = [choose_sizes(RunConfig(), guesses, Wishes(trainings=budget)) for budget in (2_000, 4_000, 8_000)]
    assert len({one.cycles for one in plans}) == 1
    assert all(less.candidates < more.candidates for less, more in pairwise(plans))
    assert not any(one.falls_short for one in plans)


def test_too_small_a_budget_is_told_with_what_would_do() -> None:
    guesses = said(elite_rate=0.05, smoothing=0.05, reliability=0.5)
    plan = make_plan(RunConfig(), guesses, Wishes(trainings=100))
    assert plan.sizes.falls_short
    assert "the budget falls short" in plan.predictions[0].warning


def test_the_widest_quantile_is_where_the_spread_just_stays() -> None:
    for smoothing in (0.05, 0.2, 0.6):
        assert gaussian_ce_limit(widest_quantile(smoothing), smoothing).var_factor == pytest.approx(1)
    assert widest_quantile(0.0) == 0.5
    assert widest_quantile(1.0) == 0


def test_seeds_are_for_small_shares_of_unreliable_scores() -> None:
    assert choose_seeds(100, 0.05, 0.15) > 1
    assert choose_seeds(100, 0.05, 0.9) == 1
    assert all(choose_seeds(100, 0.4, reliability) == 1 for reliability in (0.2, 0.5, 0.9))


def test_too_steep_a_smoothing_asks_for_more_replay() -> None:
    guesses = said(elite_rate=0.3, valid_rate=0.5, smoothing=0.95)
    config = RunConfig(finetune=FinetuneConfig(replay="last", replay_last=2))
    (setting,) = (one for one in make_plan(config, guesses, Wishes(trainings=400)).settings if "replay" in one.key)
    assert setting.advised > 2
    gentle = said(elite_rate=0.3, valid_rate=0.5, smoothing=0.05)
    (setting,) = (one for one in make_plan(config, gentle, Wishes(trainings=400)).settings if "replay" in one.key)
    assert not setting.changes


def test_everything_a_pilot_measures_overrides_the_guess_and_what_was_said_overrides_both() -> None:
    measured = Guesses.of(make_table(0.2, 6))
    assert {name for name, one in known(measured).items() if one.source == "guess"} == {"reliability"}
    assert "reliability RUN" in measured.reliability.note
    assert measured.bar is not None
    assert measured.bar.estimate == BAR
    assert measured.seconds is not None
    assert measured.seconds.estimate == pytest.approx(360 / len(make_table(0.2, 6).evaluations))
    changed = measured.overrule({"smoothing": Interval(0.1, 0.2, 0.3)})
    assert changed.smoothing == Known(0.1, 0.2, 0.3, "said")
    assert changed.elite_rate.source == "pilot"
    assert changed.fit is None
    with pytest.raises(ValueError, match="cycels: not among"):
        measured.overrule({"cycels": Interval(1, 1, 1)})


def known(guesses: Guesses) -> dict[str, Known]:
    plan = make_plan(RunConfig(), guesses, Wishes(trainings=1000))
    assert isinstance(plan, Plan)
    return plan.known


def test_a_pilot_of_a_geometric_run_finds_its_smoothing_and_forecasts_the_rest() -> None:
    whole = make_table(0.15, 16)
    guesses = Guesses.of(first_cycles(whole, 8))
    assert guesses.smoothing.low < 0.15 < guesses.smoothing.high
    forecast = Forecast(guesses, 0.2)
    cycles = forecast.cycles_to(0.9)
    assert cycles.low < math.log(0.1 / 0.9) / math.log(0.85) < cycles.high
    checked = check_forecast(forecast, whole)
    assert [one.cycle for one in checked] == list(range(8, 16))
    assert sum(one.held for one in checked) >= 7


def test_a_pilot_that_shows_no_growth_gives_no_forecast() -> None:
    guesses = Guesses.of(make_table(0.0, 5, drawn=50))
    assert guesses.smoothing.low == 0
    assert all(map(math.isinf, Forecast(guesses, 0.2).cycles_to(0.9)))
    plan = make_plan(RunConfig(cycles=7), guesses, Wishes(trainings=1000))
    assert plan.sizes.cycles == 7
    assert "no bounded forecast" in plan.predictions[0].why
    assert plan.as_values()["predictions"][0]["high"] is None


@pytest.mark.parametrize("cycles", [1, 2])
def test_short_pilots_measure_what_they_can(cycles: int) -> None:
    guesses = Guesses.of(make_table(0.2, cycles))
    assert guesses.elite_rate.source == "pilot"
    assert guesses.fit is None
    assert guesses.smoothing.source == ("guess" if cycles == 1 else "pilot")
    make_plan(RunConfig(), guesses, Wishes(trainings=1000))


def test_an_empty_pilot_leaves_the_guesses() -> None:
    empty = RunTable.of(RunConfig(), [], [CycleRow(cycle=0)], [])
    measured = Guesses.of(empty)
    assert {one.source for one in known(measured).values()} == {"guess"}


def test_all_mistakes_are_told_at_once() -> None:
    config = RunConfig(finetune=FinetuneConfig(enabled=False))
    wishes = Wishes(trainings=0, hours=-1.0, cycles=0, target=1.0, family=0.0, miss=2.0)
    with pytest.raises(PlanError) as raised:
        make_plan(config, said(elite_rate=0.8, valid_rate=0.5), wishes)
    told = "\n".join(raised.value.mistakes)
    for word in ("both given", "trainings = 0", "hours = -1", "seconds", "cycles = 0", "target = 1", "family = 0",
                 "miss = 2", "elite_rate = 0.8", "finetune.enabled"):  # fmt: skip
        assert word in told
    assert len(raised.value.mistakes) == 10


def test_hours_are_trainings_of_so_many_seconds() -> None:
    guesses = said(seconds=10.0)
    assert choose_sizes(RunConfig(), guesses, Wishes(hours=2.0)).trainings == 720
    config = RunConfig(cycles=4, candidates_per_cycle=50)
    assert choose_sizes(config, said(), Wishes()).trainings == round(4 * 50 * 0.5 * 0.9), "else the configuration's"


def test_shares_of_the_first_cycle_are_of_its_own_valid_programs_however_many_a_pilot_writes_later() -> None:
    table = make_table(0.0, 6, rate=0.2)
    broken = [
        replace(row, outcome=Outcome.SHAPE_ERROR, stage=Stage.BUILD, accuracy=None)
        if row.cycle == 0 and (row.accuracy or 1) < BAR and row.index % 4 == 1
        else row
        for row in table.candidates
    ]
    guesses = Guesses.of(RunTable.of(table.config, broken, table.cycles, table.evaluations))
    first = [row for row in broken if row.cycle == 0]
    valid = sum(row.accuracy is not None for row in first)
    assert guesses.first_valid_rate.estimate == valid / len(first) < guesses.valid_rate.estimate
    assert guesses.bar is not None
    elites = sum((row.accuracy or 0) >= guesses.bar.estimate for row in first)
    sizes = choose_sizes(RunConfig(), guesses, Wishes(trainings=5000))
    assert sizes.purest_quantile == pytest.approx(elites / valid)
    assert sizes.elites == pytest.approx(sizes.quantile * valid / len(first) * sizes.candidates)
    assert guesses.overrule({"valid_rate": Interval(0.7, 0.7, 0.7)}).first_valid_rate.estimate == 0.7


def test_gains_of_accuracy_come_from_the_measured_noise_and_are_left_out_without_one() -> None:
    without = make_plan(RunConfig(), said(reliability=0.8), Wishes(trainings=1000))
    assert not [one for one in without.predictions if one.unit == "accuracy"]
    assert any("`nas-ray reliability RUN` measures" in note for note in without.notes)
    plan = make_plan(RunConfig(), said(reliability=0.8, noise_sd=0.02, smoothing=0.1), Wishes(trainings=1000))
    curse, gain = (one.value for one in plan.predictions if one.unit == "accuracy")
    assert curse.estimate == pytest.approx(winners_curse(0.04, 0.02, plan.sizes.quantile))
    assert 0 < gain.estimate < 0.1 * 0.04 * 2
    assert not any("left out" in note for note in plan.notes)
    sure = make_plan(RunConfig(), said(reliability=(0.5, 1.0), noise_sd=0.02), Wishes(trainings=1000))
    assert next(one for one in sure.predictions if one.unit == "accuracy").value.low == 0


def test_where_all_are_kept_nothing_is_selected_and_nothing_is_learned() -> None:
    guesses = said(elite_rate=0.2, valid_rate=1.0, novel_rate=0.5, smoothing=0.2, noise_sd=0.02)
    plan = make_plan(RunConfig(selection=SelectionConfig(quantile=1.0)), guesses, Wishes(trainings=2))
    assert plan.sizes.quantile == 1
    told = {one.subject for one in plan.predictions}
    assert not told & {"selected programs that belong there", "elites' own accuracies too high by"}
    assert all(map(math.isinf, plan.sizes.to_target))
    assert Forecast(guesses, 1.0).share_after(50).estimate == pytest.approx(0.2)


def test_a_smoothing_that_is_0_but_for_rounding_gives_no_number_of_cycles() -> None:
    still = said(elite_rate=0.1, smoothing=1e-12, reliability=0.9)
    assert still.smoothing.estimate == 0
    for quantile in (0.1, 0.6):
        assert all(map(math.isinf, Forecast(still, quantile).cycles_to(0.9)))
    plan = make_plan(RunConfig(), replace(still, noise_sd=Known(0.02, 0.02, 0.02, "said")), Wishes(trainings=1000))
    assert not [one for one in plan.predictions if one.subject.startswith("scored programs")]
    slow = said(elite_rate=0.1, smoothing=1e-6, reliability=0.9)
    assert all(map(math.isinf, Forecast(slow, 0.6).cycles_to(0.9))), "what takes a million cycles is not forecast"
