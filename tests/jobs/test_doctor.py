"""`nas-ray doctor`: all that is wrong is found in one go, and with --deep every part works once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def call(*settings: str, deep: bool = False) -> tuple[int, list[dict[str, str]]]:
    """Exit code and findings. In a process of its own: other tests may have Ray connected in this one."""
    options = [*(["--deep"] if deep else []), *(f"--set={setting}" for setting in settings)]
    ended = subprocess.run(
        [sys.executable, "-m", "jobs.doctor", "--json", *options],
        text=True, capture_output=True, timeout=850, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]


def test_every_problem_is_found_in_one_go() -> None:
    code, findings = call(
        "model.path=/nowhere", "model.engine=transformers", "model.gpus=1", "dataset.name=nonsense",
        "folder=/proc/runs", "also=[{name: digits}]",
    )  # fmt: skip
    assert code == 1
    problems = [finding["subject"] for finding in findings if finding["verdict"] == "problem"]
    assert problems == ["model", "data set", "run folder", "ray"]
    ok = {finding["subject"] for finding in findings if finding["verdict"] == "ok"}
    assert {"packages", "data set", "engine", "ray"} <= ok
    assert "walls" in {finding["subject"] for finding in findings}


def test_mistakes_of_the_configuration_are_problems_too() -> None:
    code, findings = call("novelty.tau=2", "no_such_key=1")
    assert code == 1
    assert [finding["subject"] for finding in findings] == ["config", "config"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_does_its_work_once(tmp_path: Path) -> None:
    code, findings = call(f"folder={tmp_path}", deep=True)
    assert code == 0, findings
    assert {"generator", "fine-tune", "evaluation"} <= {finding["subject"] for finding in findings}
    assert list(tmp_path.iterdir()) == []
