"""A run's elites as LEMUR keeps programs and measurements.

In: a run's store. Out: a folder that can be copied over a LEMUR tree (`nas_ray.lemur.tree`): programs with their
training interface, the trials that the run measured, and the transform and the loaders that LEMUR lacks.
"""

from __future__ import annotations

import ast
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas_ray.config import RunConfig
from nas_ray.datasets.catalogue import TEST_SEED, TEST_SHARE
from nas_ray.datasets.digits import read_digits
from nas_ray.datasets.places import Request
from nas_ray.datasets.splits import split_stratified
from nas_ray.leaderboard import rank
from nas_ray.lemur.errors import LemurError
from nas_ray.lemur.interface import complete_interface, hyperparameters_of
from nas_ray.lemur.layout import loader_of, program_name, transform_of, trial_of, write_trials
from nas_ray.lemur.tree import INNER, METRIC, SPLITTER, TASK, lemur_dataset
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow, EvaluationRow
from nas_ray.store import Store

README = """# Elites of the run {run}, for LEMUR

{programs} programs written by nas-ray, with {trials} trials. Copy `ab` over a LEMUR tree (a source tree, or an
installed nn-dataset, where it lies in site-packages) and delete LEMUR's database `db/ab.nn.db`, which it then builds
again.

- A program is as the language model wrote it. What LEMUR's trainer needs and it lacked is added below a mark, by the
  protocol of the run: {recipe}.
- `accuracy` in `stat/train` is that of nas-ray's *validation* split, taken from the training set. LEMUR's own trials
  are measured on the test set. So the two are not the same quantity.
{notes}"""


@dataclass(slots=True)
class Export:
    """What was written, and what was not."""

    folder: Path
    names: list[str] = field(default_factory=list)  # of the programs, the best first
    trials: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)  # (candidate's id, why)
    notes: list[str] = field(default_factory=list)  # what a person should know


def export_lemur(store: Store, out: Path, top: int | None = None) -> Export:
    """Write the elites of a run, or the best `top` of them, into `out`.

    Raises:
        LemurError: the run has no elite, `out` holds something already, or it cannot be written.
    """
    config = store.config
    elite_ids = {program_id for cycle in store.cycles() for program_id in cycle.elite_ids}
    elites = [row for row in rank(store.candidates()) if row.id in elite_ids][:top]
    if not elites:
        raise LemurError(f"the run {store.folder} has no elite yet: there is nothing to export")
    rows = defaultdict[str, list[EvaluationRow]](list)
    for row in store.evaluations():
        if row.outcome is Outcome.VALID and row.accuracy is not None and row.split == "validation":
            rows[row.id].append(row)
    try:
        if out.exists() and any(out.iterdir()):
            raise LemurError(f"{out} is not empty; choose another folder by --out, or remove it")
        return _write(config, elites, rows, out)
    except OSError as error:
        raise LemurError(f"{error.filename or out}: {error.strerror or error}") from error


def _write(
    config: RunConfig, elites: Sequence[CandidateRow], rows: dict[str, list[EvaluationRow]], out: Path
) -> Export:
    export, protocol, root = Export(out), config.protocol, out / INNER
    transform, transform_text = transform_of(protocol)
    datasets: set[str] = set()
    unnamed: set[str] = set()  # data sets whose name cannot be part of a folder's
    foreign = 0
    for elite in elites:
        try:
            code = complete_interface(elite.code, protocol)
        except ValueError as error:
            export.refused.append((elite.id, str(error)))
            continue
        name = program_name(elite.id)
        export.names.append(name)
        _put(root / "nn" / f"{name}.py", code)
        given = hyperparameters_of(ast.parse(elite.code), protocol)
        trials = defaultdict[tuple[str, int], list[dict[str, object]]](list)
        for row in sorted(rows[elite.id], key=lambda row: (row.dataset, row.epochs, row.seed)):
            used = protocol.vary(epochs=row.epochs)
            if row.protocol != used.digest:
                foreign += 1
            elif SPLITTER in row.dataset or "/" in row.dataset:
                unnamed.add(row.dataset)
            else:
                trials[row.dataset, row.epochs].append(trial_of(row, used, given, transform))
        for (dataset, epochs), entries in trials.items():
            folder = SPLITTER.join([TASK, lemur_dataset(dataset), METRIC, name])
            _put(root / "stat" / "train" / folder / f"{epochs}.json", write_trials(entries))
            export.trials += len(entries)
            datasets.add(dataset)
    if transform_text:
        _put(root / "transform" / f"{transform}.py", transform_text)
    for dataset in sorted(datasets):
        text = loader_of(lemur_dataset(dataset))
        if text is None:
            export.notes.append(f"LEMUR has no loader for {dataset}: its trials are there, but to train it needs one.")
        elif text:
            _put(root / "loader" / f"{dataset}.py", text.replace("TEST_PLACES", _places(dataset)))
    for dataset in sorted(unnamed):
        export.notes.append(f"Trials on {dataset} are not exported: LEMUR's names of data sets hold neither _ nor /.")
    if foreign:
        export.notes.append(f"Trials under other settings than the run's are not exported ({foreign}).")
    if protocol.fraction < 1:
        export.notes.append(f"The run trained on {protocol.fraction:.0%} of its training split; LEMUR trains on all.")
    _put(out / "README.md", _readme(config, export))
    return export


def _places(dataset: str) -> str:
    """The test split that nas-ray takes from `digits`, as lines of numbers; nothing for other data sets."""
    if dataset != "digits":
        return ""
    _, taken = split_stratified(read_digits(Request("digits")).train_labels, TEST_SHARE, TEST_SEED)
    return textwrap.fill(", ".join(map(str, np.sort(taken).tolist())) + ",", 116, initial_indent="    ",
                         subsequent_indent="    ")  # fmt: skip


def _readme(config: RunConfig, export: Export) -> str:
    protocol = config.protocol
    weights = f", weight decay {protocol.weight_decay}" if protocol.weight_decay else ""
    momentum = f", momentum {protocol.momentum}" if protocol.optimiser == "sgd" else ""
    recipe = f"{protocol.optimiser}, lr {protocol.lr}{momentum}{weights}, batches of {protocol.batch_size} images"
    return README.format(
        run=config.name,
        programs=len(export.names),
        trials=export.trials,
        recipe=recipe,
        notes="".join(f"- {note}\n" for note in export.notes),
    )


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
