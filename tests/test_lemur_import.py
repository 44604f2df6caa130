from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from lemur_tree import TRAINING, lemur_program, networks, put_program, put_trials, trial

from nas_ray.lemur import LemurError
from nas_ray.lemur.imported import Import
from nas_ray.lemur.importing import Choice, Counts, import_lemur
from nas_ray.lemur.network import network_part
from nas_ray.lemur.reading import LARGEST
from nas_ray.lemur.tree import find_tree
from nas_ray.program import read_program
from nas_ray.sketches import Sketcher

FOLDER = "img-classification_mnist_acc_"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good programs of two prefixes, with trials, and one of everything that is refused."""
    root = tmp_path_factory.mktemp("lemur")
    for number, code in enumerate(networks(3)):
        put_program(root, f"{'ga' if number else 'rag'}-{number}", lemur_program(code))
    put_program(root, "__init__", "")
    put_program(root, "ga-broken", "class Net(")
    put_program(root, "ga-empty", "x = 1\n")
    put_program(root, "ga-latin", "# caf\xe9\nclass Net: pass\n".encode("latin-1"))
    put_program(root, "ga-long", "class Net: pass\n" + "# long\n" * 10_000)
    put_trials(root, FOLDER + "ga-1", "1", [trial(0.5), trial(0.75, dropout=0.2, transform="echo")])
    put_trials(root, FOLDER + "ga-1", "2", [trial(0.875, duration=None)])
    put_trials(root, FOLDER + "ga-2", "1", [])
    put_trials(root, FOLDER + "rag-0", "1", [trial(0.25), trial(1.5), "no", trial(0.5, transform=None)])
    put_trials(root, FOLDER + "rag-0", "2", [trial(0.5, duration=-1), trial(0.5, lr=[1])])
    put_trials(root, FOLDER + "rag-0", "first", [trial(0.5)])
    put_trials(root, FOLDER + "rag-0", "3", "{")
    put_trials(root, FOLDER + "rag-0", "4", {"accuracy": 0.5})
    put_trials(root, FOLDER + "ga-broken", "1", [trial(0.5)])
    put_trials(root, FOLDER + "nobody", "1", [trial(0.5)])
    put_trials(root, "img-classification_mnist", "1", [trial(0.5)])
    return root


def read(root: Path, out: Path, **choice: object) -> Counts:
    return import_lemur(find_tree(str(root)), out, Choice(**choice), Sketcher(10, 256), workers=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Import, Counts]:
    """The whole tree, imported."""
    out = tmp_path_factory.mktemp("out")
    counts = read(tree, out)
    return Import.open(out), counts


def test_what_is_good_goes_in_and_the_rest_is_refused_with_its_reason(tree: Path, whole: tuple[Import, Counts]) -> None:
    imported, counts = whole
    assert (counts.program_files, counts.programs, counts.programs_refused) == (7, 3, 4)
    assert (counts.trials, counts.measurements, counts.trials_refused) == (11, 4, 7)
    assert (counts.trial_files, counts.trial_files_refused, counts.empty_trial_files) == (11, 4, 1)
    assert counts.check() == []
    refused = imported.refused().to_pylist()
    assert {(row["kind"], row["reason"]) for row in refused} == {
        ("program", "syntax error"),
        ("program", "no class or function"),
        ("program", "not UTF-8"),
        ("program", "too large"),
        ("file", "folder name"),
        ("file", "file name"),
        ("file", "not JSON"),
        ("file", "not a list"),
        ("trial", "accuracy"),
        ("trial", "not an object"),
        ("trial", "transform"),
        ("trial", "duration"),
        ("trial", "hyperparameters"),
        ("trial", "program refused"),
        ("trial", "no such program"),
    }
    assert all((tree / row["path"]).is_file() and row["detail"] for row in refused)
    measured = imported.measurements().to_pylist()
    assert [(row["program"], row["epoch"], row["accuracy"]) for row in measured] == [
        ("ga-1", 1, 0.5),
        ("ga-1", 1, 0.75),
        ("ga-1", 2, 0.875),
        ("rag-0", 1, 0.25),
    ]
    assert json.loads(measured[1]["hyperparameters"]) == {"batch": 16, "dropout": 0.2, "lr": 0.01, "momentum": 0.9}
    assert measured[0]["duration_ns"] == 47112679057
    assert measured[2]["duration_ns"] is None


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One good program with one good trial, to which a test adds what is odd."""
    root = tmp_path / "lemur"
    put_program(root, "ga-0", lemur_program(networks(1)[0]))
    put_trials(root, FOLDER + "ga-0", "1", [trial(0.5)])
    return root


