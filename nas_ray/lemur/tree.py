"""Where LEMUR keeps what, and how it names it.

    ab/nn/nn/NAME.py                                      a program
    ab/nn/stat/train/TASK_DATASET_METRIC_NAME/EPOCH.json  a list of trials, each measured after EPOCH epochs
    ab/nn/transform/NAME.py, ab/nn/loader/NAME.py         how images are prepared, where they come from

In: a folder, or the word `installed`. Out: a `Tree`. LEMUR itself is never imported: that would build its database.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nas_ray.lemur.errors import LemurError

INSTALLED = "installed"
PACKAGE = "nn-dataset"
TASK = "img-classification"
METRIC = "acc"
SPLITTER = "_"  # between the four parts of a folder of trials; so none of them may hold it
INNER = Path("ab", "nn")
# Ours -> LEMUR's, where they differ.
DATASETS = {"cifar10": "cifar-10", "cifar100": "cifar-100"}


@dataclass(frozen=True, slots=True)
class Tree:
    """A LEMUR tree: the folder that it was found in, its programs' folder and its trials' (which may be missing)."""

    root: Path
    programs: Path
    trials: Path


def lemur_dataset(name: str) -> str:
    """LEMUR's name of a data set, given ours."""
    return DATASETS.get(name, name)


def prefix_of(name: str) -> str:
    """The part of a program's name before the first `-`: who or what wrote it."""
    return name.partition("-")[0]


def find_tree(source: str) -> Tree:
    """The tree that a person means: a folder that holds `ab/nn/nn`, that folder `ab/nn`, or `installed`.

    Raises:
        LemurError: nothing of that kind is there.
    """
    if source == INSTALLED:
        try:
            return find_tree(str(distribution(PACKAGE).locate_file("")))
        except PackageNotFoundError as error:
            raise LemurError(
                f"{PACKAGE} is not installed in this environment. Without its dependencies it is enough: "
                f"pip install --no-deps {PACKAGE}"
            ) from error
    folder = Path(source).expanduser()
    if folder.suffix == ".whl" and folder.is_file():
        raise LemurError(f"{source} is a wheel; unpack it first: python -m zipfile -e {source} FOLDER")
    for inner in (INNER, Path("nn"), Path()):
        found = folder / inner
        if (found / "nn").is_dir() and any((found / "nn").glob("*.py")):
            return Tree(folder, found / "nn", found / "stat" / "train")
    raise LemurError(
        f"{source} is no LEMUR tree: there is no folder ab/nn/nn with programs in it. Give the folder that holds ab, "
        f"of a source tree or of an unpacked wheel of {PACKAGE}, or the word {INSTALLED}"
    )
