"""The leaderboard ranks what is valid and novel; one candidate is found by any name that means it alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from sample_run import add_candidate, close_cycle, make_row, make_run

from nas_ray.config import RunConfig
from nas_ray.leaderboard import find_candidate, open_dossier, pareto_front, rank
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import CandidateRow
from nas_ray.store import Store, StoreError

VALID = (Outcome.VALID, Stage.TRAIN)


def valid(index: int, **values: object) -> CandidateRow:
    return replace(make_row(0, index, VALID, random.Random(index)), **values)  # type: ignore[arg-type]


def test_only_valid_novel_candidates_are_ranked_best_first(tmp_path: Path) -> None:
    rows = make_run(tmp_path / "run").candidates()
    ranked = rank(rows)
    accuracies = [row.accuracy for row in ranked]
    assert accuracies == sorted(accuracies, reverse=True)  # type: ignore[type-var]
    assert {row.id for row in ranked} == {row.id for row in rows if row.outcome is Outcome.VALID}
    assert rank(rows, top=3) == ranked[:3]


def test_a_candidate_that_is_not_novel_is_not_ranked() -> None:
    assert [row.index for row in rank([valid(0, novel=False), valid(1)])] == [1]


def test_an_id_is_ranked_once() -> None:
    rows = [valid(0, id="a", accuracy=0.5), valid(1, id="a", accuracy=0.6), valid(2, id="b", accuracy=0.55)]
    assert [(row.id, row.accuracy) for row in rank(rows)] == [("a", 0.6), ("b", 0.55)]


def test_ties_go_to_lower_loss_then_fewer_parameters_then_the_earlier_one() -> None:
    rows = [
        valid(3, accuracy=0.5, loss=1.0, parameters=10),
        valid(2, accuracy=0.5, loss=1.0, parameters=10),
        valid(1, accuracy=0.5, loss=1.0, parameters=9),
        valid(0, accuracy=0.5, loss=2.0, parameters=1),
    ]
    assert [row.index for row in rank(rows)] == [1, 2, 3, 0]


def test_the_pareto_front_is_what_no_other_beats_best_accuracy_first() -> None:
    rows = [
        valid(0, accuracy=0.9, parameters=1000, flops=50),
        valid(1, accuracy=0.8, parameters=100, flops=60),
        valid(2, accuracy=0.7, parameters=100, flops=70),
        valid(3, accuracy=0.6, parameters=2000, flops=1),
        valid(4, accuracy=0.95, parameters=1, flops=1, novel=False),
    ]
    assert [row.index for row in pareto_front(rows, ("accuracy", "parameters"))] == [0, 1]
    assert [row.index for row in pareto_front(rows, ("accuracy", "parameters", "flops"))] == [0, 1, 3]


def test_without_a_measured_cost_the_pareto_front_is_the_best_accuracy() -> None:
    rows = [valid(0, accuracy=0.9), valid(1, accuracy=0.8), valid(2, accuracy=0.9)]
    assert {row.index for row in pareto_front(rows, ("accuracy", "latency"))} == {0, 2}


def test_a_candidate_is_found_by_id_beginning_and_place() -> None:
    rows = [valid(0, id="aa11"), valid(1, id="ab22"), valid(2, id="")]
    assert find_candidate(rows, "aa11").index == 0
    assert find_candidate(rows, "AB").index == 1
    assert find_candidate(rows, "0/2").index == 2


def test_the_admitted_candidate_is_found_not_its_duplicate() -> None:
    copy = valid(0, id="aa", outcome=Outcome.DUPLICATE)
    assert find_candidate([copy, valid(5, id="aa")], "aa").index == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a", r"'a' is the beginning of 2 ids: aa11, ab22\. Give more digits"),
        ("ff", r"no candidate's id begins with 'ff'"),
        ("", r"no candidate's id begins with ''"),
        ("7/1", r"there is no candidate 1 in cycle 7"),
    ],
)
def test_a_name_that_means_none_or_many_is_refused(name: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        find_candidate([valid(0, id="aa11"), valid(1, id="ab22")], name)


def test_a_dossier_knows_parents_children_duplicates_and_the_teacher(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "run", RunConfig())
    add_candidate(store, valid(0, id="aa", accuracy=0.9))
    add_candidate(store, valid(1, id="bb", accuracy=0.8))
    close_cycle(store, 0)
    child = replace(valid(0, id="cc", accuracy=0.7), cycle=1, adapter=1, parent_ids=("aa",))
    copy = replace(child, index=1, id="dd", outcome=Outcome.DUPLICATE, stage=Stage.NOVELTY, duplicate_of="aa")
    add_candidate(store, child)
    add_candidate(store, copy)
    first, second = open_dossier(store, "aa"), open_dossier(store, "cc")
    assert (first.rank, first.ranked, first.standing) == (1, 3, "elite")
    assert [row.id for row in first.children] == ["cc"]
    assert [row.index for row in first.duplicates] == [1]
    assert [row.accuracy for row in first.evaluations] == [0.9]
    assert first.teacher is None
    assert [row.id for row in second.parents] == ["aa"]
    assert second.teacher is not None
    assert second.teacher.cycle == 0
    assert open_dossier(store, "dd").rank is None
