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
from nas_ray.candidate import Measurement, Trial
from nas_ray.config import (
    BudgetConfig,
    DatasetConfig,
    EvaluationConfig,
    ProtocolConfig,
    ResourceConfig,
    RunConfig,
)
from nas_ray.datasets import load_dataset
from nas_ray.outcome import Outcome

Key = tuple[int, int]

CONFIG = RunConfig(budget=BudgetConfig(train_seconds=15.0), resources=ResourceConfig(place_seconds=120.0))
# Says where it runs: its parent is the zygote, whose parent is the evaluator.
REVEALING = "import os\nprint(os.getppid())\nraise ValueError('seen')"
SLOW = "import time\ntime.sleep(4)\n" + GOOD
ENDLESS = "while True: pass"
DATASETS = {"digits": load_dataset(DatasetConfig()), "coarse digits": load_dataset(DatasetConfig(), resolution=4)}


def trial(code: str) -> Trial:
    return Trial(code, "digits", seed=0, epochs=(1,))


@pytest.fixture(scope="module")
def pool(ray_session: None) -> Iterator[TrialPool]:
    pool = TrialPool(CONFIG, DATASETS)
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
            pool.submit((burst, index), trial(REVEALING if index else GOOD))
        results = collect(pool, size)
        assert set(results) == {(burst, index) for index in range(size)}
        assert results[burst, 0].outcome is Outcome.VALID
        assert results[burst, 0].node == ray.nodes()[0]["NodeID"]
        assert results[burst, 0].tier in tuple("AB")
        zygotes |= {find_evaluator(measurement)[1] for key, measurement in results.items() if key[1]}
    assert 1 <= len(zygotes) <= 2
    assert (pool.in_flight, pool.capacity) == (0, 2)


def test_a_killed_evaluator_loses_nothing_and_others_go_on(pool: TrialPool) -> None:
    pool.submit((0, 0), trial(REVEALING))
    evaluator, zygote = find_evaluator(collect(pool, 1)[0, 0])
    programs = [SLOW, SLOW, GOOD, ENDLESS]
    for index, code in enumerate(programs):
        pool.submit((1, index), trial(code))
    time.sleep(2.0)
    os.kill(evaluator, signal.SIGKILL)
    results = collect(pool, len(programs))
    assert [results[1, index].outcome for index in range(3)] == [Outcome.VALID] * 3
    assert results[1, 3].outcome is Outcome.TIMEOUT
    assert wait_until_gone(zygote)


def test_release_ends_the_evaluators_and_the_next_program_starts_new_ones(pool: TrialPool) -> None:
    pool.submit((2, 0), trial(REVEALING))
    _, before = find_evaluator(collect(pool, 1)[2, 0])
    pool.release()
    assert not Path(f"/proc/{before}").exists()
    pool.submit((2, 1), trial(REVEALING))
    _, after = find_evaluator(collect(pool, 1)[2, 1])
    assert after != before


