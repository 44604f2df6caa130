"""The test split is looked at once: a round is kept before it is measured, finished as begun, and then shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from candidate_programs import GOOD
from sample_run import make_run

from nas_ray.candidate import Measurement
from nas_ray.config import BudgetConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import Dataset, append_test, load_dataset
from nas_ray.final_round import FinalRoundError, own_targets, plan_round, read_rounds, round_values
from nas_ray.funnel import check_accounting
from nas_ray.leaderboard import rank
from nas_ray.ledger import Ledger
from nas_ray.outcome import Outcome
from nas_ray.report import render_report
from nas_ray.sandbox import Sandbox
from nas_ray.schema import EvaluationRow, FinalRoundRow
from nas_ray.store import Store

DATASETS = {"digits": load_dataset(DatasetConfig())}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_run(folder, cycles=1)
    return folder


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    """A finished run of one cycle, the test's own."""
    return Store.open(shutil.copytree(template, tmp_path / "run"))


def begin(store: Store, **asked: int | bool) -> FinalRoundRow:
    row = plan_round(store, DATASETS, **asked)  # type: ignore[arg-type]
    store.append_final_round(row)
    return row


def measure(store: Store, row: FinalRoundRow, validation: float = 0.5, test: float = 0.5, fails: str = "") -> None:
    """Keep the rows that the trainings of a round would give; each finalist is a little better than the one before."""
    (target,) = own_targets(store.config, row)
    candidates = {one.id: one for one in rank(store.candidates())}
    for number, one in enumerate(row.ids):
        for seed in row.seeds:
            for split, base in (("test", test), ("validation", validation)):
                failed = one == fails
                if failed and (split == "test" or seed != row.seeds[0]):
                    continue
                store.append_evaluation(
                    EvaluationRow(
                        id=one, cycle=candidates[one].cycle, index=candidates[one].index, dataset=target.name,
                        protocol=target.protocol, seed=seed, epochs=target.epochs, purpose="final", split=split,
                        loss=None,
                        accuracy=None if failed else base + number / 100 + (seed - row.seeds[0]) / 1000,
                        outcome=Outcome.DIVERGED if failed else Outcome.VALID,
                    )
                )  # fmt: skip


def test_a_round_takes_the_best_of_the_leaderboard_for_longer_from_fresh_seeds(store: Store) -> None:
    row = plan_round(store, DATASETS, top=3)
    assert row.ids == tuple(one.id for one in rank(store.candidates(), 3))
    assert (row.round, row.epochs, row.seeds) == (0, 10, (2000, 2001, 2002))
    assert (row.datasets, row.test_images) == (("digits",), (len(DATASETS["digits"].test_labels),))
    assert len(plan_round(store, DATASETS, top=999).ids) == len(rank(store.candidates()))
    assert store.final_rounds() == []


def test_a_round_that_was_begun_is_finished_as_it_was_begun(store: Store) -> None:
    begun = begin(store, top=2, epochs=4, seeds=2)
    assert not read_rounds(store)[0].finished
    assert plan_round(store, DATASETS) == begun
    assert plan_round(store, DATASETS, top=2, epochs=4, force=True) == begun
    with pytest.raises(FinalRoundError, match="--top 2 --epochs 4 --seeds 2 was begun"):
        plan_round(store, DATASETS, top=3, force=True)


def test_more_finalists_than_there_are_is_the_same_round_as_all_of_them(store: Store) -> None:
    valid = len(rank(store.candidates()))
    begun = begin(store, top=valid + 1)
    assert plan_round(store, DATASETS, top=valid + 1) == plan_round(store, DATASETS, top=valid) == begun
    measure(store, begun)
    (final,) = read_rounds(store)
    assert final.finished
    assert final.answers(valid + 1, None, None)
    assert not final.answers(valid - 1, None, None)


def test_sizes_on_further_data_sets_of_a_run_are_those_of_a_build_there(store: Store) -> None:
    several = store.config.model_copy(update={"also": (DatasetConfig(name="mnist"),)})
    targets = own_targets(several, plan_round(store, DATASETS))
    assert [(one.name, one.searched, one.built) for one in targets] == [("digits", True, True), ("mnist", True, False)]


