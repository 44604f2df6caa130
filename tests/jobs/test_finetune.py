"""The fine-tune as a Ray Train job: on a cluster whose CPUs are all taken, with a killed worker, with two workers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.util import placement_group, remove_placement_group
from safetensors.torch import load_file
from sample_run import make_run

from actors.finetune_workers import FinetuneWorkers
from jobs.finetune import describe, finetune, finetune_again, open_workers
from nas_ray import grammar, seed_model
from nas_ray.config import RunConfig
from nas_ray.finetune_report import FinetuneError, FinetuneReport
from nas_ray.ledger import Ledger
from nas_ray.likelihood import World
from nas_ray.lora import train_adapter
from nas_ray.replay import Pair, choose_pairs
from nas_ray.store import Store

DIGITS = ((1, 8, 8), 10, 500_000)
CONFIG = RunConfig.model_validate({"finetune": {"epochs": 2, "rank": 4, "batch_size": 4, "attempts": 2}})


def with_finetune(**changes: object) -> RunConfig:
    return CONFIG.model_copy(update={"finetune": CONFIG.finetune.model_copy(update=changes)})


def pairs_of(count: int, seed: int = 0) -> list[Pair]:
    rng = random.Random(seed)
    programs = [grammar.sample_program(rng, *DIGITS) for _ in range(count)]
    return [Pair(f"{seed:04d}{i:04d}", grammar.prompt(*DIGITS), program, 0, 0.5) for i, program in enumerate(programs)]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "adapters"


@pytest.fixture(scope="module")
def workers(ray_session: None, adapters: Path) -> Iterator[FinetuneWorkers]:
    """Warm workers, on a cluster of which every CPU is taken, as by idle evaluators."""
    taken = placement_group([{"CPU": 1.0}] * int(ray.cluster_resources()["CPU"]))
    assert taken.wait(60)
    workers = open_workers(CONFIG, adapters)
    yield workers
    workers.close()
    remove_placement_group(taken)


@pytest.fixture(scope="module")
def first(workers: FinetuneWorkers, adapters: Path) -> FinetuneReport:
    return finetune(pairs_of(6), pairs_of(2, seed=1), CONFIG, 1, None, adapters, 0, workers)


def worker_processes() -> list[int]:
    """Process ids of Ray Train's workers in this test session's cluster."""
    mine = psutil.Process().children(recursive=True)
    return [process.pid for process in mine if "RayTrainWorker" in " ".join(process.cmdline())]


def test_an_adapter_is_made_while_every_cpu_is_taken(first: FinetuneReport, adapters: Path) -> None:
    assert first.adapter == str(adapters / "0001")
    assert (first.version, first.reason) == (1, "")
    assert sum(first.nll_after_train) < sum(first.nll_before_train)
    assert len(first.nll_after_held_out) == 2
    assert (adapters / "0001" / "adapter_model.safetensors").exists()
    assert FinetuneReport.load(adapters / "0001") == first


def test_the_next_cycle_finds_the_worker_warm_and_continues_from_the_last_adapter(
    first: FinetuneReport, workers: FinetuneWorkers, adapters: Path
) -> None:
    before = worker_processes()
    second = finetune(pairs_of(6), [], CONFIG, 2, first.adapter, adapters, 0, workers)
    assert worker_processes() == before
    assert len(before) == 1
    assert second.nll_before_train == pytest.approx(first.nll_after_train, rel=1e-4)
    assert second.previous == first.adapter


def test_a_version_that_is_whole_is_not_made_again(first: FinetuneReport, adapters: Path) -> None:
    assert finetune(pairs_of(6), [], CONFIG, 1, None, adapters, 0) == first
    with pytest.raises(FinetuneError, match="other programs"):
        finetune(pairs_of(6, seed=5), [], CONFIG, 1, None, adapters, 0)


def test_a_killed_worker_is_replaced_and_goes_on_from_the_last_epoch(
    first: FinetuneReport, workers: FinetuneWorkers, adapters: Path
) -> None:
    reports: list[FinetuneReport] = []
    config, pairs = with_finetune(epochs=40), pairs_of(8)
    job = threading.Thread(target=lambda: reports.append(finetune(pairs, [], config, 3, None, adapters, 0, workers)))
    old = worker_processes()
    job.start()
    done: list[int] = []
    while not done or min(done) < 2:  # Ray Train removes an epoch's checkpoint when it has taken note of the next one
        assert job.is_alive()
        time.sleep(0.01)
        done = [int(path.name.rpartition("-")[2]) for path in adapters.glob(".finetune-*.tmp/train/*-epoch-*")]
    os.kill(old[0], signal.SIGKILL)
    job.join()
    assert reports[0].reason == ""
    assert len(reports[0].resumed) == 1
    assert reports[0].resumed[0] >= 1
    assert len(reports[0].losses) == 40
    assert (adapters / "0003" / "adapter_model.safetensors").exists()
    assert old[0] not in worker_processes()


def test_a_mistake_is_told_and_not_tried_again(workers: FinetuneWorkers, adapters: Path) -> None:
    report = finetune(pairs_of(2), [], with_finetune(targets=("c_attn",)), 4, None, adapters, 0, workers)
    assert report.adapter == ""
    assert "q_proj" in report.reason
    assert not (adapters / "0004").exists()


def test_without_elites_or_with_fine_tuning_off_there_is_no_adapter_and_no_crash(adapters: Path) -> None:
    assert "no elites" in finetune([], pairs_of(1), CONFIG, 9, None, adapters, 0).reason
    assert "enabled" in finetune(pairs_of(1), [], with_finetune(enabled=False), 9, None, adapters, 0).reason
    assert not (adapters / "0009").exists()


def test_two_workers_come_to_the_adapter_of_one(ray_session: None, tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=1)
    store = Store(store.place, store.config.model_copy(update={"finetune": with_finetune(workers=2).finetune}))
    report = finetune_again(store, out=str(tmp_path / "out"))
    assert report.workers == 2
    lesson = choose_pairs(Ledger(store).pairs(), store.config.finetune, 0, store.config.seed)
    alone = train_adapter(
        str(seed_model.folder()),
        lesson.training,
        lesson.held_out,
        store.config.finetune,
        "auto",
        None,
        tmp_path / "alone",
        store.config.seed,
        "cpu",
        world=World(),
    )
    assert report.nll_after_train == pytest.approx(alone.nll_after_train, rel=1e-3)
    assert report.losses == pytest.approx(alone.losses, rel=1e-4)
    mine, theirs = (load_file(Path(folder) / "adapter_model.safetensors") for folder in (alone.adapter, report.adapter))
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in mine)
    assert "nats a program" in describe(report)


def test_an_unfinished_cycle_cannot_be_fine_tuned_on(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="no finished cycle"):
        finetune_again(make_run(tmp_path / "empty", cycles=0))
    with pytest.raises(FinetuneError, match="finished are 0 to 0"):
        finetune_again(make_run(tmp_path / "run", cycles=1), cycle=3)
