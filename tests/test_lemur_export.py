from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from candidate_programs import GOOD
from lemur_tree import lemur_program
from sample_run import make_run

from nas_ray.config import ProtocolConfig, RunConfig
from nas_ray.leaderboard import rank
from nas_ray.lemur import LemurError
from nas_ray.lemur.export import export_lemur
from nas_ray.lemur.imported import Import
from nas_ray.lemur.importing import Choice, import_lemur
from nas_ray.lemur.interface import complete_interface
from nas_ray.lemur.layout import transform_of
from nas_ray.lemur.network import network_part
from nas_ray.lemur.tree import find_tree
from nas_ray.outcome import Outcome
from nas_ray.program import Program, read_program
from nas_ray.sketches import Sketcher
from nas_ray.store import Store


def load(code: str) -> dict[str, object]:
    """The names that a program defines."""
    names: dict[str, object] = {}
    exec(compile(code, "program", "exec"), names)
    return names


@pytest.mark.parametrize(
    "protocol",
    [
        ProtocolConfig(lr=0.05, momentum=0.8, weight_decay=0.01),
        ProtocolConfig(optimiser="adamw", lr=0.003, precision="bfloat16"),
    ],
)
def test_completed_program_trains_by_the_protocol_of_the_run(protocol: ProtocolConfig) -> None:
    names = load(complete_interface(GOOD, protocol))
    prm = {"lr": protocol.lr, "momentum": protocol.momentum}
    assert names["supported_hyperparameters"]() == (  # type: ignore[operator]
        {"lr", "momentum"} if protocol.optimiser == "sgd" else {"lr"}
    )
    net = names["Net"]((1, 1, 8, 8), (10,), prm, torch.device("cpu"))  # type: ignore[operator]
    net.train_setup(prm)
    assert type(net.optimizer).__name__.lower() == protocol.optimiser
    assert net.optimizer.defaults["lr"] == protocol.lr
    assert net.optimizer.defaults["weight_decay"] == protocol.weight_decay
    before = net.head.weight.detach().clone()
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    net.learn([(images, labels), (images[:1], labels[:1])])  # the single image would stop batch normalisation
    assert not torch.equal(before, net.head.weight)


def test_completing_changes_neither_the_network_nor_what_is_there_already() -> None:
    completed = complete_interface(GOOD, ProtocolConfig())
    assert read_program(network_part(completed)).id == read_program(GOOD).id  # type: ignore[union-attr]
    assert complete_interface(completed, ProtocolConfig(optimiser="adamw")) == completed
    own = lemur_program(GOOD)
    assert complete_interface(own, ProtocolConfig()) == own


def test_hyperparameters_that_a_network_reads_are_among_those_it_asks_for() -> None:
    code = GOOD.replace("super().__init__()", "super().__init__()\n        self.p = prm['dropout'] * prm['batch']")
    names = load(complete_interface(code, ProtocolConfig()))
    assert names["supported_hyperparameters"]() == {"lr", "momentum", "dropout"}  # type: ignore[operator]


def test_half_a_training_interface_is_refused() -> None:
    half = GOOD + "\n    def learn(self, train_data):\n        pass\n"
    with pytest.raises(ValueError, match="has learn, but not train_setup"):
        complete_interface(half, ProtocolConfig())


def test_tabs_as_indent_stay_tabs() -> None:
    tabs = GOOD.replace("    ", "\t")
    assert isinstance(read_program(complete_interface(tabs, ProtocolConfig())), Program)


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        (ProtocolConfig(), "norm"),
        (ProtocolConfig(augmentation=("flip",)), "norm_flip"),
        (ProtocolConfig(resolution=32), "norm_32"),
        (ProtocolConfig(resolution=64, augmentation=("flip",)), "norm_64_flip"),
        (ProtocolConfig(resolution=48), "nasray_48"),
        (ProtocolConfig(augmentation=("flip", "crop")), "nasray_flip_crop"),
    ],
)
def test_transforms_are_lemurs_own_where_it_has_them(protocol: ProtocolConfig, name: str) -> None:
    found, text = transform_of(protocol)
    assert found == name
    assert bool(text) == name.startswith("nasray")
    compile(text, name, "exec")


