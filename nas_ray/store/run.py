"""The folder of one run: `config.yaml`, six tables and the adapters. The source of truth of a search.

In: rows from the driver. Out: rows to anybody. One process writes (the first write takes the lock), any number reads.
On an object store there is no lock: nothing stops two drivers there, and `driver()` cannot tell whether one is alive.

    config.yaml                                  the configuration, and `format: 1`
    completions/cycle=NNNN/part-*.parquet        journal: every completion as it arrived
    candidates/cycle=NNNN/part-*.parquet         one final row for each candidate
    evaluations/dataset=NAME/cycle=NNNN/part-*.parquet
    cycles/part-*.parquet                        one row for each finished cycle
    nodes/part-*.parquet                         one row for each node that candidates may have run on
    final_rounds/part-*.parquet                  one row for each look at the test split
    adapters/NNNN/                               LoRA weights, one folder for each version
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from nas_ray.candidate import Completion
from nas_ray.config import RunConfig
from nas_ray.config_file import ConfigError, dump_config, parse_config
from nas_ray.schema import (
    ROWS,
    AnyRow,
    CandidateRow,
    CompletionRow,
    CycleRow,
    EvaluationRow,
    FinalRoundRow,
    NodeRow,
    Row,
)
from nas_ray.store.lock import Driver, RunLock
from nas_ray.store.parts import (
    folder_of,
    folder_values,
    merge_steps,
    next_sequence,
    part_folders,
    read_rows,
    remove_replaced,
    write_part,
)
from nas_ray.store.place import LocalPlace, Place, StoreError, open_place

FORMAT = 1
CONFIG = "config.yaml"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a dead driver had left behind and `Store.recover` removed."""

    temporary: tuple[str, ...]  # files that were being written
    replaced: tuple[str, ...]  # parts whose merge was complete but not yet cleaned up


def find_run(run: str, root: str = "runs") -> str:
    """The folder that a person means by `run`: a folder, an address (s3://...), or the name of one under `root`."""
    if "://" in run or (Path(run) / CONFIG).exists():
        return run
    named = Path(root) / run
    if (named / CONFIG).exists():
        return str(named)
    found = sorted(path.parent.name for path in Path(root).glob(f"*/{CONFIG}"))
    known = f"Runs under {root}/: {', '.join(found)}." if found else f"There are no runs under {root}/ yet."
    places = run if Path(run).is_absolute() else f"{run} or {named}"
    where = f"{run} is there but holds no {CONFIG}" if Path(run).is_dir() else f"there is no folder {places}"
    raise StoreError(f"{run!r} is not a run: {where}. {known}")


