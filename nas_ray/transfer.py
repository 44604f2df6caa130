"""Does what was found on one data set hold on others? A run's elites, evaluated again elsewhere by the same protocol.

In: a run's rows and the names of data sets. Out: what is to be measured (`plan_targets`, `choose_elites`) and, from the
rows that came of it, a `Transfer`: accuracies, ranks, failures, and how far the orders agree.

Elites were chosen by their score on the run's own data set, so the best of them were lucky too (the winner's curse).
That data set is therefore measured again, from fresh seeds, and its old scores are a column of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from scipy.stats import rankdata

from nas_ray.config import DatasetConfig, EvaluationConfig, RunConfig
from nas_ray.config_file import override_config
from nas_ray.interval import Interval, mean_interval
from nas_ray.leaderboard import rank
from nas_ray.outcome import Outcome
from nas_ray.rank_correlation import RankCorrelation, correlate
from nas_ray.reevaluation import ReevaluationError, Scores, Target, digest_of, name_dataset
from nas_ray.schema import CandidateRow, CycleRow

SEED_OFFSET = 1000  # of the first fresh seed from the protocol's own
SEARCH = "search"  # the column of the accuracies that the elites were chosen by

CHANGEABLE = ("dataset", "protocol", "budget", "resources", "containment")  # sections that --set may change, except:
WITHOUT_EFFECT = {
    "dataset.name": "--to names the data sets",
    "dataset.root": "the folder is said in --to, as in --to mnist=/my/mnist",
    "protocol.seed": "a transfer has seeds of its own, and --seeds says how many",
    "budget.latency_ms": "the limit on latency is held in the search alone",
    "containment.screen": "programs are screened in the search alone",
}


class Comparison(NamedTuple):
    """How far two columns agree on the candidates that both have a number for."""

    first: str
    second: str
    correlation: RankCorrelation


@dataclass(frozen=True, slots=True)
class Transfer:
    """Candidates on several data sets, as far as they are measured."""

    candidates: tuple[CandidateRow, ...]  # best of the search first
    targets: tuple[Target, ...]  # the run's own data sets first, if they were measured again
    scores: Scores
    protocol: str  # digest of the run's own protocol

    @property
    def columns(self) -> tuple[str, ...]:
        """The search's accuracies, then each data set's by name."""
        return (SEARCH, *(target.name for target in self.targets))

    def accuracies(self, column: str) -> list[float | None]:
        """One for each candidate: share of the validation split, mean over seeds; None where there is none."""
        if column == SEARCH:
            return [row.accuracy for row in self.candidates]
        return [self.scores[row.id, column].accuracy for row in self.candidates]

    def ranks(self, column: str) -> list[int | None]:
        """1 = best; equals share the better rank; None where there is no number."""
        accuracies = self.accuracies(column)
        there = [accuracy for accuracy in accuracies if accuracy is not None]
        ranked = iter(rankdata([-accuracy for accuracy in there], method="min"))
        return [None if accuracy is None else int(next(ranked)) for accuracy in accuracies]

    def outcomes(self, column: str) -> Counter[Outcome]:
        """How the candidates ended on a data set; what is not measured yet is not counted."""
        ended = (self.scores[row.id, column].outcome for row in self.candidates)
        return Counter(outcome for outcome in ended if outcome is not None)

    def compare(self) -> list[Comparison]:
        """Each pair of data sets; the search's column against its own data sets alone, where those were measured again.

        That last pair says how far one data set agrees with itself: no other can be expected to agree more.
        """
        names = [target.name for target in self.targets]
        own = [target.name for target in self.targets if target.searched]
        pairs = [*((SEARCH, name) for name in own or names), *combinations(names, 2)]
        return [Comparison(first, second, correlate(*self._paired(first, second))) for first, second in pairs]

    def shift(self, target: Target) -> Interval | None:
        """Mean of (measured again - in the search) on the run's own data set, with Student's t over the candidates.

        With its sign turned round it is what luck had added to those chosen. None for any other data set, under
        another protocol, and where the search's accuracy is a mean over several data sets.
        """
        if [one for one in self.targets if one.searched] != [target] or target.protocol != self.protocol:
            return None
        again = zip(self.candidates, self.accuracies(target.name), strict=True)
        alike = ((row, new) for row, new in again if row.epochs in (None, target.epochs))  # with ASHA some had fewer
        return mean_interval([new - row.accuracy for row, new in alike if new is not None and row.accuracy is not None])

    def _paired(self, first: str, second: str) -> tuple[list[float], list[float]]:
        columns = zip(self.accuracies(first), self.accuracies(second), strict=True)
        there = [(left, right) for left, right in columns if left is not None and right is not None]
        return [left for left, _ in there], [right for _, right in there]

    def as_values(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        ranks = {column: self.ranks(column) for column in self.columns}
        return {
            "data_sets": [
                {
                    "name": target.name,
                    "searched": target.searched,
                    "protocol": target.protocol,
                    "epochs": target.epochs,
                    "seeds": target.seeds,
                    "outcomes": dict(self.outcomes(target.name)),
                }
                for target in self.targets
            ],
            "correlations": [
                {
                    "first": first,
                    "second": second,
                    "candidates": correlation.count,
                    "spearman": _bounds(correlation.spearman),
                    "kendall": _bounds(correlation.kendall),
                }
                for first, second, correlation in self.compare()
            ],
            "candidates": [
                {
                    "id": row.id,
                    "cycle": row.cycle,
                    "index": row.index,
                    SEARCH: {"accuracy": row.accuracy, "rank": ranks[SEARCH][number]},
                    **{
                        target.name: {
                            "outcome": (score := self.scores[row.id, target.name]).outcome,
                            "detail": score.failure.detail if score.failure else "",
                            "accuracy": score.accuracy,
                            "accuracies": score.accuracies,
                            "rank": ranks[target.name][number],
                        }
                        for target in self.targets
                    },
                }
                for number, row in enumerate(self.candidates)
            ],
        }


def change_conditions(own: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The run's configuration with `a.b=c` overrides that are for a transfer alone.

    Raises:
        ReevaluationError: a key that would have no effect here.
        ConfigError: an unknown key or a bad value, as in `override_config`.
    """
    mistakes = []
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key in WITHOUT_EFFECT:
            mistakes.append(f"--set {text}: {WITHOUT_EFFECT[key]}")
        elif "=" in text and not key.startswith(tuple(f"{section}." for section in CHANGEABLE)):
            mistakes.append(f"--set {text}: has no effect on a transfer")
    if mistakes:
        sections = []
        for section in CHANGEABLE:
            unset = [key.partition(".")[2] for key in WITHOUT_EFFECT if key.startswith(f"{section}.")]
            sections.append(f"{section}.*" + (f" (but {' and '.join(unset)})" if unset else ""))
        raise ReevaluationError("\n".join([*mistakes, f"What may be set: {', '.join(sections)}"]))
    # Rungs and seeds of the search do not hold here, and are not to forbid fewer epochs.
    return override_config(own.model_copy(update={"evaluation": EvaluationConfig()}), overrides)


