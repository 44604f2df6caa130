"""Rows in part files: appending, reading while another process writes, and merging many small parts into one.

In: a `Place`, a folder in it and rows of one kind. Out: files `part-FIRST-LAST.parquet`, numbered without gaps in the
order in which they were written. A merged part's range covers the parts that it replaces, so the names alone say which
files count: from the moment at which the merged part appears, a part inside a longer range is no longer read, deleted
or not. That is what makes a merge safe to interrupt anywhere.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from nas_ray.schema import AnyRow, Row, rows_of, table_of
from nas_ray.store.place import Place, StoreError

NAME = re.compile(r"part-(\d{8})-(\d{8})\.parquet")
READ_ATTEMPTS = 50  # at 0.02 s: a merge that a reader waits for takes a moment, not a second


class Part(NamedTuple):
    """One file; sorts in the order of its rows."""

    first: int
    last: int

    @property
    def name(self) -> str:
        return f"part-{self.first:08d}-{self.last:08d}.parquet"


def folder_of(row: Row) -> str:
    """Where a row lives: `candidates/cycle=0003`. Text is percent-encoded, as readers of Hive-style folders expect."""
    levels = [row.TABLE]
    for column in row.FOLDERS:
        value = getattr(row, column)
        levels.append(f"{column}=" + (f"{value:04d}" if isinstance(value, int) else quote(value, safe="")))
    return "/".join(levels)


def folder_values(folder: str) -> dict[str, str]:
    """What a folder's name says: `evaluations/dataset=digits/cycle=0003` -> {"dataset": "digits", "cycle": "0003"}."""
    pairs = (level.split("=", 1) for level in folder.split("/") if "=" in level)
    return {column: unquote(value) for column, value in pairs}


def part_folders(place: Place, row: type[AnyRow]) -> list[str]:
    """All folders of a table that may hold parts, in order."""
    folders = [row.TABLE]
    for _ in row.FOLDERS:
        folders = [f"{folder}/{name}" for folder in folders for name in place.folders(folder) if "=" in name]
    return folders


def list_parts(place: Place, folder: str) -> tuple[list[Part], list[Part]]:
    """The parts that count, in order, and those that a longer one has replaced but which are still there."""
    matches = (NAME.fullmatch(name) for name in place.names(folder))
    found = sorted(Part(int(match[1]), int(match[2])) for match in matches if match)
    replaced = [
        part
        for part in found
        if any(other != part and other.first <= part.first and part.last <= other.last for other in found)
    ]
    return [part for part in found if part not in replaced], replaced


def write_part(place: Place, folder: str, sequence: int, rows: Sequence[AnyRow]) -> None:
    """Append rows as the part numbered `sequence`. They can be read when this returns, and not before."""
    place.prepare(f"{folder}/{Part(sequence, sequence).name}", _encode(table_of(rows)))()


def read_rows(place: Place, folder: str, row: type[AnyRow]) -> list[AnyRow]:
    """All rows of a folder in the order in which they were appended, each once, also while they are being merged.

    A directory listing is no snapshot: one taken while files come and go may miss a part and the merged part that
    replaces it. Two equal listings in a row cannot, because what was there before the second began is in it. A file
    that vanishes before it is opened was merged away: list again.
    """
    for _ in range(READ_ATTEMPTS):
        parts, _replaced = list_parts(place, folder)
        if list_parts(place, folder)[0] == parts:
            try:
                return [one for part in parts for one in _read_part(place, folder, part, row)]
            except FileNotFoundError:
                continue
        time.sleep(0.02)
    raise StoreError(f"could not read {folder} in {place.uri}: its files kept changing. Try again.")


def merge_steps(place: Place, folder: str, row: type[AnyRow]) -> Iterator[str]:
    """Merge a folder's parts into one, and say after each step what it did.

    It may be cut off after any step; a reader sees every row once at all times, and `remove_replaced` does the rest.
    """
    parts, replaced = list_parts(place, folder)
    if len(parts) > 1:
        merged = Part(parts[0].first, parts[-1].last)
        rows = [one for part in parts for one in _read_part(place, folder, part, row)]
        publish = place.prepare(f"{folder}/{merged.name}", _encode(table_of(rows)))
        yield f"wrote {merged.name} under a temporary name"
        publish()
        yield f"renamed {merged.name}"
        replaced += parts
    for part in replaced:
        place.remove(f"{folder}/{part.name}")
        yield f"removed {part.name}"


def remove_replaced(place: Place, folder: str) -> list[str]:
    """Finish an interrupted merge: remove the parts that a merged one has replaced, and return their names."""
    replaced = [f"{folder}/{part.name}" for part in list_parts(place, folder)[1]]
    for name in replaced:
        place.remove(name)
    return replaced


def next_sequence(place: Place, folder: str) -> int:
    """The number of the next part to be appended."""
    parts, _ = list_parts(place, folder)
    return parts[-1].last + 1 if parts else 0


def _encode(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _read_part(place: Place, folder: str, part: Part, row: type[AnyRow]) -> list[AnyRow]:
    data = place.read(f"{folder}/{part.name}")
    try:
        return rows_of(pq.ParquetFile(pa.BufferReader(data)).read(), row, folder_values(folder))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        where = place.address(f"{folder}/{part.name}")
        raise StoreError(
            f"{where} cannot be read: {error}. Restore it from a copy, or move it away to "
            "go on without its rows (`nas-ray resume` makes the missing candidates again)."
        ) from error
