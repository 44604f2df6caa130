"""`nas-ray doctor`: all that is wrong is found in one go, and with --deep every part works once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main


def call(capsys: pytest.CaptureFixture[str], *settings: str, deep: bool = False) -> tuple[int, list[dict[str, str]]]:
    """Exit code and findings."""
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", *(["--deep"] if deep else []), *(f"--set={setting}" for setting in settings)])
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return int(ended.value.code or 0), findings


def test_every_problem_is_found_in_one_go(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = call(
        capsys, "model.path=/nowhere", "model.engine=transformers", "model.gpus=1", "dataset.name=nonsense",
        "folder=/proc/runs", "also=[{name: digits}]",
    )  # fmt: skip
    assert code == 1
    problems = [finding["subject"] for finding in findings if finding["verdict"] == "problem"]
    assert problems == ["model", "data set", "run folder", "ray"]
    ok = {finding["subject"] for finding in findings if finding["verdict"] == "ok"}
    assert {"packages", "data set", "engine", "ray"} <= ok
    assert "walls" in {finding["subject"] for finding in findings}


def test_mistakes_of_the_configuration_are_problems_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = call(capsys, "novelty.tau=2", "no_such_key=1")
    assert code == 1
    assert [finding["subject"] for finding in findings] == ["config", "config"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_does_its_work_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, findings = call(capsys, f"folder={tmp_path}", deep=True)
    assert code == 0, findings
    assert {"generator", "fine-tune", "evaluation"} <= {finding["subject"] for finding in findings}
    assert list(tmp_path.iterdir()) == []
