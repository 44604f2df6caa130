"""One candidate's whole evaluation: the trainings that it takes, one after another, and the accuracy that they give.

In: a run's configuration (`Plan`) and the rows of trainings that are over. Out: the next `Trial`, until one fails or
the candidate has its `Grade`. All that is kept between two processes are the rows, so an evaluation that was cut off
goes on where it was.

A candidate is trained on each data set from each seed, as (first seed: every data set), (second seed: ...), and no
further once a training fails. With ASHA (Li et al. 2020, arXiv:1810.05934) the first of these trainings climbs the
rungs for as long as Tune lets it, and all others are as long as its last one. Each rung is trained from scratch, so
that its row is what a run with that many epochs would have measured, under that run's protocol digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean

from nas_ray.candidate import Measurement, Trial
from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.schema import EvaluationRow

Place = tuple[str, int]  # a data set's name and a seed


@dataclass(frozen=True, slots=True)
class Grade:
    """What a valid candidate's last trainings say together."""

    accuracy: float  # mean over data sets and seeds; validation, share 0 .. 1
    loss: float  # likewise, nats
    latency_ms: float | None  # mean over seeds on the first data set; None unless known for all
    epochs: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The trainings of every candidate of a run."""

    places: tuple[Place, ...]  # in order
    rungs: tuple[int, ...]  # epochs, rising; one number without ASHA
    digests: tuple[str, ...]  # of the protocol with so many epochs

    @classmethod
    def of(cls, config: RunConfig) -> Plan:
        """The plan of a run."""
        names = [config.dataset.name, *(dataset.name for dataset in config.also)]
        seeds = [config.protocol.seed + number for number in range(config.evaluation.seeds)]
        rungs = find_rungs(config)
        digests = tuple(config.protocol.vary(epochs=epochs).digest for epochs in rungs)
        return cls(tuple((name, seed) for seed in seeds for name in names), rungs, digests)

    def digest(self, epochs: int) -> str:
        """The protocol digest of a training on the rung of so many epochs."""
        return self.digests[self.rungs.index(epochs)]

    def holds(self, row: EvaluationRow) -> bool:
        """True where `row` is one of the plan's trainings, and not one of a transfer, a final round or another run."""
        own = row.purpose == "search" and row.split == "validation" and (row.dataset, row.seed) in self.places
        return own and (row.epochs, row.protocol) in zip(self.rungs, self.digests, strict=True)

    def grade(self, rows: Iterable[EvaluationRow], epochs: int) -> Grade | None:
        """The grade that a candidate's `rows` give it after so many epochs; None unless all are there and valid."""
        found = {(row.dataset, row.seed): row for row in rows if row.epochs == epochs and self.holds(row)}
        pairs = [(one.accuracy, one.loss) for place in self.places if (one := found.get(place)) is not None]
        graded = [(accuracy, loss) for accuracy, loss in pairs if accuracy is not None and loss is not None]
        if len(graded) < len(self.places):
            return None
        first = [found[place].latency_ms for place in self.places if place[0] == self.places[0][0]]
        known = [latency for latency in first if latency is not None]
        return Grade(
            accuracy=fmean(accuracy for accuracy, _ in graded),
            loss=fmean(loss for _, loss in graded),
            latency_ms=fmean(known) if len(known) == len(first) else None,
            epochs=epochs,
        )

    def reject(self, failed: EvaluationRow | Measurement, place: Place) -> Rejection:
        """What a training that failed says of its candidate; names data set and seed where there are several."""
        name, seed = place
        several = [len(set(values)) > 1 for values in zip(*self.places, strict=True)]
        where = ", ".join(itertools.compress((f"on {name}", f"seed {seed}"), several))
        detail = f"{where}: {failed.detail}" if where else failed.detail
        return Rejection(failed.outcome, Stage.TRAIN, detail, failed.error_type)


def find_rungs(config: RunConfig) -> tuple[int, ...]:
    """The epochs of a run's rungs: grace, grace * r, ... as far as the next one is at most the protocol's, then those.

    No rung is longer than 1/r of the next, so that all together cost less than r / (r - 1) times the last; unless the
    protocol's epochs are less than r times the grace, when there is nothing between the two.
    """
    longest, evaluation = config.protocol.epochs, config.evaluation
    if evaluation.scheduler == "none":
        return (longest,)
    rungs = [evaluation.grace_epochs]
    while rungs[-1] * evaluation.reduction_factor**2 <= longest:
        rungs.append(rungs[-1] * evaluation.reduction_factor)
    return (*rungs, longest)


@dataclass(slots=True)
class Evaluation:
    """Where one candidate's evaluation stands."""

    code: str
    plan: Plan
    rows: list[EvaluationRow]  # of trainings that are over, those of an earlier process included
    epochs: int | None = field(init=False, default=None)  # that the first place has ended with, once it has

    def __post_init__(self) -> None:
        # Only after the first place has ended are others trained. Whether it had ended is in no row otherwise.
        self.epochs = max((row.epochs for row in self.rows if self._place(row) != self.plan.places[0]), default=None)

    @property
    def rejection(self) -> Rejection | None:
        """Why the candidate failed, if a training did."""
        failed = next((row for row in self.rows if row.outcome is not Outcome.VALID), None)
        return None if failed is None else self.plan.reject(failed, self._place(failed))

    @property
    def grade(self) -> Grade | None:
        """What the candidate has earned, once nothing is left to be trained."""
        return None if self.epochs is None else self.plan.grade(self.rows, self.epochs)

    def next_trial(self) -> Trial | None:
        """The training, or the rungs, that come next; None once the candidate has failed or has its grade."""
        if self.rejection is not None:
            return None
        if self.epochs is None:
            name, seed = self.plan.places[0]
            last = max(self.rows, key=lambda row: row.epochs, default=None)
            rungs = self.plan.rungs if last is None else self.plan.rungs[self.plan.rungs.index(last.epochs) :]
            if last is None or len(rungs) > 1:  # whether it was to go on is for the scheduler to say again
                return Trial(self.code, name, seed, rungs, last.accuracy if last is not None else None)
            self.epochs = last.epochs
        done_places = {self._place(row) for row in self.rows if row.epochs == self.epochs}
        left = (place for place in self.plan.places if place not in done_places)
        return next((Trial(self.code, name, seed, (self.epochs,)) for name, seed in left), None)

    def holds(self, trial: Trial, epochs: int) -> bool:
        """True where that training of `trial` is over already."""
        return any((*self._place(row), row.epochs) == (trial.dataset, trial.seed, epochs) for row in self.rows)

    def end_trial(self, epochs: int) -> None:
        """The trial under way has ended after a training of so many epochs."""
        if self.epochs is None:
            self.epochs = epochs

    @staticmethod
    def _place(row: EvaluationRow) -> Place:
        return row.dataset, row.seed
