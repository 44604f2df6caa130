"""`nas-ray lemur`, as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lemur_tree import lemur_program, networks, put_program, put_trials, trial
from sample_run import make_run


def lemur(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.lemur", *map(str, arguments)],
        text=True, capture_output=True, timeout=200, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


def test_import_tells_what_was_refused_and_why(tmp_path: Path) -> None:
    put_program(tmp_path / "tree", "ga-1", lemur_program(networks(1)[0]))
    put_program(tmp_path / "tree", "ga-2", "class Net(")
    put_trials(tmp_path / "tree", "img-classification_mnist_acc_ga-1", "1", [trial(0.5), trial(2.0)])
    ended = lemur("import", tmp_path / "tree", "--out", tmp_path / "out", "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["programs", "2", "1", "1", "0"] in lines
    assert ["trials", "2", "1", "1"] in lines
    assert ["1", "program:", "syntax", "error"] in lines
    assert ["1", "trial:", "accuracy"] in lines
    assert "do not add up" not in ended.stdout
    again = lemur("import", tmp_path / "tree", "--out", tmp_path / "out")
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    assert "Traceback" not in again.stderr


def test_export_says_what_was_written(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    ended = lemur("export", tmp_path / "run", "--out", tmp_path / "out", "--top", "2")
    assert ended.returncode == 0, ended.stderr
    assert f"2 programs and 2 trials are in {tmp_path / 'out'}." in ended.stdout
    assert len(list((tmp_path / "out" / "ab" / "nn" / "nn").glob("nasray-*.py"))) == 2
    assert (tmp_path / "out" / "README.md").is_file()


def test_both_commands_have_a_help_page() -> None:
    for command in ("import", "export"):
        ended = lemur(command, "--help")
        assert ended.returncode == 0
        assert f"nas-ray lemur {command}" in ended.stdout