def refused_of(root: Path, out: Path) -> list[dict[str, object]]:
    """What an import refuses, seen that the good program and trial go in and that the accounts add up."""
    counts = read(root, out)
    assert counts.check() == []
    assert (counts.programs, counts.measurements) == (1, 1)
    imported = Import.open(out)
    assert [row["accuracy"] for row in imported.measurements().to_pylist()] == [0.5]
    assert len(imported.sketches(Sketcher(10, 256))) == 2
    return imported.refused().to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["README.md", FOLDER + "ga-0x", FOLDER + "ga-1"])
def test_a_file_among_the_folders_of_trials_is_refused_and_the_rest_goes_in(
    small: Path, tmp_path: Path, name: str
) -> None:
    (small / "ab" / "nn" / "stat" / "train" / name).write_text("# Trials\n")
    (row,) = refused_of(small, tmp_path / "out")
    assert (row["kind"], row["reason"], row["path"]) == ("file", "no folder of trials", f"ab/nn/stat/train/{name}")
    assert row["detail"] == "Not a directory"


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("accuracy", {"accuracy": 10**400}),
        ("accuracy", {"accuracy": [[[[[[[[0.5]]]]]]]]}),
        ("hyperparameters", {"lr": -(10**400)}),
        ("hyperparameters", {"lr": "\ud800"}),
        ("hyperparameters", {"\udfff": 1}),
        ("transform", {"transform": "norm_\ud800"}),
        ("duration", {"duration": True}),
        ("duration", {"duration": LARGEST + 1}),
        ("uid", {"uid": "\udc80"}),
        ("uid", {"uid": ["dee8"]}),
        ("uid", {"uid": 10**400}),
    ],
)
def test_values_that_no_table_can_hold_are_refused_and_the_rest_goes_in(
    small: Path, tmp_path: Path, reason: str, values: dict[str, object]
) -> None:
    put_trials(small, FOLDER + "ga-0", "1", [{**trial(0.25), **values}, trial(0.5)])
    (row,) = refused_of(small, tmp_path / "out")
    assert (row["kind"], row["reason"], row["place"]) == ("trial", reason, 0)
    assert row["detail"]


def test_an_epoch_that_no_table_can_hold_is_refused_and_the_rest_goes_in(small: Path, tmp_path: Path) -> None:
    put_trials(small, FOLDER + "ga-0", str(LARGEST + 1), [trial(0.25)])
    put_trials(small, FOLDER + "ga-0", "9" * 200, [trial(0.25)])
    rows = refused_of(small, tmp_path / "out")
    assert [(row["kind"], row["reason"]) for row in rows] == [("file", "file name")] * 2
    assert all(f"an epoch is at most {LARGEST}" in str(row["detail"]) for row in rows)


def test_the_largest_epoch_and_duration_go_in(small: Path, tmp_path: Path) -> None:
    (small / "ab" / "nn" / "stat" / "train" / f"{FOLDER}ga-0" / "1.json").unlink()
    put_trials(small, FOLDER + "ga-0", str(LARGEST), [trial(0.5, duration=LARGEST)])
    assert refused_of(small, tmp_path / "out") == []


def test_names_that_are_not_utf8_are_refused_and_the_rest_goes_in(small: Path, tmp_path: Path) -> None:
    put_program(small, "ga-\udcff", lemur_program(networks(1)[0]))
    put_trials(small, FOLDER + "ga-\udcff", "1", [trial(0.25)])
    put_trials(small, FOLDER + "ga-0", "\udcff", [trial(0.25)])
    rows = refused_of(small, tmp_path / "out")
    assert {(row["kind"], row["reason"]) for row in rows} == {
        ("program", "file name"),
        ("file", "folder name"),
        ("file", "file name"),
    }
    assert all("\\udcff" in str(row["path"]) for row in rows)


@pytest.mark.parametrize("table", ["programs", "sketches"])
def test_a_table_that_is_gone_or_broken_is_an_error_that_says_to_import_again(
    small: Path, tmp_path: Path, table: str
) -> None:
    read(small, tmp_path / "out")
    path = tmp_path / "out" / f"{table}.parquet"
    for break_it in (lambda: path.write_bytes(b"PAR1"), path.unlink):
        break_it()
        with pytest.raises(LemurError, match=rf"{table}\.parquet cannot be read .*: import it again"):
            Import.open(tmp_path / "out").sketches(Sketcher(10, 256))


