"""A search runs where candidates are held well enough, or where a person says `--unsafe`; and it says which it was.

The weak machine is this one without Landlock and bubblewrap (`without_landlock.py`), not a pretended one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nas_ray.funnel import check_accounting
from nas_ray.leaderboard import rank
from nas_ray.sandbox import probe_walls
from nas_ray.store import Store

SETTINGS = (
    "cycles=1", "candidates_per_cycle=6", "model.engine=transformers", "finetune.enabled=false",
    "dataset.train_limit=300",
)  # fmt: skip
NODE = re.compile(r"node \S+ \([\d.]+\): (tier [A-D]: .+)")

pytestmark = pytest.mark.timeout(600)


def run(*command: str, weak: bool = False) -> subprocess.CompletedProcess[str]:
    script = [str(Path(__file__).with_name("without_landlock.py"))] if weak else []
    return subprocess.run(
        [sys.executable, *script, "-m", "jobs.cli", *command],
        text=True, capture_output=True, timeout=280, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


def search(folder: Path, *options: str, weak: bool = False) -> subprocess.CompletedProcess[str]:
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"folder={folder}")]
    return run("search", "--run", "run", *settings, *options, weak=weak)


def assert_refused(ended: subprocess.CompletedProcess[str]) -> None:
    """One message for a person: what is wrong with which machine, and what to do."""
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "tier C" in ended.stderr
    assert "--unsafe" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module", autouse=True)
def strong_machine() -> None:
    if probe_walls().tier > "B":
        pytest.skip("this machine is below the usual floor itself")


@pytest.fixture(scope="module")
def strong_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Store]:
    folder = tmp_path_factory.mktemp("runs")
    ended = search(folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended, Store.open(folder / "run")


@pytest.fixture
def finished(strong_run: tuple[subprocess.CompletedProcess[str], Store], tmp_path: Path) -> Store:
    """A copy of that run, to be gone on with."""
    shutil.copytree(strong_run[1].folder, tmp_path / "copy")
    return Store.open(tmp_path / "copy")


def test_node_is_printed_once_and_kept_and_every_evaluation_says_its_tier(
    strong_run: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    ended, store = strong_run
    walls = probe_walls()
    assert NODE.findall(ended.stdout) == [walls.describe()]
    (row,) = store.nodes()
    assert (row.walls, row.tier, len(row.missing)) == (walls.describe(), walls.tier, len(walls.missing))
    assert {(one.node, one.tier) for one in store.evaluations()} == {(row.node, walls.tier)}
    assert f"1 node at {walls.describe()}" in run("status", store.folder).stdout


def test_search_on_a_weak_machine_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    assert_refused(search(tmp_path, weak=True))
    assert list(tmp_path.iterdir()) == []


def test_unsafe_search_runs_on_a_weak_machine_says_so_and_keeps_it(tmp_path: Path) -> None:
    ended = search(tmp_path, "--unsafe", weak=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr.count("warning: --unsafe") == 1
    assert len(re.findall(r"warning: tier C, not A: .*[Ll]andlock", ended.stdout)) == 1
    store = Store.open(tmp_path / "run")
    assert store.config.containment.floor == "D"
    assert [row.tier for row in store.nodes()] == ["C"]
    assert {one.tier for one in store.evaluations()} == {"C"}
    assert check_accounting(store) == []


def test_resume_on_a_weak_machine_is_refused_unless_unsafe_and_the_floor_stays(finished: Store) -> None:
    before = finished.candidates()
    assert_refused(run("resume", finished.folder, "--cycles", "2", weak=True))
    assert finished.candidates() == before
    ended = run("resume", finished.folder, "--unsafe", weak=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    again = Store.open(finished.folder)
    assert len(again.candidates()) == 2 * len(before)
    assert again.config.containment.floor == "B"
    assert [row.tier for row in again.nodes()][-1] == "C"


def test_export_on_a_weak_machine_is_refused_unless_unsafe(finished: Store, tmp_path: Path) -> None:
    best = rank(finished.candidates())[0]
    command = ("export", finished.folder, best.id, "--out", str(tmp_path / "out"))
    assert_refused(run(*command, weak=True))
    assert not (tmp_path / "out").exists()
    ended = run(*command, "--unsafe", weak=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3
