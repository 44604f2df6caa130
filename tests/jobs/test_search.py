"""The whole loop on real parts: vLLM writes, Tune evaluates, Ray Train teaches, Parquet remembers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_ray.deltas import Delta, apply_delta
from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome
from nas_ray.store import Store


def search(*settings: str, folder: Path, run: str = "run") -> subprocess.CompletedProcess[str]:
    options = [f"--set={setting}" for setting in (f"folder={folder}", *settings)]
    return subprocess.run(
        [sys.executable, "-m", "jobs.search", "--run", run, *options],
        text=True, capture_output=True, timeout=280, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Store]:
    """Two cycles of twelve with vLLM, as a person would run them; half of the second are edits."""
    folder = tmp_path_factory.mktemp("runs")
    ended = search(
        "cycles=2", "candidates_per_cycle=12", "model.engine=vllm", "selection.quantile=0.5", "finetune.epochs=2",
        "generation.full=0.5", "generation.delta=0.5",
        folder=folder,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended, Store.open(folder / "run")


@pytest.mark.timeout(300)
def test_every_candidate_has_exactly_one_final_row_and_the_books_add_up(
    finished: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    _, store = finished
    assert check_accounting(store) == []
    keys = [(row.cycle, row.index) for row in store.candidates()]
    assert sorted(keys) == [(cycle, index) for cycle in range(2) for index in range(12)]
    assert any(row.outcome is Outcome.VALID for row in store.candidates())


def test_second_cycle_is_written_by_the_adapter_that_the_first_one_made(
    finished: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    _, store = finished
    assert {row.adapter for row in store.candidates(0)} == {0}
    assert {row.adapter for row in store.candidates(1)} == {1}
    assert (Path(store.adapter_folder(1)) / "adapter_model.safetensors").is_file()


def test_half_of_the_second_cycle_are_edits_of_the_first_ones_programs(
    finished: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    _, store = finished
    archive = {row.id: row for row in store.candidates(0) if row.novel and row.outcome is Outcome.VALID}
    assert {row.mode for row in store.candidates(0)} == {"full"}
    edits = [row for row in store.candidates(1) if row.mode == "delta"]
    assert len(edits) == 6
    assert {row.wanted for row in edits} == {"accuracy"}
    for row in edits:
        (parent,) = row.parent_ids
        assert archive[parent].code in row.prompt
        if row.patch:
            delta = apply_delta(row.patch, archive[parent].code, store.config.delta.format)
            assert isinstance(delta, Delta)
            assert delta.code == row.code
        else:
            assert row.outcome in (Outcome.PATCH_FAILED, Outcome.NO_CHANGE, Outcome.SYNTAX_ERROR)


def test_fine_tune_lowers_the_likelihood_loss_of_what_it_trained_on(
    finished: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    _, store = finished
    first = store.cycles()[0]
    assert len(first.nll_before_train) == len(first.nll_after_train) == len(first.training_ids) > 0
    assert sum(first.nll_after_train) < sum(first.nll_before_train)


def test_end_shows_the_cycles_the_best_and_what_to_run_next(
    finished: tuple[subprocess.CompletedProcess[str], Store],
) -> None:
    ended, store = finished
    best = max(store.candidates(), key=lambda row: row.accuracy or 0)
    for part in ("cycle", "generated", best.id[:8], "nas-ray show", "report.html"):
        assert part in ended.stdout
    assert (Path(store.folder) / "report.html").stat().st_size > 1000


@pytest.mark.timeout(300)
def test_same_seed_writes_the_same_candidates_and_another_seed_does_not(
    finished: tuple[subprocess.CompletedProcess[str], Store], tmp_path: Path
) -> None:
    _, store = finished
    short = ("cycles=1", "candidates_per_cycle=12", "model.engine=vllm", "finetune.enabled=false")
    assert search(*short, folder=tmp_path, run="again").returncode == 0
    again = Store.open(tmp_path / "again").candidates(0)
    assert {(row.index, row.id, row.accuracy) for row in again} == {
        (row.index, row.id, row.accuracy) for row in store.candidates(0)
    }
    assert search(*short, "seed=1", folder=tmp_path, run="other").returncode == 0
    other = Store.open(tmp_path / "other").candidates(0)
    assert {row.code for row in other}.isdisjoint(row.code for row in again)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dataset.name=imagenet21k", "imagenet21k"),
        ("model.path=/nowhere/model", "/nowhere/model"),
        ("protocol.lrr=1", "did you mean lr?"),
        ("generation.template=/nowhere.txt", "/nowhere.txt"),
    ],
)
def test_bad_input_ends_with_a_message_and_makes_no_run_folder(tmp_path: Path, setting: str, message: str) -> None:
    ended = search(setting, folder=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(200)
def test_trial_that_fits_on_no_node_is_an_error_that_says_so(tmp_path: Path) -> None:
    ended = search(
        "resources.evaluator_cpus=512", "resources.place_seconds=3", "cycles=1", "candidates_per_cycle=8",
        "model.engine=transformers", folder=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "resources.evaluator_cpus" in ended.stderr
    assert "nas-ray resume" in ended.stderr + ended.stdout
