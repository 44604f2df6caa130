"""How far the candidates of a cycle came: generated -> parsed -> contract -> built -> novel -> trained -> elite.

In: final rows, and the ids that selection chose. Out: a `Funnel` whose counts add up, and `check_accounting`, which
says where a whole run's books do not. A candidate counts in every step that it passed and is lost in exactly one.

`built` counts what was built, `novel` what was then still new in every view. A program whose code was seen before is
not built at all, so it is lost between `contract` and `built`; `duplicates` counts those of both views.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nas_ray.evaluation import Plan
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow, EvaluationRow
from nas_ray.store import Store

STEPS = ("generated", "parsed", "contract", "built", "novel", "trained", "elite")
ORDER = tuple(Stage)  # a StrEnum keeps the order of its definition
# The last stage that a candidate must have passed to count in a step.
PASSED = {"parsed": Stage.PARSE, "contract": Stage.CONTRACT, "built": Stage.BUILD, "novel": Stage.GRAPH}


@dataclass(frozen=True, slots=True)
class Funnel:
    """Counts of candidates. Each step holds those of the step after it."""

    generated: int = 0
    parsed: int = 0
    contract: int = 0
    built: int = 0
    novel: int = 0
    trained: int = 0  # with the outcome `valid`
    elite: int = 0
    top_up: int = 0  # trained, not elite, but taken into the training set; no step of the funnel
    outcomes: Mapping[Outcome, int] = field(default_factory=lambda: MappingProxyType({}))  # sums to `generated`

    @property
    def lost(self) -> int:
        """Candidates that the engine lost in spite of its retries: nobody can say what they would have been."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.is_engine_fault)

    @property
    def judged(self) -> int:
        """Candidates that the generator answers for: all but the lost ones."""
        return self.generated - self.lost

    @property
    def duplicates(self) -> int:
        """Programs seen before, in code or in graph."""
        return self.outcomes.get(Outcome.DUPLICATE, 0)

    @property
    def steps(self) -> tuple[tuple[str, int], ...]:
        """The steps in order, each with its count."""
        return tuple((step, getattr(self, step)) for step in STEPS)


def count_funnel(
    rows: Iterable[CandidateRow], elite_ids: Collection[str] = (), top_up_ids: Collection[str] = ()
) -> Funnel:
    """The funnel of the given final rows."""
    rows = list(rows)
    counts = {step: sum(_passed(row, stage) for row in rows) for step, stage in PASSED.items()}
    valid_ids = [row.id for row in rows if row.outcome is Outcome.VALID]
    return Funnel(
        generated=len(rows),
        trained=len(valid_ids),
        elite=sum(one in elite_ids for one in valid_ids),
        top_up=sum(one in top_up_ids for one in valid_ids),
        outcomes=MappingProxyType(Counter(row.outcome for row in rows)),
        **counts,
    )


def lost_at(rows: Iterable[CandidateRow]) -> Counter[Stage]:
    """How many of the candidates that did not become valid ended at each stage."""
    return Counter(row.stage for row in rows if row.outcome is not Outcome.VALID)


def check_accounting(store: Store) -> list[str]:
    """Everything in a run's books that does not add up, one line each; an empty list for a sound run.

    Every completion of a finished cycle must have exactly one final row and every final row a completion; every valid
    candidate must have all the evaluations of the run's plan and their mean as its accuracy, and no evaluation may say
    something else than its candidate; each cycle's row must repeat what its candidates say. A cycle that is not
    finished may have completions on their way. What was measured for another purpose than the search is passed over.
    """
    problems: list[str] = []
    rows = store.candidates()
    finished = {row.cycle: row for row in store.cycles()}
    written = {(completion.cycle, completion.index) for _arrival, completion in store.completions()}
    keys = Counter((row.cycle, row.index) for row in rows)
    problems += [f"candidate {key} has {count} final rows" for key, count in keys.items() if count > 1]
    problems += [f"candidate {key} has a final row but no completion" for key in sorted(set(keys) - written)]
    problems += [f"candidate {key} has no final row" for key in sorted(written - set(keys)) if key[0] in finished]

    plan = Plan.of(store.config)
    by_place: dict[tuple[int, int], list[EvaluationRow]] = defaultdict(list)
    by_id: dict[str, list[EvaluationRow]] = defaultdict(list)
    for evaluation in filter(plan.holds, store.evaluations()):
        by_place[evaluation.cycle, evaluation.index].append(evaluation)
        by_id[evaluation.id].append(evaluation)
    for row in rows:
        name, placed = f"candidate {(row.cycle, row.index)}", by_place[row.cycle, row.index]
        if row.stage is not Stage.TRAIN and row.outcome is not Outcome.VALID:
            problems += _check_evaluations(name, row, placed, plan)
            continue
        problems += [f"{name} is {row.id}, its evaluation one of {one.id}" for one in placed if one.id != row.id]
        # By its id: a program that the engine had lost may have been written again, and then keeps what was measured.
        problems += _check_evaluations(name, row, by_id[row.id], plan)

    for cycle, closed in sorted(finished.items()):
        own = [row for row in rows if row.cycle == cycle]
        counted = count_funnel(own, closed.elite_ids, closed.top_up_ids)
        for step in (*STEPS, "top_up"):
            if getattr(closed, step) != getattr(counted, step):
                problems.append(f"cycle {cycle} says {getattr(closed, step)} {step}, its rows {getattr(counted, step)}")
    return problems


def _check_evaluations(name: str, row: CandidateRow, evaluations: list[EvaluationRow], plan: Plan) -> list[str]:
    """Where a candidate's final row and its evaluations differ."""
    failed = sorted({one.outcome for one in evaluations} - {Outcome.VALID})
    if row.outcome.is_engine_fault or (not evaluations and row.outcome is not Outcome.VALID):
        return []
    if not evaluations:
        return [f"{name} is valid but has no evaluation"]
    if (failed or [Outcome.VALID]) != [row.outcome]:
        return [f"{name} is {row.outcome}, its evaluation {', '.join(failed) or Outcome.VALID}"]
    if row.outcome is not Outcome.VALID:
        return []
    last = max(one.epochs for one in evaluations)
    grade = plan.grade(evaluations, last)
    if grade is None:
        return [f"{name} is valid but lacks evaluations of {last} epochs"]
    said = [] if row.epochs in (last, None) else [f"{name} says {row.epochs} epochs, its last evaluation {last}"]
    if row.accuracy != grade.accuracy:
        said.append(f"{name} says accuracy {row.accuracy}, its evaluations {grade.accuracy}")
    return said


def _passed(row: CandidateRow, stage: Stage) -> bool:
    return row.outcome is Outcome.VALID or ORDER.index(row.stage) > ORDER.index(stage)
