"""The novelty index on a cluster: one actor that holds it, and the driver's handle to that actor.

In: programs and graphs in order of arrival. Out: verdicts. The index is never saved: when its actor dies, the handle
starts another, admits again what the run's final rows and the handle's own memory of unfinished candidates say was
admitted, and repeats the call. So a kill costs time but changes no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError

from nas_ray.candidate import Program, Verdict
from nas_ray.config import NoveltyConfig
from nas_ray.corpus import read_corpus
from nas_ray.normalisation import normalise
from nas_ray.novelty import NoveltyIndex, Record
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow
from nas_ray.sketches import Sketches

ATTEMPTS = 3  # of one call, each with a new actor
UNFINISHED = 256  # admissions remembered before those with a final row are forgotten


@dataclass(frozen=True, slots=True)
class Seen:
    """One admitted candidate, as the driver knows it."""

    id: str
    code: str
    graph: str = ""


class NoveltyIndexActor:
    """The shell around `NoveltyIndex`. Calls of one driver are answered in the order in which they were made."""

    def __init__(self, config: NoveltyConfig) -> None:
        self._index = NoveltyIndex(config)

    def seed(self, corpus: Sketches) -> None:
        """Admits a corpus."""
        self._index.seed(corpus)

    def restore(self, seen: list[Seen]) -> None:
        """Admits again what was admitted before."""
        self._index.restore(Record(entry.id, normalise(entry.code), entry.graph) for entry in seen)

    def admit_code(self, program: Program) -> Verdict:
        """See `NoveltyIndex.admit_code`."""
        return self._index.admit_code(program)

    def admit_graph(self, program_id: str, graph: str) -> Verdict:
        """See `NoveltyIndex.admit_graph`."""
        return self._index.admit_graph(program_id, graph)

    def withdraw(self, program_id: str) -> bool:
        """See `NoveltyIndex.withdraw`."""
        return self._index.withdraw(program_id)

    def size(self) -> int:
        """Number of admitted programs."""
        return len(self._index)


class NoveltyIndexHandle:
    """The driver's side. `rows` gives the final rows of the run so far, in order of arrival, whenever it is asked.

    Raises:
        CorpusError, LemurError: `config.corpus` cannot be read.
        ValueError: no bands reach `config.miss_rate`.
    """

    def __init__(self, config: NoveltyConfig, rows: Callable[[], Iterable[CandidateRow]]) -> None:
        NoveltyIndex(config)  # a mistake in the configuration shows here, not in the actor's log
        self._config = config
        self._rows = rows
        self._corpus = read_corpus(config)
        self._unfinished: dict[str, Seen] = {}
        self._limit = UNFINISHED
        self._start()

    def admit_code(self, program: Program) -> Verdict:
        """Judge a program by id and code; a novel one is admitted."""
        verdict: Verdict = self._call("admit_code", program)
        if verdict.novel:
            self._remember(Seen(program.id, program.code))
        return verdict

    def admit_graph(self, program_id: str, graph: str) -> Verdict:
        """Judge an admitted program by the signature of its traced graph."""
        verdict: Verdict = self._call("admit_graph", program_id, graph)
        if verdict.novel and program_id in self._unfinished:
            self._unfinished[program_id] = replace(self._unfinished[program_id], graph=graph)
        return verdict

    def withdraw(self, program_id: str) -> bool:
        """Forget a program that an engine fault took; False if it was not there."""
        self._unfinished.pop(program_id, None)
        withdrawn: bool = self._call("withdraw", program_id)
        return withdrawn

    def size(self) -> int:
        """Number of admitted programs, the corpus included."""
        size: int = self._call("size")
        return size

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)

    def _start(self) -> None:
        """Start an actor that has seen everything admitted so far. It answers calls only when it has."""
        self._actor = actor = ray.remote(NoveltyIndexActor).options(num_cpus=0).remote(self._config)
        seeded = actor.seed.remote(self._corpus)
        finished = {entry.id: entry for entry in _admitted(self._rows())}
        unfinished = [entry for entry in self._unfinished.values() if entry.id not in finished]
        restored = actor.restore.remote([*finished.values(), *unfinished])
        self._prepared = [seeded, restored]  # an error in there must not be lost

    def _call(self, method: str, *arguments: object) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ray.get([*self._prepared, getattr(self._actor, method).remote(*arguments)])[-1]
            except RayActorError:
                if attempt == ATTEMPTS:
                    raise
                ray.kill(self._actor)  # it may be cut off rather than dead
                self._start()
        raise AssertionError("unreachable")

    def _remember(self, entry: Seen) -> None:
        self._unfinished[entry.id] = entry
        if len(self._unfinished) > self._limit:
            finished = {entry.id for entry in _admitted(self._rows())}  # a duplicate bears the id of another
            self._unfinished = {key: seen for key, seen in self._unfinished.items() if key not in finished}
            self._limit = max(UNFINISHED, 2 * len(self._unfinished))


def _admitted(rows: Iterable[CandidateRow]) -> Iterator[Seen]:
    """The candidates among final rows that hold a place in the index."""
    for row in rows:
        by_graph_only = row.duplicate_view == "graph"  # its code was novel and keeps its place
        if (row.novel or by_graph_only) and not Outcome(row.outcome).is_engine_fault:
            yield Seen(row.id, row.code, row.graph if row.novel else "")
