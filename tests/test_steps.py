"""The order of a child's words: every honest way is allowed, and no result comes before its step."""

from __future__ import annotations

import itertools

import pytest

from nas_ray.candidate import Build
from nas_ray.outcome import Outcome
from nas_ray.sandbox.messages import Failed, Step, Trained, may_conclude, may_follow

BUILT = Build(1, 1, 1, "0" * 16, "meta", 0.1)
TRAINED = Trained(0.1, 0, ())
FAILED = Failed(Outcome.BUILD_ERROR, "ValueError", "no")

WAYS = {
    "build": [Step.IMPORT, Step.INIT, Step.FORWARD],
    "build on the CPU after a failed pass": [Step.IMPORT, Step.INIT, Step.FORWARD, Step.INIT, Step.FORWARD],
    "build on the CPU after a failed constructor": [Step.IMPORT, Step.INIT, Step.INIT, Step.FORWARD],
    "fixed protocol": [Step.IMPORT, Step.INIT, Step.TRAIN, Step.PREDICT],
    "candidate's own": [Step.IMPORT, Step.HYPERPARAMETERS, Step.INIT, Step.SETUP, Step.LEARN, Step.PREDICT],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_honest_childs_way_is_allowed(way: list[Step]) -> None:
    assert all(may_follow(step, before) for before, step in itertools.pairwise([Step.START, *way]))


def test_nothing_comes_before_the_start_and_nothing_after_prediction() -> None:
    assert not any(may_follow(Step.START, before) for before in Step)
    assert not any(may_follow(step, Step.PREDICT) for step in Step)


def test_the_images_are_not_asked_for_before_training() -> None:
    assert {before for before in Step if may_follow(Step.PREDICT, before)} == {Step.TRAIN, Step.LEARN}


@pytest.mark.parametrize("step", Step)
def test_a_result_comes_at_the_end_of_its_task_and_a_failure_any_time(step: Step) -> None:
    assert may_conclude(FAILED, step)
    assert may_conclude(BUILT, step) is (step is Step.FORWARD)
    assert may_conclude(TRAINED, step) is (step is Step.PREDICT)
