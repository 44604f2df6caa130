"""The final round: the best few of a run, trained for longer from several seeds, and their test accuracy, once.

In: a run's store. Out: a plan (`plan_round`, kept in the run before anything is measured) and a `FinalRound`: the
finalists with validation and test accuracy. Whoever chooses by test accuracy has made the test split a second
validation split, so a run has one final round; each further one is another look, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset
from nas_ray.interval import Interval, mean_share, wilson
from nas_ray.leaderboard import rank
from nas_ray.reevaluation import ReevaluationError, Score, Target, read_scores
from nas_ray.schema import CandidateRow, FinalRoundRow
from nas_ray.store import Store

TOP, SEEDS = 5, 3
LONGER = 10  # times the protocol's epochs, where none are given
SEED_OFFSET, SEEDS_A_ROUND = 2000, 1000  # apart from the search's seeds, a transfer's, and any other round's


class FinalRoundError(ReevaluationError):
    """A final round that will not be measured: why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """One candidate on one data set of the run."""

    candidate: CandidateRow
    score: Score
    test_images: int

    @property
    def validation(self) -> Interval | None:
        """Mean accuracy over the seeds on the validation split, Student's t; None unless all trainings are there."""
        return mean_share(self.score.accuracies)

    @property
    def test(self) -> Interval | None:
        """Likewise on the test split: how far it would vary with the seed."""
        return mean_share(self.score.test_accuracies)

    @property
    def trainings(self) -> list[Interval]:
        """Test accuracy of each training, Wilson: how far it would vary with other test images."""
        counts = (round(accuracy * self.test_images) for accuracy in self.score.test_accuracies)
        return [interval for count in counts if (interval := wilson(count, self.test_images)) is not None]


@dataclass(frozen=True, slots=True)
class FinalRound:
    """One final round, as far as it is measured."""

    row: FinalRoundRow
    finalists: tuple[Finalist, ...]  # data set by data set; in each the best on *validation* first, failures last
    ranked: int  # valid candidates of the run: a round cannot have more finalists

    @property
    def finished(self) -> bool:
        """True when every finalist has its numbers, or the reason for none."""
        return all(one.score.outcome is not None for one in self.finalists)

    def answers(self, top: int | None, epochs: int | None, seeds: int | None) -> bool:
        """True where this is a round of so many finalists, epochs and seeds; None: any."""
        asked = (top and min(top, self.ranked), epochs, seeds)
        has = (len(self.row.ids), self.row.epochs, len(self.row.seeds))
        return all(one is None or one == other for one, other in zip(asked, has, strict=True))

    def of(self, dataset: str) -> list[Finalist]:
        """The finalists on one data set; the first one is the run's choice."""
        return [one for one in self.finalists if one.score.target.name == dataset]


def plan_round(
    store: Store,
    datasets: Mapping[str, Dataset],
    top: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    force: bool = False,
) -> FinalRoundRow:
    """The round to measure: the one that was begun and not finished, or a new one; None: as begun, or the usual.

    A new one is not kept yet. `datasets` are the run's own, by name.

    Raises:
        FinalRoundError: there was a final round, and no `force`; one is half done and something else is asked for; or
            there is no valid candidate.
    """
    rounds = read_rounds(store)
    if rounds and not rounds[-1].finished:
        begun = rounds[-1]
        if not begun.answers(top, epochs, seeds):
            was = f"--top {len(begun.row.ids)} --epochs {begun.row.epochs} --seeds {len(begun.row.seeds)}"
            raise FinalRoundError(
                f"a final round with {was} was begun and is not finished, so it cannot become another. "
                f"Finish it: nas-ray final {store.folder}"
            )
        return begun.row
    if rounds and not force:
        raise FinalRoundError(explain_once(rounds[-1]))
    finalists = rank(store.candidates(), top or TOP)
    if not finalists:
        raise FinalRoundError(f"{store.folder} has no valid candidate yet: `nas-ray status` shows how far it is")
    number = len(rounds)
    first = store.config.protocol.seed + SEED_OFFSET + SEEDS_A_ROUND * number
    return FinalRoundRow(
        round=number,
        ids=tuple(row.id for row in finalists),
        epochs=epochs or LONGER * store.config.protocol.epochs,
        seeds=tuple(first + seed for seed in range(seeds or SEEDS)),
        datasets=tuple(datasets),
        test_images=tuple(len(dataset.test_labels) for dataset in datasets.values()),
    )


def explain_once(final: FinalRound) -> str:
    """Why a run that has this round gets no other."""
    return (
        f"the final round of this run was measured on {final.row.created:%Y-%m-%d}, and is not measured again: whoever "
        "looks at test accuracy and then tries something else chooses by it, which makes the test split a second "
        "validation split. --force does it nevertheless, and the result says how often the test split was looked at"
    )


def own_targets(config: RunConfig, row: FinalRoundRow) -> list[Target]:
    """The data sets of the run, as a final round measures on them. The search has built for the first one alone."""
    digest = config.protocol.vary(epochs=row.epochs).digest
    return [
        Target(one.name, one, digest, row.seeds, row.epochs, "final", searched=True, built=one is config.dataset)
        for one in (config.dataset, *config.also)
    ]


def read_rounds(store: Store) -> list[FinalRound]:
    """All final rounds of a run, the first one first, with what is measured."""
    rows = store.final_rounds()
    evaluations = [row for row in store.evaluations() if row.purpose == "final"] if rows else []
    candidates = {row.id: row for row in rank(store.candidates())} if rows else {}
    rounds = []
    for row in rows:
        finalists = []
        for target, images in zip(own_targets(store.config, row), row.test_images, strict=True):
            scores = read_scores(evaluations, row.ids, [target])
            own = [Finalist(candidates[one], scores[one, target.name], images) for one in row.ids]
            finalists += sorted(own, key=lambda one: -(one.score.accuracy or 0.0))
        rounds.append(FinalRound(row, tuple(finalists), len(candidates)))
    return rounds


def round_values(final: FinalRound, looks: int) -> dict[str, Any]:
    """A round as plain values, for JSON; `looks` is how many times the run's test split was looked at."""
    return {
        "round": final.row.round,
        "finished": final.finished,
        "looks_at_the_test_split": looks,
        "epochs": final.row.epochs,
        "seeds": final.row.seeds,
        "created": final.row.created.isoformat(timespec="seconds"),
        "finalists": [
            {
                "id": one.candidate.id,
                "data_set": one.score.target.name,
                "outcome": one.score.outcome,
                "detail": one.score.failure.detail if one.score.failure else "",
                "search_accuracy": one.candidate.accuracy,
                "validation_accuracies": one.score.accuracies,
                "test_accuracies": one.score.test_accuracies,
                "test_images": one.test_images,
                "test_wilson_95": [interval[::2] for interval in one.trainings],
                "test_mean_student_95": one.test[::2] if one.test and len(one.score.test_accuracies) > 1 else None,
            }
            for one in final.finalists
        ],
    }