def test_a_measured_round_is_not_measured_again_unless_forced_and_looks_are_counted(store: Store) -> None:
    first = begin(store, top=2, seeds=2)
    measure(store, first)
    assert read_rounds(store)[0].finished
    for asked in ({}, {"top": 3}, {"epochs": 99}):
        with pytest.raises(FinalRoundError, match=r"(?s)not measured again.*second validation split.*--force"):
            plan_round(store, DATASETS, **asked)
    second = begin(store, top=2, seeds=2, force=True)
    assert second.round == 1
    assert not set(second.seeds) & set(first.seeds)
    measure(store, second, test=0.6)  # the same candidates and epochs: no row is in the way
    rounds = read_rounds(store)
    assert [one.finished for one in rounds] == [True, True]
    assert round_values(rounds[-1], len(rounds))["looks_at_the_test_split"] == 2
    assert "It was looked at 2 times" in render_report(store)


def test_validation_accuracy_chooses_and_not_the_test_split(store: Store) -> None:
    row = begin(store, top=3, seeds=2)
    (target,) = own_targets(store.config, row)
    for one, validation, test in zip(row.ids, (0.5, 0.9, 0.7), (0.9, 0.5, 0.7), strict=True):
        for seed in row.seeds:
            for split, accuracy in (("test", test), ("validation", validation)):
                store.append_evaluation(
                    EvaluationRow(
                        id=one, cycle=0, index=0, dataset="digits", protocol=target.protocol, seed=seed, epochs=10,
                        accuracy=accuracy, loss=None, split=split, purpose="final",
                    )
                )  # fmt: skip
    finalists = read_rounds(store)[0].of("digits")
    assert [one.candidate.id for one in finalists] == [row.ids[1], row.ids[2], row.ids[0]]
    assert finalists[0].test is not None
    assert finalists[0].test.estimate == pytest.approx(0.5)


def test_intervals_are_over_seeds_for_the_mean_and_over_images_for_each_training(store: Store) -> None:
    measure(store, begin(store, top=1, seeds=3), test=0.5)
    (finalist,) = read_rounds(store)[0].finalists
    assert finalist.test is not None
    assert finalist.test.estimate == pytest.approx(0.501)
    assert finalist.test.high - finalist.test.low < 0.01  # the seeds differ by 0.1 points
    assert len(finalist.trainings) == 3
    for interval in finalist.trainings:
        assert interval.high - interval.low == pytest.approx(0.103, abs=0.003)  # Wilson's at 0.5 of 359 images


def test_a_finalist_that_fails_has_no_number_and_comes_last(store: Store) -> None:
    row = begin(store, top=3, seeds=2)
    measure(store, row, fails=row.ids[0])
    final = read_rounds(store)[0]
    assert final.finished
    assert (final.finalists[-1].candidate.id, final.finalists[-1].score.outcome) == (row.ids[0], Outcome.DIVERGED)
    assert (final.finalists[-1].test, final.finalists[-1].trainings) == (None, [])
    assert "diverged" in render_report(store)
    assert json.loads(json.dumps(round_values(final, 1)))["finalists"][-1]["outcome"] == "diverged"


def test_a_final_round_changes_nothing_of_what_the_search_knows(store: Store) -> None:
    before = Ledger(store)
    measure(store, begin(store))
    after = Ledger(store)
    assert all(after.evaluations(row.id) == before.evaluations(row.id) for row in before.rows())
    assert check_accounting(store) == []


def test_a_run_without_a_valid_candidate_has_no_final_round(tmp_path: Path) -> None:
    with pytest.raises(FinalRoundError, match="no valid candidate yet"):
        plan_round(make_run(tmp_path / "run", cycles=0, unfinished=1), DATASETS)


def test_one_training_predicts_both_splits_and_they_are_graded_apart() -> None:
    dataset = load_dataset(DatasetConfig(train_limit=300, validation_limit=100))
    alone, both = (_evaluate(one) for one in (dataset, append_test(dataset)))
    assert alone.test_accuracy is None
    assert both.accuracy == pytest.approx(alone.accuracy, abs=0.011)  # batches of another size may tip one image
    assert both.test_accuracy is not None
    right = both.test_accuracy * len(dataset.test_labels)
    assert right == pytest.approx(round(right))
    assert both.test_accuracy > 0.2  # of ten classes


def _evaluate(dataset: Dataset) -> Measurement:
    with Sandbox("cpu", dataset, ProtocolConfig(), BudgetConfig()) as sandbox:
        return sandbox.evaluate(GOOD)
