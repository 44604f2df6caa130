"""`nas-ray reliability` on a real cluster: within its time, to the end by the same command, and failures told."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import add_candidate, make_row

from jobs.cli import main
from nas_ray.config import BudgetConfig, DatasetConfig, RunConfig
from nas_ray.funnel import check_accounting
from nas_ray.outcome import Outcome, Stage
from nas_ray.reliability import choose_random
from nas_ray.schema import CycleRow, EvaluationRow
from nas_ray.store import Store

CONFIG = RunConfig(
    cycles=1, dataset=DatasetConfig(train_limit=200, validation_limit=100), budget=BudgetConfig(train_seconds=120.0)
)
PROGRAM = """import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.hidden = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], {width})
        self.head = nn.Linear({width}, out_shape[0])

    def forward(self, x):
        if torch.initial_seed() == {unlucky}:
            raise ValueError("not from this seed")
        return self.head(self.hidden(x.flatten(1)).relu())
"""
WIDTHS = (1, 2, 4, 8, 16, 32)
UNLUCKY = 100_001  # the second fresh seed, for the widest
OPTIONS = ("--programs", "6", "--seeds", "2", "--long", "2", "--epochs", "2")
NOWHERE = ("--address", "127.0.0.1:1")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, command)],
        text=True, capture_output=True, timeout=240, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *command: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that needs no cluster, in this process."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), " ".join(out.split()), " ".join(err.split())


def measured(store: Store) -> list[EvaluationRow]:
    return [row for row in store.evaluations() if row.purpose == "reliability"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished run of one cycle: six programs as a search would keep them, three of them elites."""
    store = Store.create(tmp_path_factory.mktemp("runs") / "run", CONFIG)
    dice, ids = random.Random(0), [letter * 16 for letter in "abcdef"]
    for index, (one, width) in enumerate(zip(ids, WIDTHS, strict=True)):
        row = make_row(0, index, (Outcome.VALID, Stage.TRAIN), dice)
        code = PROGRAM.format(width=width, unlucky=UNLUCKY if width == WIDTHS[-1] else -1)
        add_candidate(store, replace(row, id=one, code=code, accuracy=0.3 + index / 10))
    counts = dict.fromkeys(("generated", "parsed", "contract", "built", "novel", "trained"), len(ids))
    store.append_cycle(CycleRow(cycle=0, elite_ids=tuple(ids[3:]), elite=3, **counts))  # type: ignore[arg-type]
    store.close()
    return store


def test_before_anything_is_measured_it_says_what_is_missing_and_needs_no_cluster(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "reliability", store.folder, *OPTIONS, "--minutes", "0", *NOWHERE)
    assert (code, measured(store)) == (0, []), err
    assert "16 trainings or fewer are still to be made" in out
    code, _, err = call(capsys, "reliability", store.folder, "--epochs", "1", *NOWHERE)
    assert code == 2
    assert "--epochs is 1, and the search itself trained for 1" in err


def test_a_run_that_another_driver_writes_is_left_alone(store: Store) -> None:
    store.lock()
    try:
        refused = run("reliability", store.folder, *OPTIONS, *NOWHERE)
    finally:
        store.close()
    assert refused.returncode == 2
    assert str(os.getpid()) in refused.stderr
    assert measured(store) == []


@pytest.mark.timeout(600)
def test_time_ends_it_early_in_random_order_and_the_same_command_goes_on(store: Store) -> None:
    begun = run("reliability", store.folder, *OPTIONS, "--minutes", "0.01")
    assert begun.returncode == 0, begun.stderr
    early = measured(store)
    order = [row.id for row in choose_random(store.candidates(), 6)]
    assert 0 < len(early) < 12
    assert {row.id for row in early} == set(order[: len({row.id for row in early})])
    assert "still to be made; the same command goes on" in begun.stdout

    ended = run("reliability", store.folder, *OPTIONS, "--json")
    assert ended.returncode == 0, ended.stderr
    rows = measured(store)
    assert set(map(repr, early)) < set(map(repr, rows))
    trainings = Counter((row.epochs, row.seed, row.outcome.value) for row in rows)
    long = {(2, 200_000, "valid"): 2, (2, 200_001, "valid"): 2}
    assert trainings == {
        (1, 100_000, "valid"): 6, (1, UNLUCKY, "valid"): 5, (1, UNLUCKY, "train_error"): 1, **long,
    }  # fmt: skip
    assert {row.id for row in rows if row.epochs == 2} == set(order[:2])
    said = json.loads(ended.stdout)
    assert (said["left"], said["lost"]) == (0, [])
    [digits] = said["data_sets"]
    assert (digits["programs"], digits["seeds"], digits["failures"]) == (6, 2, {"train_error": 1})
    assert digits["icc"]["low"] < digits["icc"]["estimate"] < digits["icc"]["high"]
    assert digits["fidelity"] is None
    assert check_accounting(store) == []
    assert store.driver() is None


def test_what_is_done_is_shown_and_not_measured_again(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measured(store)
    code, out, err = call(capsys, "reliability", store.folder, *OPTIONS, *NOWHERE)
    assert code == 0, err
    assert measured(store) == rows
    for words in ("16 trainings, 1 failed (1 train_error)", "reliability over the run", "epochs are not testable yet"):
        assert words in out
    assert "still to be made" not in out
