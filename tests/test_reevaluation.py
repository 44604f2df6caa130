"""What is measured again never mixes with the search's rows, and never with rows from other conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nas_ray.candidate import Build, Measurement
from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.config_file import override_config
from nas_ray.datasets import DatasetError
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.reevaluation import (
    Target,
    digest_of,
    load_targets,
    name_dataset,
    read_scores,
    refusal_row,
    training_rows,
)
from nas_ray.schema import CandidateRow, EvaluationRow

OWN = RunConfig()
TARGET = Target("digits", OWN.dataset, "d1", (1000, 1001), 1, "transfer", searched=True, built=True)
CANDIDATE = CandidateRow(
    run="r", cycle=2, index=3, id="aaaa", outcome=Outcome.VALID, stage=Stage.TRAIN, parameters=7, accuracy=0.5
)


def make_row(seed: int, accuracy: float | None = 0.5, **other: object) -> EvaluationRow:
    outcome = Outcome.VALID if accuracy is not None else Outcome.TIMEOUT
    row = EvaluationRow(
        id="aaaa", cycle=2, index=3, dataset="digits", protocol="d1", seed=seed, epochs=1, accuracy=accuracy, loss=None,
        outcome=outcome, purpose="transfer",
    )  # fmt: skip
    return replace(row, **other)  # type: ignore[arg-type]


def test_conditions_of_the_run_keep_the_protocols_own_digest_wherever_the_files_lie() -> None:
    elsewhere = OWN.dataset.model_copy(update={"name": "fashion-mnist", "root": "/data"})
    assert digest_of(OWN, OWN, elsewhere) == OWN.protocol.digest


@pytest.mark.parametrize("change", ["budget.parameters=9", "dataset.train_limit=9", "protocol.epochs=9"])
def test_every_change_of_conditions_is_another_digest(change: str) -> None:
    used = override_config(OWN, [change])
    assert digest_of(OWN, used, used.dataset) != digest_of(OWN, OWN, OWN.dataset)
    assert digest_of(OWN, used, used.dataset) == digest_of(OWN, override_config(OWN, [change]), used.dataset)


def test_conditions_that_do_not_touch_a_number_leave_the_digest() -> None:
    changes = ["resources.evaluator_cpus=2", "containment.floor=D", "protocol.seed=5", "budget.latency_ms=1"]
    used = override_config(OWN, changes)
    assert digest_of(OWN, used, used.dataset) == OWN.protocol.digest


def test_two_folders_of_images_are_two_data_sets(tmp_path: Path) -> None:
    names = {name_dataset(DatasetConfig(name="folder", root=str(tmp_path / one))) for one in ("a", "b")}
    assert names == {f"folder={tmp_path / 'a'}", f"folder={tmp_path / 'b'}"}
    assert name_dataset(DatasetConfig(name="mnist", root="/anywhere")) == "mnist"


def test_score_has_a_mean_once_every_seed_is_there() -> None:
    half = read_scores([make_row(1000, 0.4)], ["aaaa"], [TARGET])["aaaa", "digits"]
    assert (half.outcome, half.missing, half.accuracy, half.accuracies) == (None, (1001,), None, ())
    whole = read_scores([make_row(1001, 0.6), make_row(1000, 0.4)], ["aaaa"], [TARGET])["aaaa", "digits"]
    assert (whole.outcome, whole.missing, whole.accuracies) == (Outcome.VALID, (), (0.4, 0.6))
    assert whole.accuracy == pytest.approx(0.5)


def test_failure_from_one_seed_ends_a_candidate_there() -> None:
    score = read_scores([make_row(1000, None, detail="too slow")], ["aaaa"], [TARGET])["aaaa", "digits"]
    assert (score.outcome, score.missing, score.accuracy) == (Outcome.TIMEOUT, (), None)
    assert score.failure is not None
    assert score.failure.detail == "too slow"


@pytest.mark.parametrize(
    "other",
    [{"purpose": "search"}, {"protocol": "d2"}, {"seed": 0}, {"epochs": 2}, {"dataset": "mnist"}, {"id": "bbbb"}],
)
def test_rows_of_other_conditions_are_passed_over(other: dict[str, object]) -> None:
    rows = [replace(make_row(1000), **other), make_row(1001)]  # type: ignore[arg-type]
    assert read_scores(rows, ["aaaa"], [TARGET])["aaaa", "digits"].missing == (1000,)


def test_test_accuracies_are_kept_apart_from_the_validation_splits() -> None:
    rows = [make_row(seed, 0.1, split=split) for seed in TARGET.seeds for split in ("test", "validation")]
    rows = [replace(row, accuracy=0.9) if row.split == "test" else row for row in rows]
    score = read_scores(rows, ["aaaa"], [TARGET])["aaaa", "digits"]
    assert (score.accuracies, score.test_accuracies) == ((0.1, 0.1), (0.9, 0.9))


def test_training_with_test_images_gives_their_row_first_and_the_split_that_settles_it_last() -> None:
    measured = Measurement(
        Outcome.VALID, Stage.TRAIN, "", "", 1.0, accuracy=0.7, loss=1.0, test_accuracy=0.6, test_loss=2.0
    )
    build = Build(parameters=11, flops=13, activation_bytes=1, graph="", device="meta", seconds=0.0)
    test, validation = training_rows(CANDIDATE, TARGET, 1000, build, measured)
    assert (test.split, test.accuracy, test.loss) == ("test", 0.6, 2.0)
    assert (validation.split, validation.accuracy, validation.loss) == ("validation", 0.7, 1.0)
    assert (validation.parameters, validation.flops, validation.purpose) == (11, 13, "transfer")
    (alone,) = training_rows(CANDIDATE, TARGET, 1000, None, replace(measured, test_accuracy=None))
    assert (alone.split, alone.parameters) == ("validation", 7)


def test_refusal_is_a_row_like_any_other() -> None:
    refusal = Rejection(Outcome.TOO_LARGE, Stage.BUILD, "9 parameters > 8 allowed")
    row = refusal_row(CANDIDATE, TARGET, 1000, refusal)
    assert TARGET.holds(row)
    assert (row.outcome, row.detail, row.accuracy) == (Outcome.TOO_LARGE, "9 parameters > 8 allowed", None)


def test_all_data_sets_that_are_missing_are_named_at_once_with_what_to_do() -> None:
    targets = [
        replace(TARGET, name=name, dataset=DatasetConfig(name=name)) for name in ("digits", "imagenet", "folder")
    ]
    with pytest.raises(DatasetError, match=r"(?s)unknown data set 'imagenet'.*set dataset.root"):
        load_targets(targets, None)
