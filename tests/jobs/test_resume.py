"""A run that dies goes on: nothing finished is lost or done twice, and every candidate has exactly one final row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nas_ray.funnel import check_accounting
from nas_ray.store import Store

CYCLES, CANDIDATES = 2, 8
SETTINGS = {
    "cycles": CYCLES,
    "candidates_per_cycle": CANDIDATES,
    "model.engine": "transformers",  # starts faster than vLLM; the way through the driver is the same
    "model.concurrent_requests": 4,
    "selection.quantile": 0.5,
    "finetune.epochs": 3,
    "dataset.train_limit": 300,
}
MOMENTS = ("generation", "evaluation", "fine-tune", "swap", "compaction")


def run(command: list[str], *, moment: str | None = None) -> subprocess.CompletedProcess[str]:
    script = [str(Path(__file__).with_name("killed_driver.py")), moment] if moment else ["-m", "jobs.cli"]
    return subprocess.run(
        [sys.executable, *script, *command],
        text=True,
        capture_output=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )


@pytest.mark.timeout(900)
def test_run_killed_at_five_moments_ends_with_one_final_row_for_every_candidate(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    start = ["search", "--run", folder.name, *(f"--set={key}={value}" for key, value in SETTINGS.items())]
    command = [*start, f"--set=folder={tmp_path}"]
    evaluated: dict[tuple[int, int], object] = {}
    for moment in MOMENTS:
        ended = run(command, moment=moment)
        assert ended.returncode == -signal.SIGKILL, f"not killed during {moment}:\n{ended.stdout}\n{ended.stderr}"
        finished = {(row.cycle, row.index): row for row in Store.open(folder).evaluations()}
        assert evaluated.items() <= finished.items(), f"an evaluation was lost or repeated after {moment}"
        evaluated = finished
        command = ["resume", str(folder)]

    ended = run(command)
    assert ended.returncode == 0, ended.stderr
    store = Store.open(folder)
    assert check_accounting(store) == []
    assert len(store.candidates()) == CYCLES * CANDIDATES
    assert sorted((row.cycle, row.index) for row in store.candidates()) == [
        (cycle, index) for cycle in range(CYCLES) for index in range(CANDIDATES)
    ]
    assert evaluated.items() <= {(row.cycle, row.index): row for row in store.evaluations()}.items()
    assert len(store.cycles()) == CYCLES
    for cycle in range(CYCLES):
        assert len(list((folder / "candidates" / f"cycle={cycle:04d}").iterdir())) == 1, "a closed cycle is compacted"


@pytest.mark.timeout(600)
def test_killed_run_ends_with_the_same_candidates_as_one_that_was_left_alone(tmp_path: Path) -> None:
    """Same seed, same engine: a kill in the middle of the first cycle changes nothing of what that cycle found."""
    settings = [f"--set={key}={value}" for key, value in {**SETTINGS, "cycles": 1, "finetune.enabled": "false"}.items()]
    whole = run(["search", "--run", "whole", f"--set=folder={tmp_path}", *settings])
    assert whole.returncode == 0, whole.stderr
    run(["search", "--run", "cut", f"--set=folder={tmp_path}", *settings], moment="evaluation")
    assert run(["resume", str(tmp_path / "cut")]).returncode == 0
    left, right = (
        {(row.index, row.id, row.outcome, row.accuracy) for row in Store.open(tmp_path / name).candidates()}
        for name in ("whole", "cut")
    )
    assert left == right
