"""The part that is trained again is random, what selected never counts, and the estimates find what was put in."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from jobs.reliability_text import print_reliability
from nas_ray import rank_correlation
from nas_ray.config import DatasetConfig, EvaluationConfig, ProtocolConfig, RunConfig, SelectionConfig
from nas_ray.design_advice import WIDTH, advise, count_needed, kept_share, restrict
from nas_ray.interval import Interval
from nas_ray.outcome import Outcome, Stage
from nas_ray.reevaluation import ReevaluationError, Target
from nas_ray.reliability import Reliability, choose_random, plan_reliability
from nas_ray.retest import compare_orders
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.theory.reliability import rank_agreement

CONFIG = RunConfig(selection=SelectionConfig(quantile=0.25))
SIGMA_A, SIGMA_N = 0.1, 0.05  # so that the reliability of one training is 0.8


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 50)


def make_candidates(accuracies: Sequence[float], cycles: int = 1) -> list[CandidateRow]:
    return [
        CandidateRow(
            run="r", cycle=number % cycles, index=number, id=f"{number:016x}", outcome=Outcome.VALID, stage=Stage.TRAIN,
            novel=True, accuracy=accuracy,
        )
        for number, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def make_row(candidate: CandidateRow, target: Target, seed: int, accuracy: float | None) -> EvaluationRow:
    return EvaluationRow(
        id=candidate.id, cycle=candidate.cycle, index=candidate.index, dataset=target.name, protocol=target.protocol,
        seed=seed, epochs=target.epochs, accuracy=accuracy, loss=None, purpose=target.purpose,
        outcome=Outcome.DIVERGED if accuracy is None else Outcome.VALID,
    )  # fmt: skip


def make_table(
    programs: int = 60, seeds: int = 3, sigma_a: float = SIGMA_A, sigma_n: float = SIGMA_N, *, bad: float = 0.0,
    elite_noise: float = 1.0, fidelity: float = 0.8, long: int = 40, long_seeds: int = 2, drift: float = 0.0,
    cycles: int = 4, config: RunConfig = CONFIG, dice: int = 0,
) -> RunTable:  # fmt: skip
    """A run with normal qualities and noise: all of it trained once in the search, and again from `seeds` fresh seeds.

    `bad` is the share of programs that learn next to nothing, `drift` what each cycle's mean is above the last one's.
    """
    chance = np.random.default_rng(dice)
    [plan] = plan_reliability(config, max(seeds, 2))
    short, longer = plan
    plain = chance.normal(size=programs)
    quality = 0.5 + sigma_a * plain + drift * (np.arange(programs) % cycles)
    quality[: int(bad * programs)] = 0.1
    lasting = 0.6 + sigma_a * (fidelity * plain + math.sqrt(1 - fidelity**2) * chance.normal(size=programs))
    candidates = make_candidates([float(one + sigma_n * chance.normal()) for one in quality], cycles)
    elites = {row.id for row in sorted(candidates, key=lambda row: -(row.accuracy or 0))[: programs // 4]}
    search = replace(short, purpose="search")
    rows = [make_row(one, search, config.protocol.seed, one.accuracy) for one in candidates]
    for number, one in enumerate(candidates):
        noise = sigma_n * (elite_noise if one.id in elites else 1.0)
        rows += [
            make_row(one, short, seed, float(quality[number] + noise * chance.normal())) for seed in short.seeds[:seeds]
        ]
        rows += [
            make_row(one, longer, seed, float(lasting[number] + 0.02 * chance.normal()))
            for seed in longer.seeds[:long_seeds]
            if number < long
        ]
    closed = [
        CycleRow(cycle=cycle, elite_ids=tuple(row.id for row in candidates if row.cycle == cycle and row.id in elites))
        for cycle in range(cycles)
    ]
    return RunTable.of(config, candidates, closed, rows)


def read(table: RunTable) -> Reliability:
    measured = Reliability.read(table)
    assert measured is not None
    return measured


def holds(interval: Interval | None, truth: float) -> bool:
    assert interval is not None
    return interval.low <= truth <= interval.high


# What is measured


def test_a_larger_part_begins_with_the_smaller_one_and_later_cycles_leave_the_order() -> None:
    rows = make_candidates([0.1 + number / 200 for number in range(100)], cycles=5)
    drawn = choose_random(rows, 100)
    assert choose_random(rows, 12) == drawn[:12]
    early = [row for row in rows if row.cycle < 3]
    assert choose_random(early, 100) == [row for row in drawn if row.cycle < 3]
    assert {row.id for row in drawn} == {row.id for row in rows}


def test_which_programs_are_drawn_has_nothing_to_do_with_their_scores() -> None:
    rows = make_candidates([number / 100 for number in range(100)])
    turned = [replace(row, accuracy=1 - (row.accuracy or 0)) for row in rows]
    assert [row.id for row in choose_random(rows, 30)] == [row.id for row in choose_random(turned, 30)]
    assert 0.3 < np.mean([row.accuracy or 0 for row in choose_random(rows, 30)]) < 0.7


def test_only_novel_and_valid_candidates_are_drawn_and_a_run_without_any_says_so() -> None:
    good, old, broken = make_candidates([0.5, 0.5, 0.5])
    broken = replace(broken, outcome=Outcome.DIVERGED, accuracy=None)
    assert choose_random([good, replace(old, novel=False), broken], 9) == [good]
    with pytest.raises(ReevaluationError, match="no valid candidate yet"):
        choose_random([broken], 9)


def test_seeds_are_fresh_and_a_long_training_shares_none_with_a_short_one() -> None:
    [plan] = plan_reliability(RunConfig(protocol=ProtocolConfig(seed=7, epochs=2)), seeds=1000)
    assert plan.short.protocol == ProtocolConfig(epochs=2).digest
    assert (plan.short.epochs, plan.long.epochs) == (2, 10)
    assert plan.long.protocol == ProtocolConfig(epochs=10).digest
    assert not set(plan.short.seeds) & set(plan.long.seeds)
    assert min(plan.short.seeds + plan.long.seeds) > 50_000  # a search counts from 7, a transfer from 1007
    assert {plan.short.purpose, plan.long.purpose} == {"reliability"}


def test_each_data_set_of_the_run_has_a_plan_and_the_search_has_built_for_the_first_alone() -> None:
    config = RunConfig(also=(DatasetConfig(name="mnist"),))
    assert [(plan.short.name, plan.short.built) for plan in plan_reliability(config)] == [
        ("digits", True),
        ("mnist", False),
    ]
    assert [plan.long.name for plan in plan_reliability(config, dataset="mnist")] == ["mnist"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 1}, "--seeds is 1; .* give 2 or more"),
        ({"epochs": 1}, "--epochs is 1, .* trained for 1 .protocol.epochs.: give more"),
        ({"dataset": "svhn"}, "--dataset is 'svhn', .* it has: digits"),
    ],
)
def test_what_cannot_be_measured_says_what_can(options: dict[str, int | str], words: str) -> None:
    with pytest.raises(ReevaluationError, match=words):
        plan_reliability(CONFIG, **options)  # type: ignore[arg-type]


# What the rows say


def test_the_estimates_find_what_was_put_in() -> None:
    measured = read(make_table(programs=400, long=400, dice=1))
    assert (measured.programs, measured.seeds, measured.epochs, measured.searched) == (400, 3, 1, 400)
    for interval in (measured.icc, measured.mixed, measured.in_cycle, measured.selection):
        assert holds(interval, 0.8)
    assert measured.sigma_a == pytest.approx(SIGMA_A, rel=0.15)
    assert measured.sigma_n == pytest.approx(SIGMA_N, rel=0.1)
    agreement, fidelity, ratio = measured.agreement, measured.fidelity, measured.noise_ratio
    assert agreement is not None
    assert fidelity is not None
    assert ratio is not None
    assert holds(agreement.observed, rank_agreement(SIGMA_A, SIGMA_N).seed_seed_pair_agree)
    assert holds(agreement.reliability, 0.8)
    assert not agreement.refutes
    assert holds(fidelity.rho, 0.8)
    assert fidelity.rho.estimate > fidelity.observed
    assert (fidelity.n, fidelity.epochs) == (400, 5)
    assert holds(Interval(ratio.low, ratio.ratio, ratio.high), 1.0)
    assert (ratio.n_elites, ratio.n_others) == (100, 300)


def test_the_scores_that_selected_count_in_the_total_variance_alone() -> None:
    table = make_table()
    inflated = [
        replace(row, accuracy=(row.accuracy or 0) * 3) if row.purpose == "search" else row for row in table.evaluations
    ]
    before, after = read(table), read(replace(table, evaluations=tuple(inflated)))
    for name in ("icc", "sigma_a", "sigma_n", "agreement", "noise_ratio", "fidelity"):
        assert getattr(before, name) == getattr(after, name)
    assert before.mixed is not None
    assert after.mixed is not None
    assert after.mixed.estimate > before.mixed.estimate


def test_progress_of_the_run_is_no_reliability_within_a_cycle() -> None:
    measured = read(make_table(programs=400, drift=0.2))
    assert measured.icc is not None
    assert measured.mixed is not None
    assert min(measured.icc.low, measured.mixed.low) > 0.85
    assert holds(measured.in_cycle, 0.8)


def test_a_tail_of_bad_programs_makes_the_icc_high_and_the_order_no_surer() -> None:
    measured = read(make_table(programs=100, sigma_a=0.01, sigma_n=0.01, bad=0.1))
    assert measured.icc is not None
    assert measured.agreement is not None
    assert measured.selection is not None
    assert measured.icc.low > 0.95
    assert measured.agreement.refutes
    assert measured.selection == measured.agreement.reliability
    assert measured.selection.high < 0.8


def test_elites_that_are_noisier_are_found() -> None:
    ratio = read(make_table(programs=100, elite_noise=2.0)).noise_ratio
    assert ratio is not None
    assert ratio.low > 1
    assert ratio.p < 0.01


def test_luck_had_raised_the_scores_that_made_the_elites() -> None:
    measured = read(make_table(programs=400, sigma_n=0.1))
    assert measured.curse is not None
    assert measured.curse.low > 0
    mean_of_two = CONFIG.model_copy(update={"evaluation": EvaluationConfig(seeds=2)})
    assert read(make_table(config=mean_of_two)).curse is None


def test_failures_are_counted_and_their_programs_keep_the_scores_that_they_have() -> None:
    table = make_table(programs=20, long=0)
    failed = {f"{number:016x}" for number in range(4)}
    rows = [
        replace(row, accuracy=None, outcome=Outcome.DIVERGED)
        if row.id in failed and row.purpose == "reliability" and row.seed % 10 == 2
        else row
        for row in table.evaluations
    ]
    measured = read(replace(table, evaluations=tuple(rows)))
    assert measured.failures == {Outcome.DIVERGED: 4}
    assert (measured.programs, measured.trainings) == (20, 60)
    assert measured.agreement is not None
    assert measured.agreement.n == 16


def test_with_one_long_seed_the_long_score_counts_as_free_of_noise() -> None:
    one, two = read(make_table(long_seeds=1)).fidelity, read(make_table()).fidelity
    assert one is not None
    assert two is not None
    assert one.long_reliability is None
    assert two.long_reliability is not None
    assert two.long_reliability < 1


def test_rows_of_other_conditions_are_not_read() -> None:
    table = make_table()
    assert Reliability.read(table, "mnist") is None
    assert Reliability.read(replace(table, evaluations=table.evaluations[:60])) is None  # the search's own
    other = [replace(row, protocol="0123abcd") if row.purpose == "reliability" else row for row in table.evaluations]
    assert read(replace(table, evaluations=tuple(other))).programs == 0


def test_too_little_says_nothing_and_how_much_would_be_needed() -> None:
    table = make_table(programs=4)
    measured = read(table)
    found = (measured.icc, measured.mixed, measured.in_cycle, measured.agreement, measured.noise_ratio)
    assert found == (None,) * 5
    assert (measured.fidelity, measured.selection, measured.sigma_n) == (None, None, None)
    assert advise(measured, table) is None
    assert count_needed(measured) == 58  # for a reliability of 0.5 from three seeds; Bonett 2002
    assert read(make_table(long=4)).fidelity is None


def test_as_many_programs_as_are_said_to_be_needed_give_an_interval_of_that_width() -> None:
    needed = count_needed(read(make_table(programs=30, sigma_a=0.05)))
    icc = read(make_table(programs=needed, sigma_a=0.05, dice=1)).icc
    assert icc is not None
    assert icc.high - icc.low == pytest.approx(WIDTH, abs=0.12)


def test_bounds_of_the_agreement_hold_as_often_as_they_say() -> None:
    chance, truth = np.random.default_rng(1), rank_agreement(SIGMA_A, SIGMA_N).seed_seed_pair_agree
    held, runs = 0, 400
    for _ in range(runs):
        scores = SIGMA_A * chance.normal(size=(30, 1)) + SIGMA_N * chance.normal(size=(30, 3))
        found = compare_orders({str(one): dict(enumerate(row)) for one, row in enumerate(scores)}, Interval(0, 0, 0))
        assert found is not None
        held += holds(found.observed, truth)
    assert held / runs > 0.91  # 95 % and three standard errors of 400 runs are 0.917; the jackknife is a little narrow


# Seeds, epochs or neither


def test_a_noisy_score_of_which_few_are_kept_is_worth_seeds() -> None:
    few = CONFIG.model_copy(update={"selection": SelectionConfig(quantile=0.02)})
    table = make_table(programs=400, sigma_a=0.02, config=few, long=0)
    advice = advise(read(table), table)
    assert advice is not None
    assert (advice.verdict, advice.more_epochs) == ("seeds", None)
    assert advice.more_seeds.seeds > 1
    assert advice.more_seeds.candidates == advice.trained // advice.more_seeds.seeds
    assert advice.more_seeds.ratio.low > 1
    assert advice.certain
    assert advice.seeds_needed > 10


def test_a_sure_score_of_the_wrong_thing_is_worth_epochs() -> None:
    few = CONFIG.model_copy(update={"selection": SelectionConfig(quantile=0.02)})
    table = make_table(programs=400, sigma_n=0.01, fidelity=0.2, config=few, long=400)
    advice = advise(read(table), table)
    assert advice is not None
    assert advice.more_epochs is not None
    assert advice.verdict == "epochs"
    assert advice.more_epochs.epochs == 5
    assert advice.more_epochs.candidates == advice.trained // 5
    assert advice.more_epochs.ratio.low > 1 > advice.more_seeds.ratio.high


def test_a_sure_score_of_the_right_thing_is_worth_neither() -> None:
    table = make_table(programs=400, sigma_n=0.01, fidelity=0.98, long=400)
    advice = advise(read(table), table)
    assert advice is not None
    assert (advice.trained, advice.keep) == (100, 25)
    assert (advice.verdict, advice.certain) == ("neither", True)
    assert advice.precision.estimate > 0.9


def test_a_score_that_is_a_mean_is_surer_than_one_of_its_trainings() -> None:
    means = CONFIG.model_copy(update={"evaluation": EvaluationConfig(seeds=3)})
    table = make_table(programs=200, config=means)
    measured = read(table)
    advice = advise(measured, table)
    assert advice is not None
    assert measured.selection is not None
    assert advice.seeds == 3
    assert advice.reliability.estimate > measured.selection.estimate
    assert advice.more_seeds.seeds != 3


def test_a_long_training_is_judged_within_a_cycle_as_the_short_one_is() -> None:
    assert restrict(0.9, 0.8, 0.8) == pytest.approx(0.9)
    assert restrict(1.0, 0.9, 0.3) == 1
    spread, narrow, short, long = 0.2, 0.05, 0.05, 0.1  # standard deviations: of quality twice, of noise twice
    of_all, of_some = (one**2 / (one**2 + short**2) for one in (spread, narrow))
    assert restrict(spread**2 / (spread**2 + long**2), of_all, of_some) == pytest.approx(
        narrow**2 / (narrow**2 + long**2)
    )
    few = CONFIG.model_copy(update={"selection": SelectionConfig(quantile=0.02)})
    table = make_table(programs=400, sigma_a=0.05, drift=0.2, fidelity=0.95, config=few, long=400, dice=2)
    measured = read(table)
    assert measured.icc is not None
    assert measured.in_cycle is not None
    assert measured.icc.low > measured.in_cycle.high
    mixed = advise(measured, table)
    alike = advise(replace(measured, icc=measured.in_cycle), table)  # as if there were no footing to change
    assert mixed is not None
    assert alike is not None
    assert mixed.more_epochs is not None
    assert alike.more_epochs is not None
    assert mixed.more_epochs.ratio.estimate < alike.more_epochs.ratio.estimate


def test_the_bounds_of_more_epochs_hold_the_doubt_about_the_reliability_too() -> None:
    few = CONFIG.model_copy(update={"selection": SelectionConfig(quantile=0.02)})
    table = make_table(programs=200, sigma_n=0.1, fidelity=0.6, config=few, long=100)
    measured = read(table)
    assert measured.in_cycle is not None
    known = replace(measured, in_cycle=Interval(*[measured.in_cycle.estimate] * 3))
    wide, narrow = (advise(one, table) for one in (measured, known))
    assert wide is not None
    assert narrow is not None
    assert wide.more_epochs is not None
    assert narrow.more_epochs is not None
    assert wide.more_epochs.ratio.estimate == narrow.more_epochs.ratio.estimate
    assert wide.more_epochs.ratio.low < narrow.more_epochs.ratio.low
    assert narrow.more_epochs.ratio.high < wide.more_epochs.ratio.high


def test_what_asha_let_live_says_nothing_of_the_spread_within_a_cycle() -> None:
    asha = CONFIG.model_copy(update={"evaluation": EvaluationConfig(scheduler="asha")})
    table = make_table(programs=200, config=asha)
    measured = read(table)
    assert (measured.mixed, measured.in_cycle, measured.survivors) == (None, None, True)
    assert measured.selection == measured.icc
    assert "asha trained only the better programs to the end" in printed(measured, table)
    assert "asha" not in printed(read(make_table()), make_table())


def test_the_share_kept_is_the_quantile_or_what_the_run_kept() -> None:
    assert kept_share(make_table()) == 0.25
    threshold = CONFIG.model_copy(update={"selection": SelectionConfig(threshold=0.5, quantile=None)})
    table = make_table(programs=60, config=threshold)
    assert kept_share(table) == len(table.elites) / 60
    assert kept_share(replace(table, cycles=())) == 0


def test_one_elite_has_no_interval_and_no_chance_is_printed_as_0() -> None:
    table = make_table(programs=100, elite_noise=6.0)
    measured = read(table)
    one = replace(measured, curse=Interval(math.nan, 0.02, math.nan))
    text = printed(one, table)
    assert "measured 2.00 (one value has no interval)" in text
    assert "p < 0.001" in text
    assert "nan" not in text
    assert json.loads(json.dumps(one.as_values(), allow_nan=False))["curse"] == {
        "low": None, "estimate": 0.02, "high": None,
    }  # fmt: skip


def printed(measured: Reliability, table: RunTable) -> str:
    """What `nas-ray reliability` prints, its white space as single blanks."""
    console = Console(width=200, record=True, file=io.StringIO())
    print_reliability([(measured, advise(measured, table))], 0, [], console)
    return " ".join(console.export_text().split())


def test_where_everything_is_kept_a_score_decides_nothing() -> None:
    everything = CONFIG.model_copy(update={"selection": SelectionConfig(quantile=1.0)})
    table = make_table(config=everything)
    assert advise(read(table), table) is None


def test_everything_is_json() -> None:
    table = make_table()
    measured = read(table)
    advice = advise(measured, table)
    assert advice is not None
    said = json.loads(json.dumps({**measured.as_values(), "advice": advice.as_values()}, allow_nan=False))
    assert said["icc"]["low"] < said["icc"]["estimate"] < said["icc"]["high"]
    assert said["fidelity"]["rho"]["estimate"] == measured.fidelity.rho.estimate  # type: ignore[union-attr]
    assert said["advice"]["more_seeds"]["ratio"]["low"] >= 0
