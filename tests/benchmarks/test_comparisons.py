"""The tables that compare groups of runs count what they say they count."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import make_row, make_run

from benchmarks import ablation, deltas
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow
from nas_ray.store import StoreError


def row(index: int, outcome: Outcome, mode: str = "delta", tokens: int = 10, accuracy: float = 0.5) -> CandidateRow:
    made = make_row(1, index, (outcome, Stage.TRAIN), random.Random(index))
    found = accuracy if outcome is Outcome.VALID else None
    return replace(made, mode=mode, completion_tokens=tokens, accuracy=found, novel=outcome is Outcome.VALID)


def test_a_valid_program_costs_the_tokens_of_all_that_failed_beside_it() -> None:
    rows = [row(0, Outcome.VALID), row(1, Outcome.DUPLICATE), row(2, Outcome.PATCH_FAILED), row(3, Outcome.VALID)]
    assert deltas.tokens_per_valid(rows) == 20
    assert deltas.tokens_per_valid(rows[1:3]) == math.inf
    assert deltas.valid_share(rows) == 0.5


def test_what_the_engine_lost_counts_neither_for_nor_against() -> None:
    rows = [row(0, Outcome.VALID), row(1, Outcome.NODE_LOST)]
    assert deltas.valid_share(rows) == 1
    assert deltas.describe([(rows, 0.4)])[1] == "1"


def test_failed_edits_are_a_share_of_the_edits_alone() -> None:
    rows = [row(0, Outcome.PATCH_FAILED), row(1, Outcome.NO_CHANGE), *(row(i, Outcome.VALID) for i in (2, 3))]
    whole = [row(index, Outcome.VALID, mode="full") for index in range(4, 10)]
    failed, unchanged = deltas.describe([(rows + whole, 0.4)])[-2:]
    assert failed.startswith("25.0 [")
    assert unchanged.startswith("25.0 [")
    assert deltas.describe([(whole, 0.4)])[-2:] == ["-", "-"]


def test_the_ratio_of_a_group_to_itself_is_one_and_its_interval_holds_it() -> None:
    parts = [([row(0, Outcome.VALID), *[row(1, Outcome.DUPLICATE)] * count], 0.4) for count in (1, 2, 3)]
    low, estimate, high = deltas.ratio(parts, parts, deltas.valid_share)
    assert low < 1 < high
    assert estimate == 1
    assert deltas.ratio(parts[:1], parts[:1], deltas.valid_share) == (1, 1, 1)


def test_groups_of_runs_are_read_by_name_and_anything_else_is_refused(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run", cycles=2)
    groups = ablation.read_groups([f"tau=0.9={store.folder},{store.folder}"])
    assert [len(run.rows) for run in groups["tau=0.9"]] == [52, 52]
    for wrong in ("run", "=run", "a=", f"a={store.folder},"):
        with pytest.raises(ValueError, match="give each setting once"):
            ablation.read_groups([wrong])
    with pytest.raises(StoreError, match="no finished cycle"):
        ablation.read_groups([f"a={make_run(tmp_path / 'new', cycles=0, unfinished=2).folder}"])


def test_both_benchmarks_print_a_table_with_a_line_for_each_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / f"run{seed}", cycles=2, seed=seed).folder for seed in range(3)]
    groups = [f"one={runs[0]},{runs[1]}", f"other={runs[2]}"]
    for benchmark in (ablation, deltas):
        monkeypatch.setattr("sys.argv", ["benchmark", *groups])
        benchmark.main()
    out = capsys.readouterr().out
    assert out.count("| one") == out.count("| other") == 4
    assert "other / one, valid: 1.00 (one run: no interval)" in out
