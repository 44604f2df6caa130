"""The best candidates of a run, and one candidate with where it came from.

In: a `Store`. Out: rows in the order of merit, and a `Dossier`: everything that is known of one candidate.
Accuracy here is that of the validation split. The test split is measured by a final round, or when one is exported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas_ray.outcome import Outcome
from nas_ray.pareto import number_fronts, objectives_of
from nas_ray.schema import CandidateRow, CycleRow, EvaluationRow
from nas_ray.store import Store, StoreError

# Said wherever the scores of the best are shown.
WINNERS_CURSE = (
    "The best are shown with the score that they were chosen by, so they were lucky too: expect less from fresh seeds "
    "(`nas-ray reliability` says how much)."
)
PLACE = re.compile(r"(\d+)[/.:](\d+)")  # cycle/index: the name of a candidate that has no id


@dataclass(frozen=True, slots=True)
class Dossier:
    """One candidate, with what came before and after it."""

    row: CandidateRow
    rank: int | None  # 1 = best of the run; None where it is not on the leaderboard
    ranked: int  # candidates on the leaderboard
    standing: str  # "elite" | "top-up" | "" as its cycle's selection said
    parents: tuple[CandidateRow, ...]  # the elites shown in its prompt, as far as the run still holds them
    children: tuple[CandidateRow, ...]  # valid candidates in whose prompt it was shown
    duplicates: tuple[CandidateRow, ...]  # later candidates refused because of it
    evaluations: tuple[EvaluationRow, ...]
    teacher: CycleRow | None  # the cycle whose fine-tuning made the adapter that wrote it


def rank(rows: Iterable[CandidateRow], top: int | None = None) -> list[CandidateRow]:
    """Novel, valid candidates, each id once, best first: accuracy, then lower loss, fewer parameters, the earlier."""
    best: dict[str, CandidateRow] = {}
    for row in sorted(rows, key=_merit):
        if row.novel and row.outcome is Outcome.VALID and row.accuracy is not None:
            best.setdefault(row.id, row)
    return list(best.values())[:top]


def pareto_front(rows: Iterable[CandidateRow], goals: Sequence[str]) -> list[CandidateRow]:
    """The candidates of `rank` that no other one beats: none is as good in every goal and better in one.

    In the order of `rank`. A goal that was not measured counts as the worst (`nas_ray.pareto.objectives_of`).
    """
    ranked = rank(rows)
    fronts = number_fronts(objectives_of(ranked, goals))
    return [row for row, front in zip(ranked, fronts, strict=True) if front == 0]


def find_candidate(rows: Iterable[CandidateRow], name: str) -> CandidateRow:
    """The candidate that `name` means: an id, the beginning of exactly one, or CYCLE/INDEX.

    Of candidates with the same id it is the one that was admitted, not its duplicates. Raises StoreError where there is
    none or more than one.
    """
    rows = list(rows)
    if place := PLACE.fullmatch(name):
        cycle, index = int(place[1]), int(place[2])
        for row in rows:
            if (row.cycle, row.index) == (cycle, index):
                return row
        raise StoreError(f"there is no candidate {index} in cycle {cycle}; `nas-ray status` shows the cycles.")
    found = {row.id for row in rows if name and row.id.startswith(name.lower())}
    if not found:
        raise StoreError(f"no candidate's id begins with {name!r}; `nas-ray leaderboard` shows the best ones' ids.")
    if len(found) > 1 and name.lower() not in found:
        some = ", ".join(sorted(found)[:5]) + (", ..." if len(found) > 5 else "")
        raise StoreError(f"{name!r} is the beginning of {len(found)} ids: {some}. Give more digits.")
    chosen = name.lower() if name.lower() in found else found.pop()
    same = [row for row in rows if row.id == chosen]
    return min(same, key=lambda row: (row.outcome is Outcome.DUPLICATE, row.cycle, row.arrival))


def open_dossier(store: Store, name: str) -> Dossier:
    """Everything about the candidate that `name` means (see `find_candidate`)."""
    rows = store.candidates()
    row = find_candidate(rows, name)
    cycles = {cycle.cycle: cycle for cycle in store.cycles()}
    ranked = rank(rows)
    place = next((number for number, one in enumerate(ranked, start=1) if one.id == row.id), None)
    own = cycles.get(row.cycle)
    valid = {one.id: one for one in rows if one.outcome is Outcome.VALID}
    standing = ""
    if own is not None and row.outcome is Outcome.VALID:
        standing = "elite" if row.id in own.elite_ids else "top-up" if row.id in own.top_up_ids else ""
    before = [cycle for cycle in cycles.values() if cycle.cycle < row.cycle and cycle.training_ids]
    teachers = [cycle for cycle in before if row.adapter and cycle.adapter == row.adapter]
    return Dossier(
        row=row,
        rank=place if row.outcome is Outcome.VALID else None,
        ranked=len(ranked),
        standing=standing,
        parents=tuple(valid[one] for one in row.parent_ids if one in valid),
        children=tuple(one for one in valid.values() if row.id and row.id in one.parent_ids),
        duplicates=tuple(one for one in rows if row.id and one.duplicate_of == row.id),
        evaluations=tuple(one for one in store.evaluations() if row.id and one.id == row.id),
        teacher=min(teachers, key=lambda cycle: cycle.cycle, default=None),
    )


def _merit(row: CandidateRow) -> tuple[float, float, int, int, int]:
    accuracy = -1.0 if row.accuracy is None else row.accuracy
    loss = float("inf") if row.loss is None else row.loss
    return (-accuracy, loss, row.parameters or 0, row.cycle, row.index)
