"""Candidates of a run evaluated again on a cluster, each at its own pace: built for another shape, then trained.

In: a run's store and what is missing (`nas_ray.reevaluation.Score`s). Out: rows in the store, each the moment it is
known, so that a run that was ended early goes on where it was. Seeds of one candidate come one after another, and a
failure ends them: what does not train from one seed is not tried from the next. With a limit on the time, candidates
are begun one by one in the given order, so that those which were begun are as good as finished when it is over.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import typer
from rich.console import Console

from actors.builder import BuilderPool
from actors.trial_pool import TrialPool
from jobs.connection import connect, end_on_signal
from jobs.live import DRAW_SECONDS, LINE_SECONDS, Watcher
from jobs.nodes import NodeGate
from jobs.tables import open_console
from nas_ray.candidate import Build, Key, Measurement, Trial
from nas_ray.config import EvaluationConfig, RunConfig
from nas_ray.datasets import Dataset, in_shape, out_shape
from nas_ray.ledger import Ledger
from nas_ray.outcome import Outcome, Rejection
from nas_ray.reevaluation import Score, refusal_row, training_rows
from nas_ray.schema import CandidateRow
from nas_ray.store import Store

WAIT_SECONDS = 0.1  # for a training to end, before builds are looked at again


@dataclass(slots=True)
class Work:
    """One candidate on one target: what is still to be done."""

    candidate: CandidateRow
    score: Score
    seeds: deque[int]
    build: Build | None = None


def reevaluate(
    store: Store,
    config: RunConfig,
    scores: Sequence[tuple[CandidateRow, Score]],
    datasets: Mapping[str, Dataset],
    address: str | None,
    console: Console | None = None,
    seconds: float | None = None,
) -> list[str]:
    """Measure what `scores` miss, in that order, and keep it; says how it goes on `console` (standard output).

    Args:
        store: whose lock this process has.
        config: that evaluators and builders work by.
        datasets: by the targets' names.
        address: of a Ray cluster; None: RAY_ADDRESS, or one of this machine's own.
        seconds: after which no training is begun, counted from when the cluster is there; None: all are.

    Returns:
        One line for each candidate that the engine lost in spite of its retries; the next call tries it again.
    """
    works = [Work(candidate, score, deque(score.missing)) for candidate, score in scores if score.missing]
    if not works:
        return []
    # One training at a time, of the length that the target says: rungs and means are the search's business. So is the
    # limit on latency, which a busy machine would take from a candidate that has kept it.
    unhurried = config.budget.model_copy(update={"latency_ms": None})
    config = config.model_copy(update={"evaluation": EvaluationConfig(), "budget": unhurried})
    note = f"Ended early. What was measured is kept in {store.folder}; the same command goes on."
    with connect(address):
        gate = NodeGate(config)
        gate.open(console)
        ledger, watcher = Ledger(store), Watcher(config, store.folder, console=console or open_console())
        try:
            with end_on_signal(note), watcher, _open_pools(config, works, datasets) as (builders, trials):
                run = _Run(works, builders, trials, store, seconds)
                run.begin()
                pause = DRAW_SECONDS if watcher.console.is_terminal else LINE_SECONDS
                shown = 0.0
                while run.left:
                    run.advance()
                    gate.watch(ledger, watcher)
                    if time.monotonic() - shown >= pause or not run.left:
                        watcher.phase(run.describe())
                        shown = time.monotonic()
        except Exception:
            typer.echo(note, err=True)
            raise
    for closed in ledger.cycles:
        store.compact(closed)
    return run.lost


@contextmanager
def _open_pools(
    config: RunConfig, works: Sequence[Work], datasets: Mapping[str, Dataset]
) -> Iterator[tuple[Mapping[str, BuilderPool], TrialPool]]:
    """Evaluators for all data sets, and builders for those that the search's builds do not hold for."""
    needed = {work.score.target.name: work.score.target for work in works}
    with ExitStack() as stack:
        builders = {
            name: stack.enter_context(closing(BuilderPool(config, in_shape(dataset), out_shape(dataset))))
            for name, dataset in datasets.items()
            if name in needed and not needed[name].built
        }
        trials = TrialPool(config, {name: datasets[name] for name in needed})
        stack.enter_context(closing(trials)).start()
        yield builders, trials


class _Run:
    """The work of one call, between its first program and its last row. In the pools a work's key is (number, 0)."""

    def __init__(
        self,
        works: Sequence[Work],
        builders: Mapping[str, BuilderPool],
        trials: TrialPool,
        store: Store,
        seconds: float | None,
    ) -> None:
        self.lost: list[str] = []
        self._works, self._builders, self._trials, self._store = works, builders, trials, store
        self._done = self._trained = self._refused = 0
        self._waiting: deque[Key] = deque()  # for a training
        self._training: set[Key] = set()
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def begin(self) -> None:
        """Have everything built or trained; nothing is waited for."""
        for number, work in enumerate(self._works):
            name = work.score.target.name
            if name in self._builders:
                self._builders[name].submit((number, 0), work.candidate.code)
            else:
                self._waiting.append((number, 0))
        self._train()

    def advance(self) -> None:
        """Take what was built and what was trained; waits a moment for the latter."""
        for pool in self._builders.values():
            for key, built in pool.results():
                if isinstance(built, Rejection):
                    self._refuse(key, built)
                else:
                    self._works[key[0]].build = built
                    self._waiting.append(key)
        for key, measured in self._trials.results(WAIT_SECONDS):
            self._training.remove(key)
            self._keep(key, measured)
        self._train()

    @property
    def left(self) -> int:
        """Candidates that are still waited for: once the time is up, those in training alone."""
        return len(self._training) if time.monotonic() >= self._end else len(self._works) - self._done

    def describe(self) -> str:
        """How far it is, for a person."""
        parts = [
            f"{self._done} of {len(self._works)} evaluated",
            f"{self._trained} trainings",
            f"{self._refused} refused",
        ]
        return ", ".join([*parts, *([f"{len(self.lost)} lost"] if self.lost else [])])

    def _train(self) -> None:
        """Begin what is waiting: with a limit on the time no more than will have a place soon, else all of it."""
        if not self._waiting:
            return
        room = math.inf if self._end == math.inf else max(2 * self._trials.capacity, 1)
        while self._waiting and len(self._training) < room and time.monotonic() < self._end:
            key = self._waiting.popleft()
            work = self._works[key[0]]
            target = work.score.target
            trial = Trial(work.candidate.code, target.name, work.seeds[0], (target.epochs,))
            self._trials.submit(key, trial)
            self._training.add(key)

    def _refuse(self, key: Key, refusal: Rejection) -> None:
        work = self._works[key[0]]
        if refusal.outcome.is_engine_fault:
            self._lose(work, refusal)
        else:
            self._store.append_evaluation(refusal_row(work.candidate, work.score.target, work.seeds[0], refusal))
            self._refused += 1
        self._done += 1

    def _keep(self, key: Key, measured: Measurement) -> None:
        work = self._works[key[0]]
        if measured.outcome.is_engine_fault:
            self._lose(work, measured)
            self._done += 1
            return
        seed = work.seeds.popleft()
        rows = training_rows(work.candidate, work.score.target, seed, work.build, measured)
        self._store.append_evaluation(*rows)
        self._trained += 1
        if work.seeds and measured.outcome is Outcome.VALID:
            self._waiting.appendleft(key)  # one that was begun comes first
        else:
            self._done += 1

    def _lose(self, work: Work, why: Rejection | Measurement) -> None:
        self.lost.append(f"{work.candidate.id} on {work.score.target.name}: {why.outcome}, {why.detail}")
