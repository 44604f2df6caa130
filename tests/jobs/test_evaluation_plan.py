"""One small search with everything at once: ASHA, two seeds and two data sets, killed between two rungs and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from nas_ray.config import DatasetConfig
from nas_ray.datasets import load_dataset
from nas_ray.evaluation import Plan
from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome
from nas_ray.schema import EvaluationRow
from nas_ray.store import Store

CANDIDATES = 8


def write_folder(root: Path) -> None:
    """Colour images of ten classes, 6 x 6 pixels: the digits, smaller and tinted."""
    digits = load_dataset(DatasetConfig(train_limit=300), resolution=6)
    for number, (image, label) in enumerate(zip(digits.train_images, digits.train_labels, strict=True)):
        place = root / "train" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        tinted = np.stack([image[0], image[0] // 2, 255 - image[0]], axis=-1)
        Image.fromarray(tinted).save(place / f"{number}.png")


def run(command: list[str], *, moment: str | None = None) -> subprocess.CompletedProcess[str]:
    script = [str(Path(__file__).with_name("killed_driver.py")), moment] if moment else ["-m", "jobs.cli"]
    return subprocess.run(
        [sys.executable, *script, *command],
        text=True, capture_output=True, timeout=280, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_rungs_seeds_and_data_sets_survive_a_kill_and_their_mean_is_the_accuracy(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    settings = [
        f"folder={tmp_path}", "cycles=1", f"candidates_per_cycle={CANDIDATES}", "model.engine=transformers",
        "model.concurrent_requests=4", "finetune.enabled=false", "dataset.train_limit=300",
        f"also=[{{name: folder, root: {tmp_path / 'images'}}}]",
        "protocol.epochs=4", "evaluation.scheduler=asha", "evaluation.reduction_factor=2", "evaluation.seeds=2",
    ]  # fmt: skip
    killed = run(["search", "--run", "run", *(f"--set={one}" for one in settings)], moment="rung")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    before = Store.open(tmp_path / "run").evaluations()
    assert before
    ended = run(["resume", str(tmp_path / "run")])
    assert ended.returncode == 0, ended.stdout + ended.stderr

    store = Store.open(tmp_path / "run")
    assert check_accounting(store) == []
    plan = Plan.of(store.config)
    assert plan.rungs == (1, 2, 4)
    rows: dict[str, list[EvaluationRow]] = defaultdict(list)
    for row in store.evaluations():
        assert plan.holds(row)
        rows[row.id].append(row)
    assert {(row.id, row.dataset, row.seed, row.epochs, row.accuracy) for row in before} <= {
        (row.id, row.dataset, row.seed, row.epochs, row.accuracy) for own in rows.values() for row in own
    }
    candidates = store.candidates()
    valid = [row for row in candidates if row.outcome is Outcome.VALID]
    assert len(candidates) == CANDIDATES
    assert valid
    for candidate in valid:
        own = rows[candidate.id]
        last = [row for row in own if row.epochs == candidate.epochs]
        assert {(row.dataset, row.seed) for row in last} == set(plan.places)
        assert candidate.accuracy == fmean(row.accuracy or 0 for row in last)
        rungs = [row.epochs for row in own if (row.dataset, row.seed) == plan.places[0]]
        assert sorted(rungs) == [epochs for epochs in plan.rungs if epochs <= (candidate.epochs or 0)]
        assert candidate.depth
        assert candidate.latency_ms
    assert max(row.epochs or 0 for row in valid) > 1, "the first one has nobody to be compared with, so it climbs"
