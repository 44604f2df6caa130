"""How far one short training can be trusted: a random part of a run's candidates, trained again, and for longer.

In: a run's configuration and rows. Out: what is to be measured (`plan_reliability`, `choose_random`) and, from the rows
of the purpose `reliability` that came of it, a `Reliability`: how much of the scores' variance is not luck, whether
elites are noisier than others, and how far a short training says what a long one would.

Quality is the mean accuracy on the run's own validation split that a program would reach over all seeds. The split is
the same for every training, so the luck of its images is no part of the noise.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.interval import Interval, mean_interval
from nas_ray.leaderboard import rank
from nas_ray.outcome import Outcome
from nas_ray.reevaluation import ReevaluationError, Target
from nas_ray.retest import (
    Agreement,
    Fidelity,
    NoiseRatio,
    Scores,
    Variance,
    compare_noise,
    compare_orders,
    find_fidelity,
    gather,
    list_groups,
    pool,
    show_noise,
)
from nas_ray.run_table import RunTable
from nas_ray.schema import CandidateRow
from nas_ray.theory.reliability_estimates import icc1, reliability_mixed

PURPOSE = "reliability"
PROGRAMS, SEEDS = 40, 3
LONG, LONGER, LONG_SEEDS = 20, 5, 2  # programs; times the protocol's epochs; two, so that their own noise is known
SHORT_OFFSET, LONG_OFFSET = 100_000, 200_000  # of the first seed; apart from the search's, transfers' and final rounds'


class Plan(NamedTuple):
    """What is measured on one data set."""

    short: Target  # fresh seeds at the protocol's epochs
    long: Target  # seeds of its own at more epochs


def plan_reliability(
    config: RunConfig, seeds: int = SEEDS, epochs: int | None = None, dataset: str | None = None
) -> list[Plan]:
    """One plan for each data set of the run, or for the one called `dataset`.

    Args:
        config: of the run, whose protocol holds but for seeds and epochs.
        seeds: fresh short trainings of a program.
        epochs: of a long training; None: LONGER times the protocol's.
        dataset: of the run's own; None: all of them.

    Raises:
        ReevaluationError: fewer than two seeds, a long training that is no longer than the protocol's, or a data set
            that the run has not searched on.
    """
    protocol, own = config.protocol, (config.dataset, *config.also)
    epochs = epochs or LONGER * protocol.epochs
    if seeds < 2:
        raise ReevaluationError(f"--seeds is {seeds}; one score says nothing of the noise around it: give 2 or more")
    if epochs <= protocol.epochs:
        raise ReevaluationError(
            f"--epochs is {epochs}, and the search itself trained for {protocol.epochs} (protocol.epochs): give more, "
            "or leave longer trainings out with --long 0"
        )
    if dataset is not None and dataset not in [one.name for one in own]:
        names = ", ".join(one.name for one in own)
        raise ReevaluationError(f"--dataset is {dataset!r}, on which this run has not searched; it has: {names}")

    def target(one: DatasetConfig, first: int, count: int, length: int) -> Target:
        digest, fresh = (
            protocol.vary(epochs=length).digest,
            tuple(protocol.seed + first + seed for seed in range(count)),
        )
        # The search has built for its first data set alone.
        return Target(one.name, one, digest, fresh, length, PURPOSE, searched=True, built=one is config.dataset)

    return [
        Plan(target(one, SHORT_OFFSET, seeds, protocol.epochs), target(one, LONG_OFFSET, LONG_SEEDS, epochs))
        for one in own
        if dataset in (None, one.name)
    ]


def choose_random(rows: Iterable[CandidateRow], count: int) -> list[CandidateRow]:
    """`count` of the novel, valid candidates at random, in an order that is random too; all, if there are fewer.

    The order is that of a hash of the id: the same candidates always come in the same order, a larger number begins
    with the smaller one, and candidates of later cycles change nothing in the order of the earlier ones. It knows
    nothing of the scores: among elites, which a score has chosen, the ICC would be biased.

    Raises ReevaluationError where there is none.
    """
    drawn = sorted(rank(rows), key=lambda row: hashlib.sha256(f"{PURPOSE} {row.id}".encode()).digest())
    if not drawn:
        raise ReevaluationError("this run has no valid candidate yet: `nas-ray status` shows how far it is")
    return drawn[:count]


@dataclass(frozen=True, slots=True)
class Reliability:
    """What fresh seeds and longer trainings of a random part of a run say, on one of its data sets."""

    dataset: str
    epochs: int  # of the short training: the protocol's
    programs: int  # with at least one fresh score
    seeds: int  # fresh short trainings of a program, at most
    trainings: int  # fresh ones, short and long
    failures: Mapping[Outcome, int]  # of those, the ones that gave no number
    icc: Interval | None  # reliability of one run over the whole run, from fresh seeds alone; None: not testable
    mixed: Interval | None  # likewise, with the variance of all single scores of the search
    in_cycle: Interval | None  # likewise, with their variance within a cycle: what a cycle's selection can rely on
    searched: int  # single scores of the search
    survivors: bool  # asha ended the search's weaker trainings early, so that its scores are those of the others
    sigma_a: float | None  # standard deviation of quality over the run's programs, share 0 .. 1
    sigma_n: float | None  # standard deviation of one training around its program's quality, likewise
    curse: Interval | None  # mean of (score in the search - mean of fresh ones) of the elites among the programs, t
    agreement: Agreement | None
    noise_ratio: NoiseRatio | None
    fidelity: Fidelity | None  # of the longest training that says something

    @property
    def selection(self) -> Interval | None:
        """Reliability of one score for choosing among a cycle's candidates; None: not testable.

        It is that within a cycle; but where seeds agree less on the order than such a reliability promises, the one
        that their agreement stands for.
        """
        if self.agreement is not None and self.agreement.refutes:
            return self.agreement.reliability
        return self.in_cycle or self.mixed or self.icc

    @classmethod
    def read(cls, table: RunTable, dataset: str | None = None) -> Reliability | None:
        """From rows of the purpose `reliability` on one data set of the run, its first; None where there are none.

        Fields for which there is too little are None. A program that failed from one seed counts with the scores that
        it has. Of a search under asha only the better programs were trained to the end: the variance of their scores is
        cut off below, so that `mixed` and `in_cycle` would be biased and are None.
        """
        name, protocol = dataset or table.config.dataset.name, table.config.protocol
        rows = [row for row in table.evaluations if row.purpose == PURPOSE and row.dataset == name]
        if not rows:
            return None
        short = gather(rows, protocol.epochs, protocol.digest)
        groups, singles = list_groups(short), _single_scores(table, name)
        found = icc1(groups) if show_noise(groups) else None
        icc = Interval(found.ci_low, found.ICC, found.ci_high) if found else None
        lengths = sorted({row.epochs for row in rows if row.epochs > protocol.epochs}, reverse=True)
        longer = ((epochs, gather(rows, epochs, protocol.vary(epochs=epochs).digest)) for epochs in lengths)
        survivors = table.config.evaluation.scheduler == "asha"
        whole = found is not None and not survivors
        fidelities = (find_fidelity(short, long, epochs, icc.estimate) for epochs, long in longer if icc)
        return cls(
            dataset=name,
            epochs=protocol.epochs,
            programs=len(short),
            seeds=max(map(len, groups), default=0),
            trainings=len(rows),
            failures=Counter(row.outcome for row in rows if row.outcome is not Outcome.VALID),
            icc=icc,
            mixed=_mix(pool([list(chain.from_iterable(singles))]), pool(groups)) if whole else None,
            in_cycle=_mix(pool(singles), pool(groups)) if whole else None,
            searched=sum(map(len, singles)),
            survivors=survivors,
            sigma_a=max(found.sigma_a2, 0.0) ** 0.5 if found else None,
            sigma_n=found.sigma_n2**0.5 if found else None,
            curse=_measure_curse(table, short, name),
            agreement=compare_orders(short, icc) if icc else None,
            noise_ratio=compare_noise(short, {row.id for row in table.elites}),
            fidelity=next((one for one in fidelities if one is not None), None),
        )

    def as_values(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; a bound that is not there is None."""
        return {column.name: _plain(getattr(self, column.name)) for column in fields(self)}


