"""What is known of a run: read once from Parquet, kept in step with every row that is written.

In: a `Store`. Out: answers to what a driver asks when it starts, goes on or starts again after a kill: which cycles are
closed, which candidates of the open one were never written, which were written but have no final row, which evaluations
are already there. Every row goes through here on its way to the store, so memory and Parquet never disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.evaluation import Plan
from nas_ray.outcome import Outcome
from nas_ray.replay import Pair
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow, NodeRow
from nas_ray.selection import Selection
from nas_ray.store import Store


class Ledger:
    """The accounts of one run. Rows are held in memory: about 4 kB a candidate."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.config = config = store.config
        self.cycles: dict[int, CycleRow] = {row.cycle: row for row in store.cycles()}
        self._completions: dict[int, dict[int, tuple[int, Completion]]] = defaultdict(dict)
        self._rows: dict[int, dict[int, CandidateRow]] = defaultdict(dict)
        self.plan = Plan.of(config)
        self._evaluations: dict[str, list[EvaluationRow]] = defaultdict(list)
        for arrival, completion in store.completions(self.next_cycle):
            self._completions[completion.cycle][completion.index] = (arrival, completion)
        for row in store.candidates():
            self._rows[row.cycle][row.index] = row
        for evaluation in store.evaluations():
            if self.plan.holds(evaluation):
                self._evaluations[evaluation.id].append(evaluation)
        self._nodes = {(row.node, row.walls) for row in store.nodes()}
        arrivals = [row.arrival for row in self.rows()] + [
            arrival for answers in self._completions.values() for arrival, _ in answers.values()
        ]
        self._next_arrival = max(arrivals, default=-1) + 1

    @property
    def next_cycle(self) -> int:
        """The first cycle that is not closed."""
        return max(self.cycles, default=-1) + 1

    @property
    def adapter(self) -> int:
        """Version that writes the next cycle's programs; 0 is the base model."""
        return self.cycles[max(self.cycles)].adapter if self.cycles else 0

    @property
    def adapter_folder(self) -> str | None:
        """Where that version lies; None for the base model."""
        return self.store.adapter_folder(self.adapter) if self.adapter else None

    def rows(self, cycle: int | None = None) -> list[CandidateRow]:
        """Final rows, of one cycle or of all, in the order in which the candidates arrived."""
        chosen = self._rows.values() if cycle is None else [self._rows[cycle]]
        return sorted((row for rows in chosen for row in rows.values()), key=lambda row: row.arrival)

    def unwritten(self, requests: Iterable[GenerationRequest]) -> list[GenerationRequest]:
        """Those requests that no completion answers yet."""
        return [r for r in requests if r.index not in self._completions[r.cycle] and r.index not in self._rows[r.cycle]]

    def unfinished(self, cycle: int) -> list[tuple[int, Completion]]:
        """Completions without a final row, with their place in the order of arrival, first come first."""
        answers = self._completions[cycle].items()
        return sorted((answer for index, answer in answers if index not in self._rows[cycle]), key=lambda pair: pair[0])

    def evaluations(self, candidate_id: str) -> list[EvaluationRow]:
        """The finished trainings of that program that the run's plan asks for, as far as they are there."""
        return list(self._evaluations.get(candidate_id, ()))

    def pairs(self, fresh: Selection[CandidateRow] | None = None) -> Iterator[Pair]:
        """Prompt-code pairs of all closed cycles' elites and top-ups, oldest first, then a `fresh` selection's.

        Without those that answered a prompt for an edit by a whole program: that is not to be learned.
        """
        rows: list[CandidateRow] = []
        for cycle in sorted(self.cycles):
            chosen = {*self.cycles[cycle].elite_ids, *self.cycles[cycle].top_up_ids}
            rows += [row for row in self.rows(cycle) if row.outcome is Outcome.VALID and row.id in chosen]
        if fresh is not None:
            rows += [*fresh.elites, *fresh.top_ups]
        return (Pair.of(row) for row in rows if row.mode != "fallback")

    def archive(self) -> list[CandidateRow]:
        """Every novel valid candidate of the closed cycles, in the order of arrival: what may be edited."""
        closed = (row for row in self.rows() if row.cycle in self.cycles)
        return [row for row in closed if row.novel and row.outcome is Outcome.VALID]

    def add_completion(self, completion: Completion) -> int:
        """Journal one completion; returns its place in the order of arrival."""
        arrival, self._next_arrival = self._next_arrival, self._next_arrival + 1
        self.store.append_completion(completion, arrival)
        self._completions[completion.cycle][completion.index] = (arrival, completion)
        return arrival

    def add_evaluation(self, row: EvaluationRow) -> None:
        """Keep one finished training, before the candidate's final row is written."""
        self.store.append_evaluation(row)
        self._evaluations[row.id].append(row)

    def add_candidate(self, row: CandidateRow) -> None:
        """Write one candidate's final row."""
        self.store.append_candidate(row)
        self._rows[row.cycle][row.index] = row

    def add_node(self, row: NodeRow) -> None:
        """Keep what holds candidates in on a node, unless that is known."""
        if (row.node, row.walls) not in self._nodes:
            self.store.append_node(row)
            self._nodes.add((row.node, row.walls))

    def close_cycle(self, row: CycleRow) -> None:
        """Close a cycle: from here on its rows do not change, and its files are compacted."""
        self.store.append_cycle(row)
        self.cycles[row.cycle] = row
        self.store.compact(row.cycle)