class Store:
    """A run folder. Made by `Store.create` or `Store.open`."""

    def __init__(self, place: Place, config: RunConfig) -> None:
        self.place = place
        self.config = config
        self._mutex = threading.Lock()  # the driver's threads append through one store
        self._lock = RunLock(place.path) if isinstance(place, LocalPlace) else None
        self._keys: dict[str, set[tuple[Any, ...]]] = {}
        self._next: dict[str, int] = {}

    @classmethod
    def create(cls, folder: str | Path, config: RunConfig) -> Store:
        """Make a new run folder and take its lock. Raises StoreError where there is one already."""
        place = open_place(str(folder))
        if CONFIG in place.names(""):
            raise StoreError(
                f"{place.uri} holds a run already. "
                f"Go on with it by `nas-ray resume {place.uri}`, or choose another `name`."
            )
        if isinstance(place, LocalPlace):
            _make_folder(place)
        store = cls(place, config)
        store.lock()
        store._write_config()
        return store

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Open a run folder for reading; the first append or `recover()` takes the lock.

        Raises StoreError where it is missing, unreadable, damaged, or of another format.
        """
        place = open_place(str(folder))
        try:
            text = place.read(CONFIG).to_pybytes().decode()
        except FileNotFoundError:
            raise StoreError(
                f"{place.uri} is not a run folder: it has no {CONFIG}. `nas-ray search` makes one."
            ) from None
        return cls(place, _parse_config(text, place.uri))

    @property
    def folder(self) -> str:
        """The absolute path or the address."""
        return self.place.uri

    # Writing

    def append_completion(self, completion: Completion, arrival: int) -> None:
        """Record a completion as it arrives; `arrival` counts the completions of the run."""
        self._append(CompletionRow.of(completion, arrival))

    def append_candidate(self, row: CandidateRow) -> None:
        """Record a candidate's final row."""
        self._append(row)

    def append_evaluation(self, *rows: EvaluationRow) -> None:
        """Record one measurement, or those of one training on several splits: all of them or none, whatever dies."""
        self._append(*rows)

    def append_cycle(self, row: CycleRow) -> None:
        """Record a finished cycle; its presence is what says that the cycle is finished."""
        self._append(row)

    def append_node(self, row: NodeRow) -> None:
        """Record what keeps candidates in on one node."""
        self._append(row)

    def append_final_round(self, row: FinalRoundRow) -> None:
        """Record what a final round is going to train, before it does."""
        self._append(row)

    def _append(self, *rows: AnyRow) -> None:
        """Append rows of one folder, as one part."""
        kind, keys = type(rows[0]), [_key(row) for row in rows]
        (folder,) = {folder_of(row) for row in rows}
        with self._mutex:
            self._hold_lock()
            known = self._keys.get(kind.TABLE)
            if known is None:
                known = self._keys[kind.TABLE] = {_key(old) for old in self._rows(kind)}
            there = next((key for key in keys if key in known), None)
            if there is not None:
                named = ", ".join(f"{column}={value}" for column, value in zip(kind.KEY, there, strict=True))
                what = f"{kind.TABLE} of {self.folder} hold a row for {named} already"
                raise StoreError(f"{what}; the first one is kept.")
            if folder not in self._next:
                self._next[folder] = next_sequence(self.place, folder)
            write_part(self.place, folder, self._next[folder], rows)
            self._next[folder] += 1
            known.update(keys)

    # Reading

    def completions(self, cycle: int | None = None) -> list[tuple[int, Completion]]:
        """The journal in order of arrival, of one cycle or of the whole run: (arrival, completion)."""
        rows = sorted(self._rows(CompletionRow, cycle), key=lambda row: row.arrival)
        return [(row.arrival, row.completion) for row in rows]

    def candidates(self, cycle: int | None = None) -> list[CandidateRow]:
        """Final rows in the order in which they were decided, cycle by cycle."""
        return self._rows(CandidateRow, cycle)

    def evaluations(self, cycle: int | None = None, dataset: str | None = None) -> list[EvaluationRow]:
        """Measurements in the order in which they were made, data set by data set."""
        rows = self._rows(EvaluationRow, cycle)
        return [row for row in rows if dataset is None or row.dataset == dataset]

    def cycles(self) -> list[CycleRow]:
        """Finished cycles, the first one first."""
        return sorted(self._rows(CycleRow), key=lambda row: row.cycle)

    def nodes(self) -> list[NodeRow]:
        """Nodes in the order in which they were first seen; none in a folder from before they were kept."""
        return self._rows(NodeRow)

    def final_rounds(self) -> list[FinalRoundRow]:
        """Final rounds, the first one first; none where the test split was never looked at."""
        return sorted(self._rows(FinalRoundRow), key=lambda row: row.round)

    def _rows(self, row: type[AnyRow], cycle: int | None = None) -> list[AnyRow]:
        folders = part_folders(self.place, row)
        wanted = [folder for folder in folders if cycle is None or folder.endswith(f"/cycle={cycle:04d}")]
        return [one for folder in wanted for one in read_rows(self.place, folder, row)]

    @property
    def adapters_folder(self) -> str:
        """Where all versions of the run's adapter lie."""
        return self.place.address("adapters")

    def adapter_folder(self, version: int) -> str:
        """Where adapter `version` (1, 2, ...) belongs: a path on a local run, an address in an object store."""
        return self.place.address(f"adapters/{version:04d}")

    # Upkeep

    def compact(self, cycle: int) -> None:
        """Merge the many small files of a finished cycle into one for each table."""
        for _step in self.compaction_steps(cycle):
            pass

    def compaction_steps(self, cycle: int) -> Iterator[str]:
        """`compact`, one file operation at a time; it may be cut off after any of them."""
        with self._mutex:
            self._hold_lock()
        for row in ROWS:
            for folder in part_folders(self.place, row):
                if folder.endswith(f"/cycle={cycle:04d}"):
                    yield from merge_steps(self.place, folder, row)

    def recover(self) -> Recovery:
        """Take the lock and clear away what a dead driver was in the middle of. No row is lost, added or changed."""
        self.lock()
        replaced = [
            name
            for row in ROWS
            for folder in part_folders(self.place, row)
            for name in remove_replaced(self.place, folder)
        ]
        return Recovery(temporary=tuple(self.place.clean()), replaced=tuple(replaced))

    def change_cycles(self, cycles: int) -> None:
        """Make the run `cycles` long. Raises StoreError where it has more than that behind it."""
        folders = part_folders(self.place, CompletionRow)
        begun = max((int(folder_values(folder)["cycle"]) for folder in folders), default=-1) + 1
        if cycles < begun:
            raise StoreError(f"{self.folder} has begun {begun} cycles already, so it cannot end after {cycles}.")
        self.lock()
        self.config = self.config.model_copy(update={"cycles": cycles})
        self._write_config()

    def _write_config(self) -> None:
        text = f"# Written by nas-ray and read by every command; do not change `format`.\nformat: {FORMAT}\n"
        self.place.prepare(CONFIG, pa.py_buffer((text + dump_config(self.config)).encode()))()

    # The lock

    def lock(self) -> None:
        """Become the run's one writer, until `close` or the end of the process. Raises StoreError where another is."""
        with self._mutex:
            self._hold_lock()

    def driver(self) -> Driver | None:
        """The process that holds the lock, or None. Always None on an object store."""
        return self._lock.holder() if self._lock else None

    def close(self) -> None:
        """Give up the lock."""
        with self._mutex:
            if self._lock:
                self._lock.release()

    def _hold_lock(self) -> None:
        if self._lock and self._lock.acquire():
            self._keys.clear()  # another writer may have been here since they were read
            self._next.clear()


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in row.KEY)


def _make_folder(place: LocalPlace) -> None:
    try:
        place.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the run folder {place.uri}: {error.strerror}. Choose another `folder`."
        ) from error


def _parse_config(text: str, uri: str) -> RunConfig:
    """Raises StoreError for a damaged file or another format."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StoreError(f"{uri}/{CONFIG} is damaged: {error}. Restore it from a copy.") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise StoreError(f"{uri}/{CONFIG} does not say its `format`: this is not a run folder of nas-ray.")
    found = values.pop("format")
    if found != FORMAT:
        age = "a newer" if found > FORMAT else "an older"
        raise StoreError(
            f"{uri} was written by {age} nas-ray: format {found}, and this one reads format {FORMAT}. "
            "Use the nas-ray that wrote it; its tables stay readable with any Parquet reader."
        )
    try:
        return parse_config(values, f"{uri}/{CONFIG}")
    except ConfigError as error:
        raise StoreError(f"{error}\nIt was changed since the run began; restore it.") from error
