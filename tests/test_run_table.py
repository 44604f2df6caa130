"""What a run's rows are counted as before any theory looks at them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sample_run import make_run

from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome, Stage
from nas_ray.run_table import RunTable, count_elites, freeze_bar
from nas_ray.schema import CandidateRow, CycleRow
from nas_ray.selection import select


def row(cycle: int, index: int, accuracy: float | None, **more: object) -> CandidateRow:
    outcome = Outcome.VALID if accuracy is not None else Outcome.SHAPE_ERROR
    values = {"outcome": outcome, "stage": Stage.TRAIN, "novel": accuracy is not None, "accuracy": accuracy, **more}
    return CandidateRow(run="made", cycle=cycle, index=index, id=f"{cycle}-{index}", **values)  # type: ignore[arg-type]


def table_of(rows: list[CandidateRow], cycles: int) -> RunTable:
    return RunTable.of(RunConfig(), rows, [CycleRow(cycle=cycle) for cycle in range(cycles)], [])


def test_the_bar_is_that_of_the_first_cycle_and_later_ones_do_not_move_it(tmp_path: Path) -> None:
    table = RunTable.read(make_run(tmp_path / "run"))
    first = [one for one in table.candidates if one.cycle == 0]
    assert freeze_bar(table) == select(first, table.config.selection, 0).bar


def test_a_cycle_without_a_valid_program_leaves_the_bar_to_the_next() -> None:
    rows = [row(0, 0, None), row(1, 0, 0.4), row(1, 1, 0.6), row(1, 2, 0.5), row(1, 3, 0.2)]
    assert freeze_bar(table_of(rows, 2)) == 0.6
    assert freeze_bar(table_of(rows[:1], 1)) is None


def test_a_duplicate_counts_with_the_accuracy_of_what_it_repeats() -> None:
    good = row(0, 0, 0.9)
    again = row(0, 1, None, outcome=Outcome.DUPLICATE, duplicate_of=good.id)
    of_a_bad_one = row(0, 2, None, outcome=Outcome.DUPLICATE, duplicate_of="gone")
    table = table_of([good, again, of_a_bad_one], 1)
    counts = count_elites(table, 0.5)
    assert (counts.drawn[0], counts.over[0]) == (3, 2)
    assert table.quality(of_a_bad_one) is None


def test_a_duplicate_of_a_duplicate_counts_with_the_first_of_the_chain() -> None:
    good = row(0, 0, 0.9)
    graph = row(0, 1, None, outcome=Outcome.DUPLICATE, duplicate_of=good.id)
    near = row(0, 2, None, outcome=Outcome.DUPLICATE, duplicate_of=graph.id)
    exact = row(0, 3, None, outcome=Outcome.DUPLICATE, duplicate_of=near.id)
    exact = replace(exact, id=near.id)  # the same text again: it is said to repeat its own id
    table = table_of([good, graph, near, exact], 1)
    assert [table.quality(one) for one in (graph, near, exact)] == [0.9, 0.9, 0.9]
    assert table.original(near.id) == good.id


def test_a_chain_that_comes_back_to_itself_ends() -> None:
    one = row(0, 0, None, outcome=Outcome.DUPLICATE, duplicate_of="0-1")
    other = row(0, 1, None, outcome=Outcome.DUPLICATE, duplicate_of="0-0")
    assert table_of([one, other], 1).quality(one) is None


def test_an_edit_that_changes_nothing_counts_with_its_parent_s_accuracy() -> None:
    parent = row(0, 0, 0.9)
    same = row(0, 1, None, outcome=Outcome.NO_CHANGE, parent_ids=(parent.id,))
    assert table_of([parent, same], 1).quality(same) == 0.9


def test_the_engine_s_own_faults_are_no_draws() -> None:
    lost = row(0, 1, None, outcome=Outcome.NODE_LOST)
    assert count_elites(table_of([row(0, 0, 0.9), lost], 1), 0.5).drawn.tolist() == [1]


def test_an_open_cycle_is_left_out(tmp_path: Path) -> None:
    table = RunTable.read(make_run(tmp_path / "run", cycles=2, candidates=26, unfinished=7))
    counts = count_elites(table, 0.0)
    assert counts.cycles.tolist() == [0, 1]
    assert counts.drawn.tolist() == [26, 26]


def test_draws_over_the_bar_are_a_part_of_the_draws(tmp_path: Path) -> None:
    table = RunTable.read(make_run(tmp_path / "run"))
    for bar in (0.0, 0.5, 1.0):
        counts = count_elites(table, bar)
        assert np.all(counts.over <= counts.drawn)
    assert count_elites(table, 0.0).over.sum() == len(table.valid)


def test_elites_are_those_of_their_own_cycle() -> None:
    rows = [row(0, 0, 0.9), replace(row(1, 0, 0.9), id="0-0")]
    table = RunTable.of(RunConfig(), rows, [CycleRow(cycle=0, elite_ids=("0-0",)), CycleRow(cycle=1)], [])
    assert [(one.cycle, one.index) for one in table.elites] == [(0, 0)]
