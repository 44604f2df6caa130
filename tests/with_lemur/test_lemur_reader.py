"""LEMUR's own reader and trainer, from the registry's package, take what nas-ray exports.

LEMUR reads its whole tree into a database before anything else, which takes long for all of its programs. So the tests
work on a copy of the package with the exported files in place of its own programs and trials.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from candidate_programs import GOOD
from sample_run import add_candidate, close_cycle, make_row

from nas_ray.config import ProtocolConfig, RunConfig
from nas_ray.lemur.export import Export, export_lemur
from nas_ray.outcome import Outcome, Stage
from nas_ray.program import Program, read_program
from nas_ray.store import Store

if not any(importlib.metadata.distributions(name="nn-dataset")):
    pytest.skip("needs requirements/lemur.txt", allow_module_level=True)

pytestmark = [pytest.mark.lemur, pytest.mark.timeout(600)]

READ = """
import json
import ab.nn.api as lemur

rows = lemur.data(nn={name!r})
print("ROWS", rows.drop(columns=["metric_code", "transform_code"]).to_json(orient="records"))
"""
TRAIN = """
from ab.nn.train import main

main("img-classification_digits_acc_{name}", nn_prm={prm!r}, n_epochs=1, n_optuna_trials=-1, transform={transform!r},
     num_workers=0, nn_fail_attempts=0)
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, Store]:
    """A run with one elite, exported over a copy of the package without its programs and trials."""
    folder = tmp_path_factory.mktemp("lemur")
    store = Store.create(str(folder / "run"), RunConfig(cycles=1, protocol=ProtocolConfig(lr=0.05)))
    program = read_program(GOOD)
    assert isinstance(program, Program)
    row = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), random.Random(0))
    add_candidate(store, replace(row, id=program.id, code=program.code))
    close_cycle(store, 0)
    store.close()
    exported = export_lemur(store, folder / "export")
    package = Path(str(importlib.metadata.distribution("nn-dataset").locate_file("ab")))
    unwanted = shutil.ignore_patterns("stat", "__pycache__")
    programs = [name for name in os.listdir(package / "nn" / "nn") if name != "AlexNet.py"]

    def leave_out(directory: str, names: list[str]) -> set[str]:
        return set(programs) if Path(directory) == package / "nn" / "nn" else unwanted(directory, names)

    shutil.copytree(package, folder / "tree" / "ab", ignore=leave_out)
    (folder / "tree" / "README.md").touch()  # by which LEMUR knows its root
    shutil.copytree(folder / "export" / "ab", folder / "tree" / "ab", dirs_exist_ok=True)
    return replace(exported, folder=folder / "tree"), store


def run(tree: Path, script: str) -> str:
    """What a script prints that imports LEMUR from `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tree, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read(tree: Path, name: str) -> list[dict[str, Any]]:
    """What LEMUR's reader knows of a program."""
    printed = run(tree, READ.format(name=name))
    line = next(line for line in printed.splitlines() if line.startswith("ROWS "))
    rows: list[dict[str, Any]] = json.loads(line.removeprefix("ROWS "))
    return rows


def test_lemur_reads_and_trains_what_nas_ray_exports(export: tuple[Export, Store]) -> None:
    exported, store = export
    (name,) = exported.names
    tree, protocol = exported.folder, store.config.protocol
    (row,) = read(tree, name)
    (evaluation,) = store.evaluations()
    assert row["accuracy"] == pytest.approx(evaluation.accuracy)
    assert (row["task"], row["dataset"], row["metric"], row["epoch"]) == ("img-classification", "digits", "acc", 1)
    assert row["nn_code"] == (tree / "ab" / "nn" / "nn" / f"{name}.py").read_text()
    prm = {key: row["prm"][key] for key in ("lr", "momentum", "batch")}
    assert prm == {"lr": protocol.lr, "momentum": protocol.momentum, "batch": protocol.batch_size}

    printed = run(tree, TRAIN.format(name=name, prm=prm, transform=row["prm"]["transform"]))
    assert "epoch 1" in printed
    rows = read(tree, name)
    assert len(rows) == 2, printed[-3000:]
    (trained,) = [one for one in rows if one["id"] != row["id"]]
    assert trained["accuracy"] > 0.5  # of LEMUR's test split; one epoch of digits
    assert trained["prm"] == row["prm"]
    kept = json.loads((tree / f"ab/nn/stat/train/img-classification_digits_acc_{name}/1.json").read_text())
    assert len(kept) == 2


def test_lemurs_digits_are_those_of_nas_ray(export: tuple[Export, Store]) -> None:
    from nas_ray.config import DatasetConfig
    from nas_ray.datasets import load_dataset

    script = (
        "from ab.nn.util.Loader import load_dataset\n"
        "shape, least, train, test = load_dataset('img-classification', 'digits', 'echo')\n"
        "print('SUMS', shape[0], len(train), len(test), sum(round(float(x.sum() * 255)) * (y + 1) for x, y in test))"
    )
    printed = run(export[0].folder, script)
    words = next(line for line in printed.splitlines() if line.startswith("SUMS ")).split()[1:]
    ours = load_dataset(DatasetConfig(name="digits"))
    total = int((ours.test_images.sum((1, 2, 3)) * (ours.test_labels + 1)).sum())
    trained = len(ours.train_labels) + len(ours.validation_labels)
    assert [int(word) for word in words] == [10, trained, len(ours.test_labels), total]