def test_programs_have_their_ids_and_those_of_their_networks_alone(whole: tuple[Import, Counts]) -> None:
    by_name = {row["name"]: row for row in whole[0].programs().to_pylist()}
    for number, network in enumerate(networks(3)):
        row = by_name[f"{'ga' if number else 'rag'}-{number}"]
        assert row["id"] == read_program(lemur_program(network)).id  # type: ignore[union-attr]
        assert row["network_id"] == read_program(network).id  # type: ignore[union-attr]
        assert row["contract"]


def test_a_draw_takes_as_many_programs_as_asked_and_only_their_trials(tree: Path, tmp_path: Path) -> None:
    counts = read(tree, tmp_path / "one", programs=2, seed=1)
    assert counts.programs == 2
    assert counts.program_files == 7
    assert counts.check() == []
    names = set(Import.open(tmp_path / "one").programs()["name"].to_pylist())
    assert set(Import.open(tmp_path / "one").measurements()["program"].to_pylist()) <= names
    assert read(tree, tmp_path / "again", programs=2, seed=1) == counts
    assert read(tree, tmp_path / "prefix", prefix="rag").programs == 1
    with pytest.raises(LemurError, match="has the prefix 'alt'"):
        read(tree, tmp_path / "none", prefix="alt")


def test_stored_sketches_are_those_that_would_be_made_and_others_are_made_again(whole: tuple[Import, Counts]) -> None:
    imported = whole[0]
    for sketcher in (Sketcher(10, 256), Sketcher(5, 64)):
        sketches = imported.sketches(sketcher)
        assert len(sketches) == 6  # three programs, and their networks alone
        normalised = {
            program.id: program.normalised
            for row in imported.programs().to_pylist()
            for code in (row["code"], row["network"])
            for program in [read_program(code)]
        }  # type: ignore[union-attr]
        for place, program_id in enumerate(sketches.ids):
            expected = sketcher.sketch(normalised[program_id])
            assert sketches.shingles_of(place).tolist() == expected.shingles.tolist()
            assert sketches.signatures[place].tolist() == expected.signature.tolist()


def test_best_accuracies_are_those_within_the_epochs_of_a_run(whole: tuple[Import, Counts]) -> None:
    imported = whole[0]
    assert imported.datasets() == ["mnist"]
    assert imported.best_accuracies("mnist", 1) == {"ga-1": 0.75, "rag-0": 0.25}
    assert imported.best_accuracies("mnist", 2)["ga-1"] == 0.875
    assert imported.best_accuracies("svhn", 1) == {}


def test_an_import_never_overwrites_anything(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(LemurError, match="is not empty; choose another folder"):
        read(tree, tmp_path / "out")


@pytest.mark.parametrize("inner", ["", "ab/nn"])
def test_a_tree_is_found_from_any_folder_above_its_programs(tree: Path, inner: str) -> None:
    assert find_tree(str(tree / inner)).programs == tree / "ab" / "nn" / "nn"


def test_what_is_no_tree_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(LemurError, match="Give the folder that holds ab"):
        find_tree(str(tmp_path))
    with pytest.raises(LemurError, match="pip install --no-deps nn-dataset"):
        find_tree("installed")
    wheel = tmp_path / "nn_dataset.whl"
    wheel.touch()
    with pytest.raises(LemurError, match="unpack it first: python -m zipfile -e"):
        find_tree(str(wheel))


def test_network_part_leaves_the_rest_as_it_is_written() -> None:
    for network in networks(5):
        assert read_program(network_part(lemur_program(network))) == read_program(f"import torch\n{network}")
        assert network_part(network) == network


def test_network_part_keeps_what_the_network_itself_uses() -> None:
    code = lemur_program(networks(1)[0]).replace("super().__init__()", "super().__init__()\n        self.learn([])")
    methods = {node.name for node in ast.walk(ast.parse(network_part(code))) if isinstance(node, ast.FunctionDef)}
    assert "learn" in methods
    assert "train_setup" not in methods
    alone = "import torch\nclass Net(torch.nn.Module):" + TRAINING
    assert "learn" in network_part(alone)  # else the class would be empty
