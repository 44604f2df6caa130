"""One cycle's candidates, each on its own way from request to final row.

In: the cycle's requests and the rooms (generator, novelty index, builders, trials). Out: exactly one final row for each
request, written through the ledger the moment it is known. Nothing waits for a batch: a program is checked while others
are still being written and trained while others are still being checked.

Novelty is judged in the order of arrival, in both views: code as completions come in, graphs as builds come back, which
is the same order. The order is in the journal, so a run that was killed judges as if it had not been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean

from jobs.live import Snapshot
from jobs.rooms import Rooms
from nas_ray.answer import read_answer
from nas_ray.candidate import Build, Completion, GenerationRequest, Key, Measurement, Program, Trial, Verdict
from nas_ray.contract import check_contract
from nas_ray.cycle_summary import summarise_cycle
from nas_ray.evaluation import Evaluation, Grade
from nas_ray.finetune_report import FinetuneReport
from nas_ray.funnel import count_funnel
from nas_ray.ledger import Ledger
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.selection import Selection
from nas_ray.stopwatch import Stopwatch


@dataclass(slots=True)
class Draft:
    """A candidate on its way: what is known of it so far."""

    completion: Completion
    arrival: int
    seconds: float = 0.0  # spent on checking, building and evaluating it
    mode: str = "full"
    patch: str = ""
    program: Program | None = None
    build: Build | None = None
    verdict: Verdict | None = None
    evaluation: Evaluation | None = None
    trial: Trial | None = None  # under way


@dataclass(slots=True)
class CycleStream:
    """The candidates of one cycle between their requests and their final rows."""

    cycle: int
    requests: Sequence[GenerationRequest]
    rooms: Rooms
    ledger: Ledger
    watch: Stopwatch
    _unasked: deque[GenerationRequest] = field(init=False)
    _unchecked: deque[tuple[int, Completion]] = field(init=False)
    _asked: int = field(init=False, default=0)
    _tokens: int = field(init=False, default=0)  # written while this process watched
    _building: dict[Key, Draft] = field(init=False, default_factory=dict)
    _training: dict[Key, Draft] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._unasked = deque(self.ledger.unwritten(self.requests))
        self._unchecked = deque(self.ledger.unfinished(self.cycle))

    @property
    def finished(self) -> bool:
        """True when every request of the cycle has its final row."""
        return not (self._unasked or self._asked or self._unchecked or self._building or self._training)

    @property
    def in_flight(self) -> int:
        """Candidates asked for that have no final row yet."""
        return self._asked + len(self._unchecked) + len(self._building) + len(self._training)

    def advance(self) -> None:
        """Take every candidate as far as it goes now; sleeps a moment where nothing moved."""
        moved = self._generate() + self._check() + self._build() + self._evaluate()
        self.watch.note(generate=self._asked > 0, evaluate=bool(self._training), check=bool(self._building))
        if not moved:
            time.sleep(0.01)

    def snapshot(self) -> Snapshot:
        """Where the cycle stands, for a person."""
        rows, everything = self.ledger.rows(self.cycle), self.ledger.rows()
        graded = [row.accuracy for row in rows if row.accuracy is not None]
        best = max(everything, key=lambda row: row.accuracy or 0.0, default=None)
        return Snapshot(
            cycle=self.cycle,
            wanted=len(self.requests),
            funnel=count_funnel(rows),
            totals=count_funnel(everything),
            in_flight=self.in_flight,
            cycle_mean=fmean(graded) if graded else None,
            cycle_best=max(graded, default=None),
            best_accuracy=best.accuracy if best is not None else None,
            best_id=best.id if best is not None else "",
            tokens_per_second=self.rooms.generator.statistics().tokens_per_second if self._asked else None,
        )

    def summarise(self, selection: Selection[CandidateRow], report: FinetuneReport, adapter: int) -> CycleRow:
        """The row that closes the cycle; `adapter` is the version that goes on after it."""
        return summarise_cycle(
            self.cycle, self.ledger.rows(self.cycle), selection, report, adapter, self.watch, self._tokens
        )

    def _generate(self) -> int:
        """Ask for as many programs as there is room for; journal those that came back."""
        room = self.rooms.in_flight - self.in_flight
        asked = [self._unasked.popleft() for _ in range(min(room, len(self._unasked)))]
        if asked:
            self.rooms.generator.add(asked)
            self._asked += len(asked)
        written = self.rooms.generator.poll() if self._asked else []
        for completion in written:
            self._asked -= 1
            self._tokens += completion.tokens
            self._unchecked.append((self.ledger.add_completion(completion), completion))
        return len(asked) + len(written)

    def _check(self) -> int:
        """Parse, contract, code novelty: what needs no other process but the index."""
        count = len(self._unchecked)
        while self._unchecked:
            arrival, completion = self._unchecked.popleft()
            draft = Draft(completion, arrival, mode=self.requests[completion.index].mode)
            begun = time.monotonic()
            rejection = self._examine(draft)
            draft.seconds += time.monotonic() - begun
            if rejection is not None or draft.program is None:
                self._finish(draft, rejection)
                continue
            self._building[completion.cycle, completion.index] = draft
            self.rooms.builders.submit((completion.cycle, completion.index), draft.program.code)
        return count

    def _examine(self, draft: Draft) -> Rejection | None:
        config, completion = self.ledger.config, draft.completion
        answer = read_answer(self.requests[completion.index], completion.text, config.delta)
        if isinstance(answer, Rejection):
            return answer
        draft.program, draft.mode, draft.patch = answer.program, answer.mode, answer.patch
        rejection = check_contract(answer.program, config.containment.screens)
        if rejection is not None:
            return rejection
        return self._judge(draft, self.rooms.index.admit_code(answer.program), Stage.NOVELTY)

    def _judge(self, draft: Draft, verdict: Verdict, stage: Stage) -> Rejection | None:
        if draft.verdict is None or not verdict.novel:
            draft.verdict = verdict  # where both views find it new, the code's neighbour is the one to tell
        if verdict.novel:
            return None
        detail = f"{verdict.view} similarity {verdict.similarity:.3f} to {verdict.neighbour}"
        return Rejection(Outcome.DUPLICATE, stage, detail)

    def _build(self) -> int:
        """What came back from the builders, in the order of arrival: the graph's novelty, then on to the trials."""
        built = self.rooms.builders.results()
        for key, result in built:
            draft = self._building.pop(key)
            if isinstance(result, Rejection):
                self._finish(draft, result)
                continue
            draft.build = result
            draft.seconds += result.seconds
            assert draft.program is not None  # set before it was built
            rejection = None
            if self.ledger.config.novelty.graph:
                rejection = self._judge(
                    draft, self.rooms.index.admit_graph(draft.program.id, result.graph), Stage.GRAPH
                )
            if rejection is not None:
                self._finish(draft, rejection)
            else:
                known = self.ledger.evaluations(draft.program.id)  # before an interruption
                draft.seconds += sum(row.seconds for row in known)
                draft.evaluation = Evaluation(draft.program.code, self.ledger.plan, known)
                self._train(key, draft)
        return len(built)

    def _train(self, key: Key, draft: Draft) -> None:
        """A candidate's next training, or its final row where none is left."""
        evaluation = draft.evaluation
        assert evaluation is not None  # set once it was built
        draft.trial = evaluation.next_trial()
        if draft.trial is None:
            self._finish(draft, evaluation.rejection, evaluation.grade)
            return
        self._training[key] = draft
        self.rooms.trials.submit(key, draft.trial)

    def _evaluate(self) -> int:
        """What came back from the trials: evaluations, each kept before the candidate's final row is written."""
        measured = self.rooms.trials.results()
        for key, measurement in measured:
            draft = self._training[key]
            evaluation, trial = draft.evaluation, draft.trial
            assert evaluation is not None
            assert trial is not None
            draft.seconds += measurement.seconds
            if measurement.outcome.is_engine_fault:
                del self._training[key]
                self._finish(draft, self.ledger.plan.reject(measurement, (trial.dataset, trial.seed)))
                continue
            if not evaluation.holds(trial, measurement.epochs):
                row = self._evaluation_row(draft, trial, measurement)
                self.ledger.add_evaluation(row)
                evaluation.rows.append(row)
            if measurement.final:
                evaluation.end_trial(measurement.epochs)
                del self._training[key]
                self._train(key, draft)
        return len(measured)

    def _evaluation_row(self, draft: Draft, trial: Trial, measurement: Measurement) -> EvaluationRow:
        assert draft.program is not None
        assert draft.build is not None
        return EvaluationRow.of(
            measurement,
            id=draft.program.id,
            cycle=self.cycle,
            index=draft.completion.index,
            dataset=trial.dataset,
            protocol=self.ledger.plan.digest(measurement.epochs),
            seed=trial.seed,
            parameters=draft.build.parameters,
            flops=draft.build.flops,
        )

    def _finish(self, draft: Draft, rejection: Rejection | None, grade: Grade | None = None) -> None:
        """Write the one final row of a candidate."""
        completion, program, build, verdict = draft.completion, draft.program, draft.build, draft.verdict
        if rejection is not None and rejection.outcome.is_engine_fault and program is not None:
            self.rooms.index.withdraw(program.id)  # it was never judged, so writing it again must not be a duplicate
        duplicate = verdict if verdict is not None and not verdict.novel else None
        self.ledger.add_candidate(
            CandidateRow(
                run=self.ledger.config.name,
                cycle=completion.cycle,
                index=completion.index,
                id=program.id if program is not None else "",
                arrival=draft.arrival,
                seed=completion.seed,
                adapter=completion.adapter,
                engine=completion.engine,
                prompt=completion.prompt,
                completion_tokens=completion.tokens,
                prompt_tokens=completion.prompt_tokens,
                generation_seconds=completion.seconds,
                finish_reason=completion.finish_reason,
                code=program.code if program is not None else completion.text,
                dropped=program.dropped if program is not None else (),
                outcome=rejection.outcome if rejection is not None else Outcome.VALID,
                stage=rejection.stage if rejection is not None else Stage.TRAIN,
                detail=rejection.detail if rejection is not None else "",
                error_type=rejection.error_type if rejection is not None else "",
                seconds=draft.seconds,
                duplicate_of=duplicate.neighbour if duplicate is not None else "",
                similarity=verdict.similarity if verdict is not None else 0.0,
                duplicate_view=duplicate.view if duplicate is not None else "",
                novel=verdict is not None and verdict.novel,
                parameters=build.parameters if build is not None else None,
                flops=build.flops if build is not None else None,
                activation_bytes=build.activation_bytes if build is not None else None,
                graph=build.graph if build is not None else "",
                accuracy=grade.accuracy if grade is not None else None,
                loss=grade.loss if grade is not None else None,
                parent_ids=self.requests[completion.index].parent_ids,
                mode=draft.mode,
                wanted=self.requests[completion.index].wanted,
                patch=draft.patch,
                depth=build.depth if build is not None else None,
                latency_ms=grade.latency_ms if grade is not None else None,
                epochs=grade.epochs if grade is not None else None,
                created=datetime.now(UTC),
            )
        )
