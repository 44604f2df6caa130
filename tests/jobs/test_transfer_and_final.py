"""Transfers and final rounds of a real run, on a real cluster: adapted shapes, refusals, a kill, and no second look."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_run import add_candidate, make_row

from jobs.cli import main
from nas_ray.config import BudgetConfig, DatasetConfig, RunConfig
from nas_ray.datasets import load_dataset
from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CycleRow, EvaluationRow
from nas_ray.store import Store

CONFIG = RunConfig(
    cycles=1,
    dataset=DatasetConfig(train_limit=200, validation_limit=100),
    budget=BudgetConfig(train_seconds=120.0, parameters=5000),
)
PROGRAM = """import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.hidden = nn.Linear({inputs}, {width})
        self.head = nn.Linear({width}, out_shape[0])

    def forward(self, x):
        return self.head(self.hidden(x.flatten(1)).relu())
"""
FITTING = "in_shape[1] * in_shape[2] * in_shape[3]"
# Of width 40 it has 3,010 parameters for 8 x 8 pixels and 6,210 for 12 x 12; the last one knows no pixels but 8 x 8.
PROGRAMS = (*(PROGRAM.format(inputs=FITTING, width=width) for width in (4, 8, 40)), PROGRAM.format(inputs=64, width=6))


def run(*command: str | Path, moment: str = "") -> subprocess.CompletedProcess[str]:
    script = [str(Path(__file__).with_name("killed_driver.py")), moment] if moment else ["-m", "jobs.cli"]
    return subprocess.run(
        [sys.executable, *script, *map(str, command)],
        text=True, capture_output=True, timeout=240, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *command: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that needs no cluster, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, " ".join(err.split())


def rows_of(store: Store, purpose: str) -> list[EvaluationRow]:
    return [row for row in store.evaluations() if row.purpose == purpose]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished run of one cycle: four programs as a search would keep them, all of them elites."""
    store = Store.create(tmp_path_factory.mktemp("runs") / "run", CONFIG)
    dice, ids = random.Random(0), [f"{letter * 16}" for letter in "abcd"]
    for index, (one, code) in enumerate(zip(ids, PROGRAMS, strict=True)):
        row = make_row(0, index, (Outcome.VALID, Stage.TRAIN), dice)
        add_candidate(store, replace(row, id=one, code=code, accuracy=0.9 - index / 10))
    counts = dict.fromkeys(("generated", "parsed", "contract", "built", "novel", "trained", "elite"), len(ids))
    store.append_cycle(CycleRow(cycle=0, elite_ids=tuple(ids), **counts))  # type: ignore[arg-type]
    store.close()
    return store


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits once more, as a folder of images of 12 x 12 pixels."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_dataset(DatasetConfig(train_limit=200), resolution=12)
    for number, (pixels, label) in enumerate(zip(digits.train_images, digits.train_labels, strict=True)):
        place = folder / "train" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels[0])).save(place / f"{number}.png")
    return folder


@pytest.mark.timeout(600)
def test_a_transfer_that_is_killed_goes_on_adapts_shapes_and_keeps_refusals(store: Store, images: Path) -> None:
    command = ("transfer", store.folder, "--to", f"folder={images}", "--seeds", "2", "--json")
    killed = run(*command, moment="re-evaluation")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = rows_of(store, "transfer")
    assert len(kept) == 3

    ended = run(*command)
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(store, "transfer")
    assert set(map(repr, kept)) < set(map(repr, rows))
    trainings = Counter((row.id[0], row.dataset.partition("=")[0], row.outcome.value) for row in rows)
    assert trainings == {
        **{(letter, "digits", "valid"): 2 for letter in "abcd"},
        **{(letter, "folder", "valid"): 2 for letter in "ab"},
        ("c", "folder", "too_large"): 1,
        ("d", "folder", "shape_error"): 1,
    }
    sizes = {(row.dataset.partition("=")[0], row.parameters) for row in rows if row.id[0] == "a"}
    assert {name for name, _ in sizes} == {"digits", "folder"}
    assert ("folder", 4 * 144 + 4 + 50) in sizes

    said = json.loads(ended.stdout)
    assert [one["name"] for one in said["data_sets"]] == ["digits", f"folder={images}"]
    assert said["data_sets"][1]["outcomes"] == {"valid": 2, "too_large": 1, "shape_error": 1}
    assert [one["candidates"] for one in said["correlations"]] == [4, 2]
    assert all(one["spearman"] is None for one in said["correlations"])
    assert "evaluated, " in ended.stderr
    assert check_accounting(store) == []
    assert store.driver() is None


def test_a_transfer_that_is_done_measures_nothing_and_needs_no_cluster(
    store: Store, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(rows_of(store, "transfer"))
    nowhere = ("--address", "127.0.0.1:1")
    code, out, err = call(capsys, "transfer", store.folder, "--to", f"folder={images}", "--seeds", "2", *nowhere)
    assert code == 0, err
    assert len(rows_of(store, "transfer")) == before
    for words in ("Spearman's rho", "Fewer than 5 are not enough", "6,210 parameters", "1 shape_error", "dddddddddd"):
        assert words in out
    assert f"on folder={images} (validation, transfer)" in " ".join(
        call(capsys, "show", store.folder, "aaaa")[1].split()
    )


def test_data_sets_that_are_not_here_are_named_before_anything_starts(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "transfer", store.folder, "--to", "svhn,folder=/nowhere", "--address", "127.0.0.1:1")
    assert code == 2
    assert "svhn needs torchvision" in err or "no train_32x32.mat in" in err
    assert "/nowhere, which is not a folder" in err


@pytest.mark.timeout(600)
def test_a_final_round_that_is_killed_is_finished_and_then_only_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("final", store.folder, "--top", "2", "--epochs", "2", "--seeds", "2")
    killed = run(*command, moment="re-evaluation")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = run("final", store.folder)  # as it was begun
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(store, "final")
    assert Counter((row.id[0], row.split, row.epochs) for row in rows) == {
        (letter, split, 2): 2 for letter in "ab" for split in ("test", "validation")
    }
    assert {row.seed for row in rows} == {2000, 2001}
    assert "The test split was looked at once." in ended.stdout
    assert "Chosen by validation accuracy: " in ended.stdout
    assert "Final round: test accuracy" in (Path(store.folder) / "report.html").read_text()

    code, out, err = call(capsys, "final", store.folder, "--json", "--address", "127.0.0.1:1")
    assert code == 0, err
    said = json.loads(out)
    assert said["looks_at_the_test_split"] == 1
    assert {one["id"] for one in said["finalists"]} == {"a" * 16, "b" * 16}
    code, out, err = call(capsys, "final", store.folder, "--top", "3", "--address", "127.0.0.1:1")
    assert code == 2
    assert "second validation split" in err
    assert "Chosen by validation accuracy: " in out
    assert rows_of(store, "final") == rows
    assert check_accounting(store) == []
