"""Real searches, each broken in one way: the diagnosis names the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BASE = (
    "--config=examples/paper_digits.yaml",
    "--set=model.engine=transformers",
    "--set=seed=1",
)
BROKEN = {
    "memorising": (
        "cycles=4",
        "candidates_per_cycle=30",
        "selection.quantile=0.35",
        "finetune.epochs=50",
        "finetune.replay_last=1",
        "finetune.dropout=0",
    ),
    "starving": ("cycles=4", "candidates_per_cycle=40", "novelty.tau=0.3"),
    # With this learning rate programs are all alike; 50 images cannot tell them apart.
    "noisy": (
        "cycles=4",
        "candidates_per_cycle=50",
        "dataset.validation_limit=50",
        "protocol.lr=0.00001",
        "selection.quantile=0.25",
        "selection.threshold=null",
    ),
}


def run_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("cause", BROKEN)
def test_the_diagnosis_of_a_broken_search_names_its_cause(cause: str, tmp_path: Path) -> None:
    changes = [f"--set={change}" for change in BROKEN[cause]]
    ended = run_command("search", *BASE, f"--set=folder={tmp_path}", *changes, "--run=broken")
    diagnosis = json.loads(run_command("diagnose", str(tmp_path / "broken"), "--json"))
    assert diagnosis["causes"][0] == cause
    assert diagnosis["headline"] in ended  # said at the end of the search too
