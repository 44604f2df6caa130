"""Builds come back in the order of submission, whatever happens to a builder."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from candidate_programs import GOOD

from actors.builder import BuilderPool, Key
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig, ResourceConfig, RunConfig
from nas_ray.outcome import Outcome, Rejection

CONFIG = RunConfig(budget=BudgetConfig(build_seconds=5.0), resources=ResourceConfig(builders=2, retries=2))
CRASH = "import os\nos.abort()"
PAUSE = "import time\ntime.sleep(0.5)\n" + GOOD


@pytest.fixture(scope="module")
def builders(ray_session: None) -> Iterator[BuilderPool]:
    builders = BuilderPool(CONFIG, (1, 1, 8, 8), (10,))
    yield builders
    builders.close()


def collect(builders: BuilderPool, count: int) -> list[tuple[Key, Build | Rejection]]:
    results: list[tuple[Key, Build | Rejection]] = []
    deadline = time.monotonic() + 200.0
    while len(results) < count and time.monotonic() < deadline:
        results += builders.results(timeout=1.0)
    return results


def test_results_come_in_the_order_of_submission(builders: BuilderPool) -> None:
    programs = [PAUSE, GOOD, CRASH, GOOD, "x = ", GOOD]
    for index, code in enumerate(programs):
        builders.submit((0, index), code)
    assert builders.in_flight == len(programs)
    results = collect(builders, len(programs))
    assert [key for key, _ in results] == [(0, index) for index in range(len(programs))]
    words = [found.outcome if isinstance(found, Rejection) else Outcome.VALID for _, found in results]
    assert words[2] is Outcome.CRASHED
    assert words[4] is Outcome.BUILD_ERROR
    assert [words[index] for index in (0, 1, 3, 5)] == [Outcome.VALID] * 4
    assert builders.in_flight == 0


def test_a_killed_builder_is_replaced_and_its_programs_built(builders: BuilderPool) -> None:
    for index in range(8):
        builders.submit((1, index), PAUSE)
    ray.kill(builders._actors[0])
    results = collect(builders, 8)
    assert [key for key, _ in results] == [(1, index) for index in range(8)]
    assert all(isinstance(found, Build) for _, found in results), results
