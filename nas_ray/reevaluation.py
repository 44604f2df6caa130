"""Candidates of a run, evaluated again: on other data sets, from other seeds, for longer, or on the test split.

In: a run's configuration and rows. Out: `Target`s (on what and how), `Score`s (what became of a candidate on one) and
the rows that a training gives. Seeds of their own keep these rows apart from the search's, and from the luck of the
seed that a candidate was chosen by.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from nas_ray.candidate import Build, Measurement
from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.datasets import Dataset, DatasetError, load_dataset
from nas_ray.outcome import Outcome, Rejection
from nas_ray.schema import CandidateRow, EvaluationRow


class ReevaluationError(ValueError):
    """Candidates cannot be evaluated again as asked: what was wrong, what is allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A data set that candidates are evaluated on again, and how. The fields are those of the rows that come of it."""

    name: str  # of the data set; of a folder of images with its place, see `name_dataset`
    dataset: DatasetConfig
    protocol: str  # see `digest_of`
    seeds: tuple[int, ...]
    epochs: int
    purpose: str  # "transfer" | "final" | "reliability"
    searched: bool  # True: one of the run's own data sets
    built: bool  # True: the search's builds hold here; False: candidates are built for its shape and budget first

    def holds(self, row: EvaluationRow) -> bool:
        """True where `row` is a measurement that this target asks for."""
        said = (row.dataset, row.protocol, row.epochs, row.purpose)
        return said == (self.name, self.protocol, self.epochs, self.purpose) and row.seed in self.seeds


@dataclass(frozen=True, slots=True)
class Score:
    """What became of one candidate on one target, as far as it is known."""

    target: Target
    validation: Mapping[int, EvaluationRow]  # by seed
    test: Mapping[int, EvaluationRow]  # likewise; of a final round

    @property
    def failure(self) -> EvaluationRow | None:
        """The row that says why there is no number, if one does: then no further seed is tried."""
        return next((row for row in self.validation.values() if row.outcome is not Outcome.VALID), None)

    @property
    def missing(self) -> tuple[int, ...]:
        """Seeds that are still to be trained."""
        return () if self.failure else tuple(seed for seed in self.target.seeds if seed not in self.validation)

    @property
    def outcome(self) -> Outcome | None:
        """`valid` once every seed is; None where something is missing, as after an interruption."""
        if self.failure is not None:
            return self.failure.outcome
        return None if self.missing else Outcome.VALID

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On the validation split, a number for each seed; empty unless all are there."""
        return self._all(self.validation)

    @property
    def test_accuracies(self) -> tuple[float, ...]:
        """On the test split, likewise."""
        return self._all(self.test)

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds, validation split; None unless all are there."""
        return fmean(self.accuracies) if self.accuracies else None

    def _all(self, rows: Mapping[int, EvaluationRow]) -> tuple[float, ...]:
        if self.outcome is not Outcome.VALID or len(rows) < len(self.target.seeds):
            return ()
        return tuple(rows[seed].accuracy or 0.0 for seed in self.target.seeds)


Scores = Mapping[tuple[str, str], Score]  # by candidate's id and target's name


def read_scores(rows: Iterable[EvaluationRow], candidates: Iterable[str], targets: Sequence[Target]) -> Scores:
    """What `rows` say of every candidate (by id) on every target."""
    found: dict[tuple[str, str, str], dict[int, EvaluationRow]] = defaultdict(dict)
    by_name = {target.name: target for target in targets}
    for row in rows:
        if row.dataset in by_name and by_name[row.dataset].holds(row):
            found[row.id, row.dataset, row.split][row.seed] = row
    return {
        (one, name): Score(target, found[one, name, "validation"], found[one, name, "test"])
        for one in candidates
        for name, target in by_name.items()
    }


def load_targets(targets: Sequence[Target], resolution: int | None) -> dict[str, Dataset]:
    """Every target's data set by name. Raises `DatasetError` that says of all that are missing how to get them."""
    loaded, problems = {}, []
    for target in targets:
        try:
            loaded[target.name] = load_dataset(target.dataset, resolution)
        except DatasetError as error:
            problems.append(str(error))
    if problems:
        raise DatasetError("\n".join(problems))
    return loaded


def name_dataset(config: DatasetConfig) -> str:
    """What rows call a data set: its name, and of a folder of images, any of which is another data set, the place."""
    return config.name if config.name != "folder" else f"folder={Path(config.root or '').expanduser().resolve()}"


def digest_of(own: RunConfig, used: RunConfig, dataset: DatasetConfig) -> str:
    """Eight hex digits for the conditions of `used` on `dataset`: the protocol's own digest where those of `own` hold.

    With another budget or another part of a data set than the run's, a number cannot be compared with the run's, nor
    does a refusal hold for both: then the digest is another too.
    """
    ours, theirs = (
        {
            "budget": config.budget.model_dump(mode="json", exclude={"latency_ms"}),  # which is not held here
            "data": part.model_dump(mode="json", exclude={"name", "root"}),
        }
        for config, part in ((own, own.dataset), (used, dataset))
    )
    if ours == theirs:
        return used.protocol.digest
    conditions = json.dumps([used.protocol.digest, theirs], sort_keys=True)
    return hashlib.sha256(conditions.encode()).hexdigest()[:8]


def refusal_row(candidate: CandidateRow, target: Target, seed: int, refusal: Rejection) -> EvaluationRow:
    """The row of a candidate that was refused before it was trained, at the build for another shape, say."""
    return EvaluationRow(
        **_names(candidate, target, seed),
        accuracy=None,
        loss=None,
        outcome=refusal.outcome,
        detail=refusal.detail,
        error_type=refusal.error_type,
    )


def _names(candidate: CandidateRow, target: Target, seed: int) -> dict[str, Any]:
    """What says of which candidate a row is, and under which conditions."""
    return {
        "id": candidate.id,
        "cycle": candidate.cycle,
        "index": candidate.index,
        "dataset": target.name,
        "protocol": target.protocol,
        "seed": seed,
        "epochs": target.epochs,
        "purpose": target.purpose,
    }


def training_rows(
    candidate: CandidateRow, target: Target, seed: int, build: Build | None, measured: Measurement
) -> Iterator[EvaluationRow]:
    """The rows of one training: where the test images were predicted too, first theirs, then the validation split's.

    `build` is that for the target's shape; None: the search's own.
    """
    row = EvaluationRow.of(
        measured,
        **_names(candidate, target, seed),
        parameters=build.parameters if build is not None else candidate.parameters,
        flops=build.flops if build is not None else candidate.flops,
    )
    if measured.test_accuracy is not None:
        yield replace(row, split="test", accuracy=measured.test_accuracy, loss=measured.test_loss)
    yield row