def plan_targets(own: RunConfig, used: RunConfig, names: Sequence[str], seeds: int, remeasure: bool) -> list[Target]:
    """What to measure: with `remeasure` the run's own data sets, then those that `names` name.

    Args:
        own: the run's configuration.
        used: the same with what is to be changed for this once; its `dataset` section holds for the named data sets.
        names: NAME, or NAME=ROOT where the files are not in their usual place.
        seeds: trainings of each candidate on each data set.

    Raises:
        ReevaluationError: no name, one twice, or one that the run has searched on.
    """
    used_seeds = tuple(own.protocol.seed + SEED_OFFSET + number for number in range(seeds))

    def target(name: str, dataset: DatasetConfig, digest: str, searched: bool = False, built: bool = False) -> Target:
        return Target(name, dataset, digest, used_seeds, used.protocol.epochs, "transfer", searched, built)

    # What is changed in the dataset section is for the others; but protocol and budget are the same for all. The search
    # has built for its first data set alone.
    digest, holds = digest_of(own, used, own.dataset), _builds_hold(own, used)
    sources = [
        target(one.name, one, digest, searched=True, built=holds and one is own.dataset)
        for one in (own.dataset, *own.also)
    ]
    others = []
    for name in names:
        word, _, root = name.strip().partition("=")
        dataset = used.dataset.model_copy(update={"name": word.strip(), "root": root.strip() or None})
        others.append(target(name_dataset(dataset), dataset, digest_of(own, used, dataset)))
    found = [one.name for one in others]
    searched = [one.name for one in sources if name_dataset(one.dataset) in found]
    if not all(one.dataset.name for one in others) or not others:
        raise ReevaluationError(
            f"--to is {','.join(names)!r}; name data sets, as in --to fashion-mnist,folder=/my/images"
        )
    if searched:
        raise ReevaluationError(
            f"--to names {', '.join(searched)}, which this run has searched on; that is measured again anyway "
            "(--remeasure). Name other data sets"
        )
    if len(set(found)) < len(found):
        raise ReevaluationError(f"--to names a data set twice: {', '.join(found)}; name each once")
    return [*(sources if remeasure else ()), *others]


def _builds_hold(own: RunConfig, used: RunConfig) -> bool:
    """True where a build under `used` would say what it said under `own`: the same images, the same limits."""
    ours, theirs = (
        (one.protocol.resolution, one.budget.parameters, one.budget.flops, one.budget.memory_gib) for one in (own, used)
    )
    return ours == theirs


def choose_elites(
    rows: Iterable[CandidateRow], cycles: Iterable[CycleRow], top: int | None = None, sample: int | None = None
) -> list[CandidateRow]:
    """The elites of all closed cycles, best first: the best `top`, and `sample` of the others at random; all of them
    where neither is given. The same rows always give the same sample, and a larger one holds the smaller.

    Raises ReevaluationError where there are none.
    """
    chosen = {one for cycle in cycles for one in cycle.elite_ids}
    elites = [row for row in rank(rows) if row.id in chosen]
    if not elites:
        raise ReevaluationError("this run has no elites yet: `nas-ray status` shows how far it is")
    if top is None and sample is None:
        return elites
    others = elites[top or 0 :]
    drawn = {row.id for row in random.Random("transfer").sample(others, len(others))[: sample or 0]}
    return [*elites[: top or 0], *(row for row in others if row.id in drawn)]


def _bounds(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else interval.as_values()
