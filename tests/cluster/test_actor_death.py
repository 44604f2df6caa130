"""Every actor may die: the search goes on without a person, and its accounts still add up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome
from nas_ray.store import Store

CYCLES, CANDIDATES = 3, 10
SETTINGS = {
    "cycles": CYCLES,
    "candidates_per_cycle": CANDIDATES,
    "model.engine": "transformers",
    "model.concurrent_requests": 2,  # programs come in slowly, so that there is a middle to die in
    "finetune.epochs": 1,
    "dataset.train_limit": 300,
}
VICTIMS = ("Generator", "NoveltyIndex", "Evaluator")  # one in each cycle


def find_actor(driver: int, name: str) -> psutil.Process | None:
    """The newest worker process of that actor class below the driver's own Ray node."""
    titles = {"Evaluator": "ray::ResourceTrainable"}  # what Tune calls a trainable that got its resources
    wanted = titles.get(name, f"ray::{name}")
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(wanted):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


@pytest.mark.timeout(600)
def test_search_goes_on_when_generator_index_and_evaluator_are_killed(tmp_path: Path) -> None:
    folder = tmp_path / "bereaved"
    settings = [f"--set={key}={value}" for key, value in {**SETTINGS, "folder": tmp_path}.items()]
    log = (tmp_path / "log").open("w+")
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.search", "--run", folder.name, *settings],
        stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    killed = []
    try:
        for cycle, victim in enumerate(VICTIMS):
            deadline = time.monotonic() + 180
            while driver.poll() is None and time.monotonic() < deadline:
                under_way = list(folder.glob(f"completions/cycle={cycle:04d}/*.parquet"))
                process = find_actor(driver.pid, victim) if under_way else None
                if process is not None:
                    process.kill()
                    killed.append(victim)
                    break
                time.sleep(0.02)
        code = driver.wait(300)
    finally:
        if driver.poll() is None:
            driver.kill()
        log.seek(0)
        print(log.read())
    assert code == 0
    assert tuple(killed) == VICTIMS
    store = Store.open(folder)
    assert check_accounting(store) == []
    assert len(store.candidates()) == CYCLES * CANDIDATES
    assert not any(row.outcome in (Outcome.SANDBOX_ERROR, Outcome.NODE_LOST) for row in store.candidates())
