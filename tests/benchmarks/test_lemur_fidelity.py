"""Pairs of epochs are those of the same program under the same hyperparameters, of the data set that was asked for."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from lemur_tree import lemur_program, networks, put_program, put_trials, trial

from benchmarks import lemur_fidelity
from nas_ray import rank_correlation
from nas_ray.lemur.tree import find_tree

CIFAR = "img-classification_cifar-10_acc_"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight programs of each of two families; `ga` keeps its order over the epochs, `rag` turns it round."""
    put_program(tmp_path, "ga-0", lemur_program(networks(1)[0]))
    for number in range(8):
        low, high = 0.1 + number / 20, 0.5 + number / 20
        put_trials(tmp_path, f"{CIFAR}ga-{number}", "1", [trial(low + 0.01, lr=0.1), trial(low, lr=0.2)])
        put_trials(tmp_path, f"{CIFAR}ga-{number}", "5", [trial(high, lr=0.2), trial(high + 0.01, lr=0.1)])
        put_trials(tmp_path, f"{CIFAR}rag-{number}", "1", [trial(low), trial(0.9, transform="norm_64")])
        put_trials(tmp_path, f"{CIFAR}rag-{number}", "5", [trial(1 - high)])
        put_trials(tmp_path, f"img-classification_svhn_acc_ga-{number}", "1", [trial(random.random())])
    return tmp_path


def test_pairs_are_matched_by_hyperparameters_and_not_by_place(tree: Path) -> None:
    rows = lemur_fidelity.read_measurements(find_tree(str(tree)), "cifar10", ["ga"])
    assert {row["dataset"] for row in rows} == {"cifar-10"}
    pairs = lemur_fidelity.pair_epochs(rows, 1, 5)
    assert len(pairs) == 8
    assert all(late == pytest.approx(early + 0.4) for some in pairs.values() for early, late in some)


def test_a_training_recorded_twice_is_one_pair_and_one_recorded_once_is_none() -> None:
    rows = [
        {"program": "ga-1", "transform": "echo", "hyperparameters": "{}", "epoch": epoch, "accuracy": accuracy}
        for epoch, accuracy in ((1, 0.2), (1, 0.4), (5, 0.6), (7, 0.9))
    ]
    assert lemur_fidelity.pair_epochs(rows, 1, 5) == {"ga-1": [(pytest.approx(0.3), 0.6)]}
    assert lemur_fidelity.pair_epochs(rows, 1, 50) == {}


def test_the_rank_correlation_of_normal_numbers_is_a_little_below_that_of_the_numbers() -> None:
    assert [lemur_fidelity.normal_spearman(r) for r in (-1, 0, 1)] == pytest.approx([-1, 0, 1])
    assert lemur_fidelity.normal_spearman(0.8) == pytest.approx(6 / math.pi * math.asin(0.4))


def test_the_table_has_a_line_for_each_family_and_epoch(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_correlation, "RESAMPLES", 100)
    lemur_fidelity.main(["--source", str(tree), "--prefixes", "ga", "rag", "--late", "5", "50"])
    lines = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [line[:3] for line in cells] == [
        ["ga", "1 -> 5", "16"],
        ["ga", "1 -> 50", "0"],
        ["rag", "1 -> 5", "8"],
        ["rag", "1 -> 50", "0"],
    ]
    assert cells[0][5].startswith("1.000")
    assert cells[2][5].startswith("-1.000")
    assert cells[1][3:] == ["-", "-", "-", "0", "-"]