def _single_scores(table: RunTable, dataset: str) -> list[list[float]]:
    """The search's own scores from its first seed, of novel and valid candidates, cycle by cycle."""
    protocol, cycles = table.config.protocol, {row.id: row.cycle for row in rank(table.candidates)}
    rows = (
        row
        for row in table.evaluations
        if (row.purpose, row.dataset, row.seed) == ("search", dataset, protocol.seed) and row.id in cycles
    )
    by_cycle: dict[int, list[float]] = {}
    for one, scores in gather(rows, protocol.epochs, protocol.digest).items():
        by_cycle.setdefault(cycles[one], []).extend(scores.values())
    return list(by_cycle.values())


def _measure_curse(table: RunTable, short: Scores, dataset: str) -> Interval | None:
    """By how much luck had raised the elites' scores; None where they were chosen by a mean of several trainings."""
    if table.config.also or table.config.evaluation.seeds > 1 or dataset != table.config.dataset.name:
        return None
    elites = (row for row in table.elites if row.id in short and row.epochs in (None, table.config.protocol.epochs))
    return mean_interval([row.accuracy - fmean(short[row.id].values()) for row in elites if row.accuracy is not None])


def _mix(total: Variance, noise: Variance) -> Interval | None:
    """Reliability of a single score, from the variance of single scores and the noise that fresh seeds show."""
    if total.df < 1 or total.value <= 0:
        return None
    found = reliability_mixed(total.value, total.df + 1, noise.value, noise.df)
    return Interval(found.ci_low, found.R, found.ci_high)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    return None if isinstance(value, float) and math.isnan(value) else value
