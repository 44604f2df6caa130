"""The funnel adds up: every candidate counts in each step that it passed and is lost in exactly one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import add_candidate, close_cycle, make_row, make_run

from nas_ray.config import RunConfig
from nas_ray.funnel import check_accounting, count_funnel, lost_at
from nas_ray.outcome import Outcome, Stage
from nas_ray.store import Store

endings = st.one_of(
    st.just((Outcome.VALID, Stage.TRAIN)),
    st.tuples(st.sampled_from([one for one in Outcome if one is not Outcome.VALID]), st.sampled_from(Stage)),
)


@settings(deadline=None)
@given(st.lists(endings, max_size=40))
def test_every_candidate_is_counted_once_where_it_ended(chosen: list[tuple[Outcome, Stage]]) -> None:
    rows = [make_row(0, index, ending, random.Random(index)) for index, ending in enumerate(chosen)]
    funnel = count_funnel(rows)
    counts = [count for _, count in funnel.steps[:-1]]
    assert counts == sorted(counts, reverse=True)
    assert sum(funnel.outcomes.values()) == funnel.generated == len(rows)
    lost = lost_at(rows)
    assert sum(lost.values()) + funnel.trained == funnel.generated
    assert counts[0] - counts[1] == lost[Stage.GENERATE] + lost[Stage.PARSE]
    assert counts[1] - counts[2] == lost[Stage.CONTRACT]
    assert counts[2] - counts[3] == lost[Stage.NOVELTY] + lost[Stage.BUILD]
    assert counts[3] - counts[4] == lost[Stage.GRAPH]
    assert counts[4] - counts[5] == lost[Stage.TRAIN]


def test_elites_and_top_ups_count_valid_candidates_only_and_apart() -> None:
    ending = (Outcome.VALID, Stage.TRAIN)
    rows = [make_row(0, index, ending, random.Random(index)) for index in range(3)]
    copy = replace(rows[0], index=9, outcome=Outcome.DUPLICATE, stage=Stage.NOVELTY)
    funnel = count_funnel([*rows, copy], elite_ids=[rows[0].id], top_up_ids=[rows[1].id])
    assert (funnel.trained, funnel.elite, funnel.top_up, funnel.duplicates) == (3, 1, 1, 1)


def test_what_the_engine_lost_is_not_counted_against_the_generator() -> None:
    rows = [make_row(0, 0, (Outcome.NODE_LOST, Stage.TRAIN), random.Random(0))]
    rows += [make_row(0, 1, (Outcome.TIMEOUT, Stage.TRAIN), random.Random(1))]
    funnel = count_funnel(rows)
    assert (funnel.generated, funnel.lost, funnel.judged) == (2, 1, 1)


def test_a_sound_runs_accounts_have_no_problem(tmp_path: Path) -> None:
    assert check_accounting(make_run(tmp_path / "run", unfinished=5)) == []


@pytest.fixture
def open_run(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run", RunConfig())


def test_a_completion_without_a_final_row_is_a_problem_once_its_cycle_is_closed(open_run: Store) -> None:
    row = make_row(0, 0, (Outcome.NO_CODE, Stage.PARSE), random.Random(0))
    add_candidate(open_run, row)
    completion = open_run.completions(0)[0][1]
    open_run.append_completion(replace(completion, index=1), 1)
    assert check_accounting(open_run) == []
    close_cycle(open_run, 0)
    assert check_accounting(open_run) == ["candidate (0, 1) has no final row"]


def test_every_kind_of_false_entry_is_named(open_run: Store) -> None:
    dice = random.Random(0)
    valid = make_row(0, 0, (Outcome.VALID, Stage.TRAIN), dice)
    add_candidate(open_run, valid)
    open_run.append_candidate(make_row(0, 1, (Outcome.NO_CODE, Stage.PARSE), dice))
    open_run.append_candidate(make_row(0, 2, (Outcome.VALID, Stage.TRAIN), dice))
    evaluation = open_run.evaluations()[0]
    slow = make_row(0, 3, (Outcome.NO_CODE, Stage.PARSE), dice)
    add_candidate(open_run, slow)
    open_run.append_evaluation(replace(evaluation, id="other", index=3))
    wrong = make_row(0, 4, (Outcome.VALID, Stage.TRAIN), dice)
    add_candidate(open_run, replace(wrong, stage=Stage.NOVELTY))
    open_run.append_evaluation(replace(evaluation, id=wrong.id, index=4, accuracy=0.123))
    close_cycle(open_run, 0)
    closed = open_run.cycles()[0]
    open_run.append_cycle(replace(closed, cycle=1, elite_ids=()))
    problems = "\n".join(check_accounting(open_run))
    assert "candidate (0, 1) has a final row but no completion" in problems
    assert "candidate (0, 2) is valid but has no evaluation" in problems
    assert "candidate (0, 3) is no_code, its evaluation valid" in problems
    assert "candidate (0, 4) says accuracy" in problems
    assert f"cycle 1 says {closed.generated} generated, its rows 0" in problems