def test_close_kills_what_is_running_and_removes_its_files(
    pool: TrialPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.release()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pool.submit((3, 0), trial(REVEALING))
    _, zygote = find_evaluator(collect(pool, 1)[3, 0])
    assert list(tmp_path.iterdir())
    pool.submit((3, 1), trial(SLOW))
    pool.submit((3, 2), trial(SLOW))
    time.sleep(1.0)
    pool.close()
    assert wait_until_gone(zygote)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def lone_pool(ray_session: None) -> Iterator[TrialPool]:
    """One evaluator, and no second try."""
    config = CONFIG.model_copy(update={"resources": ResourceConfig(retries=0, evaluators=1)})
    pool = TrialPool(config, DATASETS)
    yield pool
    pool.close()


def test_an_evaluation_whose_evaluator_is_killed_each_time_ends_as_node_lost(lone_pool: TrialPool) -> None:
    lone_pool.submit((0, 0), trial(REVEALING))
    evaluator, _ = find_evaluator(collect(lone_pool, 1)[0, 0])
    lone_pool.submit((0, 1), trial(ENDLESS))
    time.sleep(2.0)
    os.kill(evaluator, signal.SIGKILL)
    result = collect(lone_pool, 1)[0, 1]
    assert result.outcome is Outcome.NODE_LOST
    assert "attempt 1" in result.detail


def test_a_program_that_tries_to_kill_its_evaluator_is_forbidden_and_the_evaluator_lives(lone_pool: TrialPool) -> None:
    lone_pool.submit((0, 0), trial(REVEALING))
    before = find_evaluator(collect(lone_pool, 1)[0, 0])
    lone_pool.submit((0, 1), trial(f"import os, signal\nos.kill({before[0]}, signal.SIGKILL)\n" + GOOD))
    lone_pool.submit((0, 2), trial(REVEALING))
    results = collect(lone_pool, 2)
    assert results[0, 1].outcome is Outcome.FORBIDDEN, results[0, 1]
    assert find_evaluator(results[0, 2]) == before


def test_one_evaluator_trains_on_every_data_set_and_from_any_seed(lone_pool: TrialPool) -> None:
    trials = [Trial(GOOD, name, seed, (1,)) for name in DATASETS for seed in (0, 1)] * 2
    for index, one in enumerate(trials):
        lone_pool.submit((0, index), one)
    results = collect(lone_pool, len(trials))
    losses = [results[0, index].loss for index in range(len(trials))]
    assert losses[:4] == losses[4:]
    assert len(set(losses)) == 4
    with pytest.raises(ValueError, match="no data set 'imagenet'; it has digits, coarse digits"):
        lone_pool.submit((1, 0), Trial(GOOD, "imagenet", 0, (1,)))


RUNGS = (1, 2, 4)
# As good as chance, however long it is trained.
GUESSING = GOOD.replace("return self.head(", "return 0 * self.head(", 1)
# As GOOD, but the second rung takes its time.
PAUSING = GOOD.replace(
    "        self.conv =", "        import time; time.sleep(5 * (prm['epoch'] == 2))\n        self.conv =", 1
)


@pytest.fixture
def halving_pool(ray_session: None) -> Iterator[TrialPool]:
    """ASHA, one trial after another, so that what it compares with is known."""
    evaluation = EvaluationConfig(scheduler="asha", grace_epochs=1, reduction_factor=2)
    config = CONFIG.model_copy(
        update={
            "resources": ResourceConfig(evaluators=1),
            "protocol": ProtocolConfig(epochs=RUNGS[-1]),
            "evaluation": evaluation,
        }
    )
    pool = TrialPool(config, DATASETS)
    yield pool
    pool.close()


def climb(pool: TrialPool, key: Key, one: Trial) -> list[Measurement]:
    """Submits a trial and waits for its end."""
    pool.submit(key, one)
    found: list[Measurement] = []
    deadline = time.monotonic() + 240.0
    while not (found and found[-1].final) and time.monotonic() < deadline:
        results = pool.results(timeout=1.0)
        assert {name for name, _ in results} <= {key}
        found += [measurement for _, measurement in results]
    return found


def test_halving_lets_the_better_program_climb_and_stops_the_worse_at_the_first_rung(halving_pool: TrialPool) -> None:
    first = climb(halving_pool, (0, 0), Trial(GOOD, "digits", 0, RUNGS))
    assert [(one.epochs, one.final) for one in first] == [(1, False), (2, False), (4, True)]
    assert (first[0].accuracy or 0) < (first[2].accuracy or 0)
    worse = climb(halving_pool, (0, 1), Trial(GUESSING, "digits", 0, RUNGS))
    assert [(one.epochs, one.final) for one in worse] == [(1, True)]
    broken = climb(halving_pool, (0, 2), Trial("x = 1", "digits", 0, RUNGS))
    assert [(one.outcome, one.epochs, one.final) for one in broken] == [(Outcome.CONTRACT_ERROR, 1, True)]
    alone = climb(halving_pool, (0, 3), Trial(GUESSING, "digits", 0, (4,)))
    assert [(one.epochs, one.final) for one in alone] == [(4, True)]
    known = climb(halving_pool, (0, 4), Trial(GUESSING, "digits", 0, RUNGS[1:], known=worse[0].accuracy))
    assert [(one.epochs, one.seconds, one.final) for one in known] == [(2, 0.0, True)]


def test_an_evaluator_killed_between_two_rungs_repeats_none(halving_pool: TrialPool) -> None:
    halving_pool.submit((0, 0), trial(REVEALING))
    evaluator, _ = find_evaluator(collect(halving_pool, 1)[0, 0])
    halving_pool.submit((0, 1), Trial(PAUSING, "digits", 0, RUNGS))
    results = collect(halving_pool, 1)
    assert not results[0, 1].final
    os.kill(evaluator, signal.SIGKILL)
    rest: list[Measurement] = []
    deadline = time.monotonic() + 240.0
    while not (rest and rest[-1].final) and time.monotonic() < deadline:
        rest += [measurement for _, measurement in halving_pool.results(timeout=1.0)]
    assert [(one.outcome, one.epochs) for one in rest] == [(Outcome.VALID, 2), (Outcome.VALID, 4)]


def test_no_free_place_is_a_clear_error_and_the_pool_still_closes(ray_session: None) -> None:
    resources = ResourceConfig(evaluator_cpus=64, place_seconds=1.0)
    pool = TrialPool(CONFIG.model_copy(update={"resources": resources}), DATASETS)
    assert pool.capacity == 0
    pool.submit((0, 0), trial(GOOD))
    with pytest.raises(EvaluationError, match=r"64 CPU on a single node; .* of 2 CPU free"):
        collect(pool, 1)
    pool.close()


def test_an_error_inside_tune_reaches_the_driver(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TrialPool(CONFIG, DATASETS)
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    pool.submit((0, 0), trial(GOOD))
    with pytest.raises(EvaluationError, match="FileNotFoundError"):
        collect(pool, 1)
    monkeypatch.undo()
    pool.close()
