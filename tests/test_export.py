"""An exported candidate is a network that loads without nas-ray and does what its card says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sample_run import add_candidate, make_row

from nas_ray.config import BudgetConfig, DatasetConfig, RunConfig
from nas_ray.datasets import load_dataset
from nas_ray.export import Export, ExportError, export_candidate
from nas_ray.outcome import Outcome, Stage
from nas_ray.sandbox.memory import create_buffer
from nas_ray.sandbox.weights import InvalidWeights, read_weights, write_weights
from nas_ray.standalone import write_standalone
from nas_ray.store import Store, StoreError

CONFIG = RunConfig(
    name="one-run",
    dataset=DatasetConfig(train_limit=400, validation_limit=100),
    budget=BudgetConfig(train_seconds=120.0),
)

LOAD_ALONE = """
import sys
sys.modules["nas_ray"] = None  # an import of it fails, even where it is installed
sys.path.insert(0, sys.argv[1])
import numpy, torch
module = __import__(sys.argv[2])
data = numpy.load(sys.argv[3])
net = module.load()
assert not net.training
for split in ("validation", "test"):
    with torch.inference_mode():
        logits = net(module.normalise(torch.from_numpy(data[split + "_images"])))
    print((logits.argmax(1).numpy() == data[split + "_labels"]).sum())
try:
    import nas_ray
except ImportError:
    print("alone")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run with one valid candidate, one that timed out, and one whose program no longer trains."""
    store = Store.create(tmp_path_factory.mktemp("runs") / "run", CONFIG)
    dice = random.Random(0)
    row = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), dice)
    add_candidate(store, replace(row, id="aaaa000011112222", parent_ids=("bbbb",)))
    add_candidate(store, replace(make_row(0, 1, (Outcome.TIMEOUT, Stage.TRAIN), dice), id="cccc"))
    broken = row.code.replace("self.head(", "self.tail(")
    add_candidate(store, replace(row, index=2, id="dddd", code=broken))
    return store


@pytest.fixture(scope="module")
def export(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export_candidate(store, "aaaa", tmp_path_factory.mktemp("exports"), epochs=3)


def test_an_export_loads_without_nas_ray_and_reproduces_its_card(export: Export, tmp_path: Path) -> None:
    dataset = load_dataset(CONFIG.dataset)
    splits = {
        f"{split}_{part}": getattr(dataset, f"{split}_{part}")
        for split in ("validation", "test")
        for part in ("images", "labels")
    }
    np.savez(tmp_path / "data.npz", **splits)
    result = subprocess.run(
        [sys.executable, "-c", LOAD_ALONE, export.program.parent, export.program.stem, tmp_path / "data.npz"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "PYTHONPATH": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    *right, last = result.stdout.split()
    assert last == "alone"
    for count, split in zip(right, ("validation", "test"), strict=True):
        said = export.card[split]
        # batches of another size may tip one image
        assert int(count) == pytest.approx(said["accuracy"] * said["images"], abs=1.01)


def test_a_card_says_what_was_measured_how_and_where_it_came_from(export: Export) -> None:
    card = json.loads(export.card_path.read_text())
    assert (card["id"], card["run"]) == ("aaaa000011112222", "one-run")
    assert card["protocol"]["epochs"] == 3
    assert card["validation"]["images"] == 100
    for split in ("validation", "test"):
        low, high = card[split]["interval_95"]
        assert 0 <= low <= card[split]["accuracy"] <= high <= 1
    assert card["validation"]["accuracy"] > 0.1  # of ten classes
    assert card["lineage"]["parents"] == ["bbbb"]
    assert card["dataset"]["name"] == "digits"


def test_the_program_is_in_the_export_as_written(export: Export, store: Store) -> None:
    assert store.candidates()[0].code.rstrip() in export.program.read_text()


def test_only_a_valid_candidate_is_exported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="candidate cccc is timeout; only a valid one can be exported"):
        export_candidate(store, "cccc", tmp_path / "out")
    with pytest.raises(StoreError, match="no candidate's id begins with 'ffff'"):
        export_candidate(store, "ffff", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_candidate_that_no_longer_trains_says_why(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"dddd could not be trained again: train_error, .*tail"):
        export_candidate(store, "dddd", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_the_program_uses_are_left_to_it() -> None:
    network = {"in_shape": (1, 1, 8, 8), "out_shape": (10,), "prm": {}, "mean": (0.0,), "std": (1.0,)}
    code = "from numpy import load\nclass Net:\n    def normalise(self, x): return NETWORK\n"
    text = write_standalone(code, network, ["net = {load}()"])
    space: dict[str, object] = {}
    exec(text, space)
    assert text.startswith("# net = load_()\n")
    assert {"load_", "normalise_", "NETWORK_"} <= set(space)
    assert space["load"] is np.load


def test_a_child_cannot_pass_anything_but_a_whole_safetensors_file() -> None:
    for length, content in ((0, b""), (1 << 40, b""), (20, b"x" * 20)):
        handle = create_buffer(100)
        os.pwrite(handle, length.to_bytes(8, "little") + content, 10)
        with pytest.raises(InvalidWeights):
            read_weights(handle, 10)
        os.close(handle)


def test_weights_come_back_whole_also_where_two_names_share_one_tensor() -> None:
    import safetensors.torch
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    net[2].weight = net[0].weight
    handle = create_buffer(4096)
    write_weights(handle, 40, net)
    state = safetensors.torch.load(read_weights(handle, 40))
    os.close(handle)
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_weights_without_room_are_refused() -> None:
    import torch

    handle = create_buffer(64)
    with pytest.raises(ValueError, match=r"takes .* bytes; there is room for 56"):
        write_weights(handle, 0, torch.nn.Linear(30, 30))
    os.close(handle)
