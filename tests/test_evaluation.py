"""A candidate's trainings come one after another, stop at the first failure, and survive being cut off anywhere."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sample_run import close_cycle, make_row

from nas_ray.candidate import Completion, Trial
from nas_ray.config import DatasetConfig, EvaluationConfig, ProtocolConfig, RunConfig
from nas_ray.evaluation import Evaluation, Plan, find_rungs
from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import EvaluationRow
from nas_ray.store import Store

OTHER = DatasetConfig(name="fashion-mnist")
WIDE = RunConfig(
    also=(OTHER,),
    protocol=ProtocolConfig(epochs=9, seed=5),
    evaluation=EvaluationConfig(seeds=2, scheduler="asha", grace_epochs=1, reduction_factor=3),
)
PLAN = Plan.of(WIDE)


def asha(longest: int, grace: int, factor: int) -> RunConfig:
    evaluation = EvaluationConfig(scheduler="asha", grace_epochs=grace, reduction_factor=factor)
    return RunConfig(protocol=ProtocolConfig(epochs=longest), evaluation=evaluation)


def train(trial: Trial, epochs: int, outcome: Outcome = Outcome.VALID) -> EvaluationRow:
    """The row of one training of `trial`, with numbers of its own."""
    accuracy = random.Random(f"{trial.dataset} {trial.seed} {epochs}").random()
    return EvaluationRow(
        id="id", cycle=0, index=0, dataset=trial.dataset, protocol=PLAN.digest(epochs), seed=trial.seed, epochs=epochs,
        accuracy=accuracy if outcome is Outcome.VALID else None, loss=1 - accuracy, outcome=outcome, detail="why",
        latency_ms=accuracy,
    )  # fmt: skip


@given(st.integers(2, 500), st.integers(1, 20), st.integers(2, 5))
def test_rungs_rise_to_the_protocols_epochs_and_cost_less_than_the_bound(longest: int, grace: int, factor: int) -> None:
    assume(grace < longest)
    rungs = find_rungs(asha(longest, grace, factor))
    assert rungs[0] == grace
    assert rungs[-1] == longest
    assert list(rungs) == sorted(set(rungs))
    if longest >= factor * grace:
        assert sum(rungs) <= longest * factor / (factor - 1)


def test_rungs_are_those_of_the_scheduler() -> None:
    assert find_rungs(asha(27, 1, 3)) == (1, 3, 9, 27)
    assert find_rungs(asha(10, 1, 3)) == (1, 3, 10)
    assert find_rungs(asha(5, 4, 3)) == (4, 5)
    assert find_rungs(RunConfig(protocol=ProtocolConfig(epochs=7))) == (7,)


def test_each_rung_carries_the_digest_of_a_protocol_of_its_own_length() -> None:
    assert PLAN.rungs == (1, 3, 9)
    assert PLAN.digests == tuple(ProtocolConfig(epochs=epochs).digest for epochs in PLAN.rungs)
    assert PLAN.places == (("digits", 5), ("fashion-mnist", 5), ("digits", 6), ("fashion-mnist", 6))


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 20), st.integers(0, 20))
def test_an_evaluation_cut_off_anywhere_trains_nothing_twice_and_ends_the_same(last: int, cut: int, again: int) -> None:
    """`last` is the rung that the scheduler ends at; after `cut` and `again` trainings the process dies."""
    rows: list[EvaluationRow] = []
    for death in (cut, again, 99):
        evaluation = Evaluation("code", PLAN, list(rows))
        while len(rows) < death and (trial := evaluation.next_trial()) is not None:
            wanted = [epochs for epochs in trial.epochs if len(trial.epochs) == 1 or epochs <= PLAN.rungs[last]]
            assert (trial.known is not None) == evaluation.holds(trial, trial.epochs[0])
            for epochs in wanted:
                if not evaluation.holds(trial, epochs) and len(rows) < death:
                    rows.append(train(trial, epochs))
                    evaluation.rows.append(rows[-1])
            if rows[-1].epochs == wanted[-1]:
                evaluation.end_trial(wanted[-1])
    keys = [(row.dataset, row.seed, row.epochs) for row in rows]
    assert len(set(keys)) == len(keys) == last + len(PLAN.places)
    grade = evaluation.grade
    assert grade is not None
    final = [row for row in rows if row.epochs == PLAN.rungs[last]]
    assert {(row.dataset, row.seed) for row in final} == set(PLAN.places)
    assert grade.epochs == PLAN.rungs[last]
    assert grade.accuracy == fmean(row.accuracy or 0 for row in final)
    assert grade.latency_ms == fmean(row.latency_ms or 0 for row in final if row.dataset == "digits")


def test_a_failure_ends_the_evaluation_and_names_where() -> None:
    evaluation = Evaluation("code", PLAN, [])
    trial = evaluation.next_trial()
    assert trial == Trial("code", "digits", 5, (1, 3, 9))
    evaluation.rows.append(train(trial, 1))
    evaluation.end_trial(1)
    second = evaluation.next_trial()
    assert second == Trial("code", "fashion-mnist", 5, (1,))
    evaluation.rows.append(train(second, 1, Outcome.DIVERGED))
    evaluation.end_trial(1)
    assert evaluation.next_trial() is None
    assert evaluation.grade is None
    assert evaluation.rejection is not None
    assert evaluation.rejection.detail == "on fashion-mnist, seed 5: why"


def test_a_rung_that_was_measured_before_is_told_to_the_scheduler_again_and_not_those_below_it() -> None:
    start = Trial("code", "digits", 5, (1, 3, 9))
    rows = [train(start, 1), train(start, 3)]
    assert Evaluation("code", PLAN, rows).next_trial() == replace(start, epochs=(3, 9), known=rows[1].accuracy)


def test_one_data_set_and_one_seed_are_one_training_and_its_detail_stays_as_it_is() -> None:
    config = RunConfig()
    plan = Plan.of(config)
    evaluation = Evaluation("code", plan, [])
    assert evaluation.next_trial() == Trial("code", "digits", 0, (1,))
    row = EvaluationRow(
        id="id", cycle=0, index=0, dataset="digits", protocol=config.protocol.digest, seed=0, epochs=1,
        accuracy=None, loss=None, outcome=Outcome.TIMEOUT, detail="60 s in train",
    )  # fmt: skip
    assert plan.holds(row)
    assert plan.reject(row, ("digits", 0)).detail == "60 s in train"


@pytest.fixture
def wide_run(tmp_path: Path) -> tuple[Store, list[EvaluationRow]]:
    """One valid candidate that ended at the second rung, with all of its rows; none of them is stored yet."""
    store = Store.create(tmp_path / "run", WIDE)
    trials = [Trial("code", name, seed, (3,)) for name, seed in PLAN.places]
    rows = [replace(train(Trial("code", "digits", 5, PLAN.rungs), 1), id="mine")]
    return store, [*rows, *(replace(train(trial, 3), id="mine") for trial in trials)]


def finish(store: Store, rows: list[EvaluationRow], *, accuracy: float | None = None, epochs: int = 3) -> list[str]:
    """What is wrong with the books of a run with these evaluations of its one candidate."""
    for row in rows:
        store.append_evaluation(row)
    mean = fmean(row.accuracy or 0 for row in rows if row.epochs == 3 and row.purpose == "search")
    row = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0))
    store.append_completion(Completion(0, 0, "prompt", 0, "text", 1, 1, 0.1, "stop", "vllm", 0), 0)
    store.append_candidate(replace(row, id="mine", accuracy=mean if accuracy is None else accuracy, epochs=epochs))
    close_cycle(store, 0)
    return check_accounting(store)


def test_rungs_seeds_and_data_sets_of_one_candidate_add_up(wide_run: tuple[Store, list[EvaluationRow]]) -> None:
    store, rows = wide_run
    final = [replace(rows[-1], purpose="final", split=split, accuracy=0.5) for split in ("validation", "test")]
    assert finish(store, [*rows, *final]) == []


@pytest.mark.parametrize("missing", [1, 4])
def test_a_missing_training_is_a_problem(wide_run: tuple[Store, list[EvaluationRow]], missing: int) -> None:
    store, rows = wide_run
    del rows[missing]
    assert finish(store, rows) == ["candidate (0, 0) is valid but lacks evaluations of 3 epochs"]


def test_another_mean_or_another_rung_is_a_problem(wide_run: tuple[Store, list[EvaluationRow]]) -> None:
    store, rows = wide_run
    said = "\n".join(finish(store, rows, accuracy=0.5, epochs=9))
    assert "candidate (0, 0) says 9 epochs, its last evaluation 3" in said
    assert "candidate (0, 0) says accuracy 0.5, its evaluations 0." in said


def test_a_candidate_that_fails_on_its_second_data_set_adds_up(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "run", WIDE)
    row = make_row(0, 0, (Outcome.DIVERGED, Stage.TRAIN), random.Random(0))
    first = replace(train(Trial("code", "digits", 5, (1,)), 1), id=row.id)
    failed = replace(train(Trial("code", "fashion-mnist", 5, (1,)), 1, Outcome.DIVERGED), id=row.id)
    store.append_evaluation(first)
    store.append_evaluation(failed)
    store.append_completion(Completion(0, 0, "prompt", 0, "text", 1, 1, 0.1, "stop", "vllm", 0), 0)
    store.append_candidate(row)
    assert check_accounting(store) == []


def test_a_program_written_again_after_the_engine_lost_it_keeps_what_was_measured(tmp_path: Path) -> None:
    config = RunConfig(evaluation=EvaluationConfig(seeds=2))
    store = Store.create(tmp_path / "run", config)
    lost = make_row(0, 0, (Outcome.NODE_LOST, Stage.TRAIN), random.Random(0))
    found = replace(make_row(0, 1, (Outcome.VALID, Stage.TRAIN), random.Random(0)), id=lost.id, accuracy=0.5)
    for seed, index in ((0, 0), (1, 1)):
        store.append_evaluation(
            EvaluationRow(
                id=lost.id, cycle=0, index=index, dataset="digits", protocol=config.protocol.digest, seed=seed,
                epochs=1, accuracy=0.5, loss=1.0,
            )
        )  # fmt: skip
    for row in (lost, found):
        store.append_completion(Completion(0, row.index, "prompt", 0, "text", 1, 1, 0.1, "stop", "vllm", 0), row.index)
        store.append_candidate(row)
    assert check_accounting(store) == []
