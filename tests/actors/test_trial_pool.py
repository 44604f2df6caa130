"""Every program that goes into the pool comes out once, with evaluators dying on the way or not."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from candidate_programs import GOOD

from actors.trial_pool import EvaluationError, TrialPool
from nas_ray.candidate import Measurement
from nas_ray.config import BudgetConfig, DatasetConfig, ResourceConfig, RunConfig
from nas_ray.datasets import load_dataset
from nas_ray.outcome import Outcome

Key = tuple[int, int]

CONFIG = RunConfig(budget=BudgetConfig(train_seconds=15.0), resources=ResourceConfig(place_seconds=120.0))
# Says where it runs: its parent is the zygote, whose parent is the evaluator.
REVEALING = "import os\nprint(os.getppid())\nraise ValueError('seen')"
SLOW = "import time\ntime.sleep(4)\n" + GOOD
ENDLESS = "while True: pass"


@pytest.fixture(scope="module")
def pool(ray_session: None) -> Iterator[TrialPool]:
    pool = TrialPool(CONFIG, load_dataset(DatasetConfig()))
    yield pool
    pool.close()


def collect(pool: TrialPool, count: int) -> dict[Key, Measurement]:
    """Waits for `count` results; fails if a key comes twice."""
    results: list[tuple[Key, Measurement]] = []
    deadline = time.monotonic() + 240.0
    while len(results) < count and time.monotonic() < deadline:
        results += pool.results(timeout=1.0)
    keys = Counter(key for key, _ in results)
    assert len(keys) == len(results) == count, keys
    return dict(results)


def find_evaluator(measurement: Measurement) -> tuple[int, int]:
    """Pids of the evaluator and the zygote that measured `REVEALING`."""
    zygote = int(measurement.output)
    status = Path(f"/proc/{zygote}/status").read_text()
    (evaluator,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    return evaluator, zygote


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


def test_bursts_are_measured_by_the_same_warm_evaluators(pool: TrialPool) -> None:
    zygotes = set()
    for burst, size in enumerate((4, 1, 6)):
        for index in range(size):
            pool.submit((burst, index), REVEALING if index else GOOD)
        results = collect(pool, size)
        assert set(results) == {(burst, index) for index in range(size)}
        assert results[burst, 0].outcome is Outcome.VALID
        assert results[burst, 0].node == ray.nodes()[0]["NodeID"]
        assert results[burst, 0].tier in tuple("AB")
        zygotes |= {find_evaluator(measurement)[1] for key, measurement in results.items() if key[1]}
    assert 1 <= len(zygotes) <= 2
    assert (pool.in_flight, pool.capacity) == (0, 2)


def test_a_killed_evaluator_loses_nothing_and_others_go_on(pool: TrialPool) -> None:
    pool.submit((0, 0), REVEALING)
    evaluator, zygote = find_evaluator(collect(pool, 1)[0, 0])
    programs = [SLOW, SLOW, GOOD, ENDLESS]
    for index, code in enumerate(programs):
        pool.submit((1, index), code)
    time.sleep(2.0)
    os.kill(evaluator, signal.SIGKILL)
    results = collect(pool, len(programs))
    assert [results[1, index].outcome for index in range(3)] == [Outcome.VALID] * 3
    assert results[1, 3].outcome is Outcome.TIMEOUT
    assert wait_until_gone(zygote)


def test_release_ends_the_evaluators_and_the_next_program_starts_new_ones(pool: TrialPool) -> None:
    pool.submit((2, 0), REVEALING)
    _, before = find_evaluator(collect(pool, 1)[2, 0])
    pool.release()
    assert not Path(f"/proc/{before}").exists()
    pool.submit((2, 1), REVEALING)
    _, after = find_evaluator(collect(pool, 1)[2, 1])
    assert after != before


def test_close_kills_what_is_running_and_removes_its_files(
    pool: TrialPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.release()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool.submit((3, 0), REVEALING)
    _, zygote = find_evaluator(collect(pool, 1)[3, 0])
    assert list(tmp_path.iterdir())
    pool.submit((3, 1), SLOW)
    pool.submit((3, 2), SLOW)
    time.sleep(1.0)
    pool.close()
    assert wait_until_gone(zygote)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def lone_pool(ray_session: None) -> Iterator[TrialPool]:
    """One evaluator, and no second try."""
    config = CONFIG.model_copy(update={"resources": ResourceConfig(retries=0, evaluators=1)})
    pool = TrialPool(config, load_dataset(DatasetConfig()))
    yield pool
    pool.close()


def test_an_evaluation_whose_evaluator_is_killed_each_time_ends_as_node_lost(lone_pool: TrialPool) -> None:
    lone_pool.submit((0, 0), REVEALING)
    evaluator, _ = find_evaluator(collect(lone_pool, 1)[0, 0])
    lone_pool.submit((0, 1), ENDLESS)
    time.sleep(2.0)
    os.kill(evaluator, signal.SIGKILL)
    result = collect(lone_pool, 1)[0, 1]
    assert result.outcome is Outcome.NODE_LOST
    assert "attempt 1" in result.detail


def test_a_program_that_tries_to_kill_its_evaluator_is_forbidden_and_the_evaluator_lives(lone_pool: TrialPool) -> None:
    lone_pool.submit((0, 0), REVEALING)
    before = find_evaluator(collect(lone_pool, 1)[0, 0])
    lone_pool.submit((0, 1), f"import os, signal\nos.kill({before[0]}, signal.SIGKILL)\n" + GOOD)
    lone_pool.submit((0, 2), REVEALING)
    results = collect(lone_pool, 2)
    assert results[0, 1].outcome is Outcome.FORBIDDEN, results[0, 1]
    assert find_evaluator(results[0, 2]) == before


def test_no_free_place_is_a_clear_error_and_the_pool_still_closes(ray_session: None) -> None:
    resources = ResourceConfig(evaluator_cpus=64, place_seconds=1.0)
    pool = TrialPool(CONFIG.model_copy(update={"resources": resources}), load_dataset(DatasetConfig()))
    assert pool.capacity == 0
    pool.submit((0, 0), GOOD)
    with pytest.raises(EvaluationError, match=r"64 CPU on a single node; .* of 2 CPU free"):
        collect(pool, 1)
    pool.close()


def test_an_error_inside_tune_reaches_the_driver(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TrialPool(CONFIG, load_dataset(DatasetConfig()))
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    pool.submit((0, 0), GOOD)
    with pytest.raises(EvaluationError, match="FileNotFoundError"):
        collect(pool, 1)
    monkeypatch.undo()
    pool.close()
