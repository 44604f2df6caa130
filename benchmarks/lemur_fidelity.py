"""How far does accuracy after one epoch tell the order after five, or fifty? LEMUR's recorded trainings, as Markdown.

    pip download --no-deps nn-dataset==2.1.2 && python -m zipfile -e nn_dataset-2.1.2-*.whl lemur
    python -m benchmarks.lemur_fidelity --source lemur

In: a LEMUR tree. Out: for each family of programs (the prefix of their names) and each later epoch a line: Spearman's
rank correlation with a 95 % bootstrap interval, beside the one that Pearson's correlation r would have if accuracies
were normal, (6 / pi) arcsin(r / 2).

A pair is one program under one transform and one set of hyperparameters: as a rule the same training, looked at twice,
so that the luck of its seed is in both numbers. Many programs have several sets, and the first interval takes their
pairs for independent; the last column has one pair a program, the mean over its sets, and is about the programs alone.
Accuracies are of the test split, as LEMUR measures them.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import pearsonr

from benchmarks.learning import print_table
from nas_ray.interval import Interval
from nas_ray.lemur.reading import TrialsFolder, read_trials
from nas_ray.lemur.tree import METRIC, SPLITTER, TASK, Tree, find_tree, lemur_dataset, prefix_of
from nas_ray.rank_correlation import correlate

COLUMNS = ("family", "epochs", "pairs", "Pearson r", "normal: rho", "Spearman rho", "programs", "rho of programs")

Pairs = Mapping[str, Sequence[tuple[float, float]]]  # of each program, one pair for each set of hyperparameters


def read_measurements(tree: Tree, dataset: str, prefixes: Sequence[str]) -> list[dict[str, Any]]:
    """All classification trials of some families on a data set: rows of `nas_ray.lemur.imported.MEASUREMENTS`."""
    start = SPLITTER.join((TASK, lemur_dataset(dataset), METRIC, ""))
    folders = sorted(tree.trials.glob(f"{start}*"))
    chosen = [TrialsFolder(path) for path in folders if prefix_of(path.name.removeprefix(start)) in prefixes]
    rows: list[dict[str, Any]] = read_trials(chosen, tree.root).table.to_pylist()
    return rows


def pair_epochs(rows: Iterable[Mapping[str, Any]], early: int, late: int) -> Pairs:
    """Accuracies after `early` and after `late` epochs of the same program, trained in the same way.

    What was recorded several times is averaged; programs without a pair are left out.
    """
    found: dict[str, dict[tuple[str, str], dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        if row["epoch"] in (early, late):
            found[row["program"]][row["transform"], row["hyperparameters"]][row["epoch"]].append(row["accuracy"])
    pairs = {
        program: [
            (float(np.mean(epochs[early])), float(np.mean(epochs[late])))
            for epochs in sets.values()
            if epochs.keys() == {early, late}
        ]
        for program, sets in found.items()
    }
    return {program: some for program, some in pairs.items() if some}


def normal_spearman(pearson: float) -> float:
    """Spearman's rho of two normal variables whose Pearson correlation is `pearson` (Kruskal 1958)."""
    return 6 / math.pi * math.asin(pearson / 2)


def describe(pairs: Pairs) -> list[str]:
    """The columns after the epochs; "-" where there are too few to correlate."""
    flat = [pair for some in pairs.values() for pair in some]
    means = [tuple(np.mean(some, axis=0)) for some in pairs.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an accuracy that is the same for all
        pearson = float(pearsonr(*np.transpose(flat)).statistic) if len(flat) > 1 else math.nan
    return [
        str(len(flat)),
        *([f"{pearson:.3f}", f"{normal_spearman(pearson):.3f}"] if math.isfinite(pearson) else ["-", "-"]),
        show(_spearman(flat)),
        str(len(pairs)),
        show(_spearman(means)),
    ]


def _spearman(pairs: Sequence[tuple[float, ...]]) -> Interval | None:
    return correlate([pair[0] for pair in pairs], [pair[1] for pair in pairs]).spearman


def show(interval: Interval | None) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="LEMUR tree, or installed")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--prefixes", nargs="+", default=["rag", "ga", "FractalNet"])
    parser.add_argument("--early", type=int, default=1, help="epoch")
    parser.add_argument("--late", type=int, nargs="+", default=[5, 50], help="epochs")
    given = parser.parse_args(arguments)
    rows = read_measurements(find_tree(given.source), given.dataset, given.prefixes)
    lines = []
    for prefix in given.prefixes:
        family = [row for row in rows if prefix_of(row["program"]) == prefix]
        for late in given.late:
            lines.append((prefix, [f"{given.early} -> {late}", *describe(pair_epochs(family, given.early, late))]))
    print_table(COLUMNS, lines)


if __name__ == "__main__":
    main()
