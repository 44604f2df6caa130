"""Grading: the formula is the textbook's, and nothing but finite floats of the right shape gets a score."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas_ray.grading import InvalidOutput, grade


def test_a_grade_is_the_textbook_formula() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (200, 7)).astype(np.float32)
    labels = random.integers(0, 7, 200)
    right, total = 0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += max(range(7), key=lambda k: row[k]) == label
        total -= math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
    accuracy, loss = grade(logits, labels)
    assert accuracy == right / 200
    assert loss == pytest.approx(total / 200, rel=1e-9)


def test_huge_logits_overflow_nothing() -> None:
    logits = np.array([[3e38, -3e38], [3e38, -3e38]], dtype=np.float32)
    accuracy, loss = grade(logits, np.array([0, 0]))
    assert (accuracy, loss) == (1.0, 0.0)
    assert math.isfinite(grade(logits, np.array([1, 1]))[1])


def test_constant_logits_score_the_share_of_the_first_class_and_the_uniform_loss() -> None:
    accuracy, loss = grade(np.zeros((10, 5), dtype=np.float32), np.arange(10) % 5)
    assert accuracy == 0.2
    assert loss == pytest.approx(math.log(5))


def test_a_grade_leaves_the_logits_alone() -> None:
    logits = np.arange(6, dtype=np.float64).reshape(2, 3)
    grade(logits, np.array([0, 1]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(logits, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((3, 2), np.float32),
        np.zeros(4, np.float32),
        np.zeros((4, 2, 1), np.float32),
        np.zeros((4, 2), np.int64),
        np.zeros((4, 2), np.complex64),
    ],
)
def test_a_wrong_shape_or_type_is_invalid_output(logits: np.ndarray) -> None:
    with pytest.raises(InvalidOutput):
        grade(logits, np.zeros(4, np.int64))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_divergence(value: float) -> None:
    logits = np.zeros((4, 2), np.float32)
    logits[2, 1] = value
    with pytest.raises(InvalidOutput, match="broken protocol: 1 of 8"):
        grade(logits, np.zeros(4, np.int64))


def test_labels_outside_the_classes_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="labels run from 0 to 2"):
        grade(np.zeros((2, 2), np.float32), np.array([0, 2]))
