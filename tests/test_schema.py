"""Rows survive Parquet unchanged, and the schema is what a reader of the files relies on."""

from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_ray.candidate import Completion
from nas_ray.outcome import Outcome, Stage
from nas_ray.schema import ROWS, CandidateRow, CompletionRow, CycleRow, rows_of, schema_of, table_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FLOATS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**62)

candidate_rows = st.builds(
    CandidateRow,
    run=TEXT,
    cycle=st.just(7),
    index=COUNTS,
    outcome=st.sampled_from(Outcome),
    stage=st.sampled_from(Stage),
    code=TEXT,
    dropped=st.lists(TEXT, max_size=3).map(tuple),
    parent_ids=st.lists(TEXT, max_size=3).map(tuple),
    accuracy=st.none() | FLOATS,
    parameters=st.none() | COUNTS,
    novel=st.booleans(),
    created=st.datetimes(datetime(1971, 1, 1), timezones=st.just(UTC)),
)


@settings(deadline=None)
@given(st.lists(candidate_rows, min_size=1, max_size=4))
def test_candidate_rows_come_back_from_arrow_unchanged(rows: list[CandidateRow]) -> None:
    assert rows_of(table_of(rows), CandidateRow, {"cycle": "0007"}) == rows


@settings(deadline=None)
@given(st.lists(FLOATS, max_size=5).map(tuple), st.lists(TEXT, max_size=5).map(tuple))
def test_cycle_rows_keep_their_lists(nll: tuple[float, ...], ids: tuple[str, ...]) -> None:
    row = CycleRow(cycle=1, elite_ids=ids, nll_before_train=nll)
    assert rows_of(table_of([row]), CycleRow, {}) == [row]


def test_a_completion_comes_back_from_its_row() -> None:
    completion = Completion(1, 2, "prompt", 3, "class Net", 4, 5, 0.5, "stop", "vllm", 6)
    row = CompletionRow.of(completion, arrival=9)
    assert (row.arrival, row.completion) == (9, completion)


@pytest.mark.parametrize("row", ROWS)
def test_a_column_of_the_folder_name_is_not_repeated_in_the_file(row: type[CandidateRow]) -> None:
    assert set(schema_of(row).names) | set(row.FOLDERS) == {column.name for column in fields(row)}
    assert not set(schema_of(row).names) & set(row.FOLDERS)


def test_only_numbers_that_may_be_missing_are_nullable() -> None:
    nullable = [column.name for column in schema_of(CandidateRow) if column.nullable]
    assert nullable == ["parameters", "flops", "activation_bytes", "accuracy", "loss", "depth", "latency_ms", "epochs"]


def test_a_file_from_before_a_column_existed_reads_with_its_default() -> None:
    table = table_of([CandidateRow(run="r", cycle=0, index=1, outcome=Outcome.VALID, stage=Stage.TRAIN)])
    old = table.drop_columns(["novel", "dropped"])
    assert rows_of(old, CandidateRow, {"cycle": "0000"}) == rows_of(table, CandidateRow, {"cycle": "0000"})


def test_a_column_of_a_later_version_is_passed_over() -> None:
    table = table_of([CycleRow(cycle=1)])
    assert rows_of(table.append_column("later", pa.array(["x"])), CycleRow, {}) == rows_of(table, CycleRow, {})


def test_a_file_without_a_needed_column_is_refused_by_its_name() -> None:
    table = table_of([CycleRow(cycle=1)]).drop_columns(["cycle"])
    with pytest.raises(ValueError, match="'cycle' is missing"):
        rows_of(table, CycleRow, {})


@pytest.mark.parametrize("row", ROWS)
def test_every_key_column_is_one_without_a_default_or_was_always_the_same_before_it_came(
    row: type[CandidateRow],
) -> None:
    needed = {column.name for column in fields(row) if column.default is MISSING and column.default_factory is MISSING}
    assert set(row.KEY) - needed <= {"split", "purpose"}