def test_what_was_exported_comes_back_the_same(tmp_path: Path) -> None:
    """The round trip: ids of the networks, and every measurement."""
    make_run(tmp_path / "run")
    store = Store.open(str(tmp_path / "run"))
    export = export_lemur(store, tmp_path / "out")
    elite_ids = {one for cycle in store.cycles() for one in cycle.elite_ids}
    assert {name.removeprefix("nasray-") for name in export.names} == elite_ids
    assert all("_" not in name for name in export.names)
    counts = import_lemur(find_tree(str(tmp_path / "out")), tmp_path / "in", Choice(), Sketcher(10, 256), workers=1)
    assert counts.check() == []
    assert (counts.programs, counts.measurements) == (len(export.names), export.trials)
    assert counts.programs_refused == counts.trials_refused == 0
    assert counts.in_contract == counts.programs
    rows = {row.id: row for row in store.candidates()}
    imported = Import.open(tmp_path / "in")
    for program in imported.programs().to_pylist():
        row = rows[program["name"].removeprefix("nasray-")]
        assert program["network_id"] == read_program(row.code).id  # type: ignore[union-attr]
    protocol = store.config.protocol
    for measured in imported.measurements().to_pylist():
        row = rows[measured["program"].removeprefix("nasray-")]
        assert (measured["task"], measured["dataset"], measured["metric"]) == ("img-classification", "digits", "acc")
        assert (measured["epoch"], measured["accuracy"]) == (protocol.epochs, row.accuracy)
        assert json.loads(measured["hyperparameters"]) == {
            "batch": protocol.batch_size,
            "lr": protocol.lr,
            "momentum": protocol.momentum,
        }


def with_rows(folder: Path, *changes: dict[str, object]) -> tuple[Store, str]:
    """A run whose best elite, named too, has one row more for each of `changes` to the row of the search."""
    store, code = make_run(folder), GOOD.replace("__init__()", "__init__()\n        self.length = prm['epoch']")
    best = rank([row for row in store.candidates() if row.outcome is Outcome.VALID])[0]
    (row,) = [row for row in store.evaluations() if row.id == best.id]
    rows = [*store.evaluations(), *(replace(row, **change) for change in changes)]  # type: ignore[arg-type]
    store.evaluations = lambda: rows  # type: ignore[assignment, method-assign]
    candidates = [replace(one, code=code) if one.id == best.id else one for one in store.candidates()]
    store.candidates = lambda cycle=None: candidates  # type: ignore[method-assign]
    return store, best.id


def test_hyperparameters_of_a_trial_are_those_of_its_own_epochs(tmp_path: Path) -> None:
    protocol = RunConfig().protocol
    three = {"epochs": 3, "protocol": protocol.vary(epochs=3).digest, "purpose": "final", "accuracy": 0.5}
    store, best = with_rows(tmp_path / "run", three)
    export = export_lemur(store, tmp_path / "out", 1)
    assert (export.names, export.trials, export.notes) == ([f"nasray-{best}"], 2, [])
    folder = tmp_path / "out" / f"ab/nn/stat/train/img-classification_digits_acc_nasray-{best}"
    told = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
    assert {stem: [one["epoch"] for one in trials] for stem, trials in told.items()} == {"1": [1], "3": [3]}
    assert told["3"][0]["accuracy"] == 0.5


def test_rows_of_other_settings_are_left_out_and_the_person_is_told(tmp_path: Path) -> None:
    protocol = RunConfig().protocol
    store, _ = with_rows(
        tmp_path / "run",
        {"protocol": "0123abcd", "dataset": "mnist", "purpose": "transfer"},  # a part of a data set, say
        {"protocol": protocol.digest, "epochs": 3},  # these epochs have another digest
        {"protocol": protocol.model_copy(update={"lr": 0.5}).digest, "seed": 7},
    )
    export = export_lemur(store, tmp_path / "out", 1)
    assert export.trials == 1
    assert export.notes == ["Trials under other settings than the run's are not exported (3)."]
    assert export.notes[0] in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("dataset", ["folder=/my/im_ages", "folder=/my/images", "my_set"])
def test_data_sets_that_lemur_cannot_name_are_left_out_and_the_person_is_told(tmp_path: Path, dataset: str) -> None:
    store, _ = with_rows(tmp_path / "run", {"dataset": dataset, "purpose": "transfer"})
    export = export_lemur(store, tmp_path / "out")
    (note,) = export.notes
    assert dataset in note
    assert "are not exported" in note
    counts = import_lemur(find_tree(str(tmp_path / "out")), tmp_path / "in", Choice(), Sketcher(10, 256), workers=1)
    assert counts.measurements == export.trials == len(export.names)
    assert counts.trial_files_refused == counts.trials_refused == 0


def test_the_best_elites_are_exported_first_and_twice_the_same(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    store = Store.open(str(tmp_path / "run"))
    few, many = export_lemur(store, tmp_path / "few", 2), export_lemur(store, tmp_path / "many")
    assert few.names == many.names[:2]
    for name in few.names:
        inner = f"ab/nn/nn/{name}.py"
        assert (tmp_path / "few" / inner).read_text() == (tmp_path / "many" / inner).read_text()
    with pytest.raises(LemurError, match="is not empty"):
        export_lemur(store, tmp_path / "few")


def test_a_run_without_elites_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path / "run", cycles=0)
    with pytest.raises(LemurError, match="has no elite yet"):
        export_lemur(Store.open(str(tmp_path / "run")), tmp_path / "out")
