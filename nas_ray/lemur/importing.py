"""From a LEMUR tree to Parquet tables that a search can be seeded with.

In: a tree and a choice of its programs. Out: the folder that `nas_ray.lemur.imported` describes, and the counts. Files
that are not taken are refused one by one, with the reason; the rest goes in. Files are read on all cores.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nas_ray.lemur.errors import LemurError
from nas_ray.lemur.imported import CARD, FORMAT, MEASUREMENTS, PROGRAMS, REFUSED, SETTINGS, SKETCHES, settings_of
from nas_ray.lemur.reading import ReadProgram, ReadTrials, Row, TrialsFolder, read_program_file, read_trials
from nas_ray.lemur.tree import SPLITTER, Tree, prefix_of
from nas_ray.schema import now
from nas_ray.sketches import Sketcher, Sketches

CHUNK = 16  # files or folders that travel to a process at once
COLLECT_AFTER = 100_000  # new objects between garbage collections: syntax trees are many objects and no garbage

Report = Callable[[str, int, int], None]  # what is read, how many are done, how many there are


@dataclass(frozen=True, slots=True)
class Choice:
    """Which programs of a tree: all, or those with a prefix, or so many of them drawn by a seed."""

    programs: int | None = None
    seed: int = 0
    prefix: str | None = None


@dataclass(slots=True)
class Counts:
    """The accounts of an import. Found = taken + refused, for program files as for trials."""

    program_files: int = 0  # in the tree
    passed_over: int = 0  # not chosen
    programs: int = 0  # taken
    programs_refused: int = 0
    different_programs: int = 0  # by id
    different_networks: int = 0
    in_contract: int = 0
    trial_files: int = 0  # of the chosen programs' folders
    empty_trial_files: int = 0
    trial_files_refused: int = 0
    trials: int = 0  # found
    measurements: int = 0  # taken
    trials_refused: int = 0
    measured_programs: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # "kind: reason" -> how many

    def check(self) -> list[str]:
        """What does not add up, one line each; empty if all does."""
        refused = self.programs_refused + self.trial_files_refused + self.trials_refused
        sums = (
            ("program files", self.program_files, self.programs + self.programs_refused + self.passed_over),
            ("trials", self.trials, self.measurements + self.trials_refused),
            ("refusals", refused, sum(self.reasons.values())),
        )
        return [f"{name}: {found} were found, {told} are accounted for" for name, found, told in sums if found != told]


def import_lemur(
    tree: Tree,
    out: Path,
    choice: Choice,
    sketcher: Sketcher,
    workers: int | None = None,
    progress: Report | None = None,
) -> Counts:
    """Read a tree into the folder `out`; it is finished when its import.json is there.

    Args:
        workers: processes; None: as many as there are cores.

    Raises:
        LemurError: `out` holds something already or cannot be written, no program was taken, or a reading process died.
    """
    report = progress or (lambda phase, done, total: None)
    context = multiprocessing.get_context("spawn")
    try:
        if out.exists() and any(out.iterdir()):
            raise LemurError(f"{out} is not empty; choose another folder by --out, or remove it")
        with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0)), context, _prepare) as pool:
            found, programs = _read_programs(pool, tree, choice, sketcher, report)
            trials = _read_trials(pool, tree, programs, choice, report)
        refused = [one.refused for one in programs if one.refused is not None] + [r for t in trials for r in t.refused]
        counts = _count(found, programs, trials, refused)
        report("tables", 0, 1)
        _write(out, tree, choice, sketcher, programs, trials, refused, counts)
        report("tables", 1, 1)
    except BrokenProcessPool as error:
        raise LemurError("a process that reads files died, probably for want of memory; try again") from error
    except OSError as error:
        raise LemurError(f"{error.filename or out}: {error.strerror or error}") from error
    return counts


def _prepare() -> None:
    """Settle a reading process."""
    gc.set_threshold(COLLECT_AFTER)


def _read_programs(
    pool: ProcessPoolExecutor, tree: Tree, choice: Choice, sketcher: Sketcher, report: Report
) -> tuple[int, list[ReadProgram]]:
    """(program files in the tree, the chosen ones by name); where a number is asked for, it is of those taken."""
    all_files = sorted(path for path in tree.programs.glob("*.py") if not path.name.startswith("__"))
    files = [path for path in all_files if choice.prefix in (None, prefix_of(path.stem))]
    if not files:
        raise LemurError(f"no program of {tree.programs} has the prefix {choice.prefix!r}")
    if choice.programs is not None:
        random.Random(f"lemur {choice.seed}").shuffle(files)
    wanted = min(choice.programs or len(files), len(files))
    shingle_tokens, permutations = sketcher.shingle_tokens, sketcher.permutations
    read_one = partial(read_program_file, root=tree.root, shingle_tokens=shingle_tokens, permutations=permutations)
    read: list[ReadProgram] = []
    taken = 0
    while taken < wanted and len(read) < len(files):
        for one in pool.map(read_one, files[len(read) : len(read) + wanted - taken], chunksize=CHUNK):
            read.append(one)
            taken += one.row is not None
            report("programs", taken, wanted)
        if choice.programs is None:
            break
    if not taken:
        raise LemurError(f"no program of {tree.programs} was taken; the first is refused: {read[0].refused}")
    return len(all_files), sorted(read, key=lambda one: one.path)


def _read_trials(
    pool: ProcessPoolExecutor, tree: Tree, programs: Sequence[ReadProgram], choice: Choice, report: Report
) -> list[ReadTrials]:
    """The trials of the programs that were read, and in a whole import all others, to be refused by name."""
    taken = {one.row["name"] for one in programs if one.row is not None}
    refused = {Path(one.path).stem for one in programs} - taken
    folders: list[TrialsFolder] = []
    for path in sorted(tree.trials.iterdir()) if tree.trials.is_dir() else []:
        parts = path.name.split(SPLITTER)
        if len(parts) != 4 or parts[-1] in taken:
            folders.append(TrialsFolder(path))
        elif parts[-1] in refused:
            folders.append(TrialsFolder(path, "program refused"))
        elif choice == Choice():
            folders.append(TrialsFolder(path, "no such program"))
    chunks = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
    read = []
    for done, one in enumerate(pool.map(partial(read_trials, root=tree.root), chunks), 1):
        read.append(one)
        report("folders of trials", min(done * CHUNK, len(folders)), len(folders))
    return read


def _count(found: int, programs: Sequence[ReadProgram], trials: Sequence[ReadTrials], refused: Sequence[Row]) -> Counts:
    rows = [one.row for one in programs if one.row is not None]
    kinds = Counter(row["kind"] for row in refused)
    measured = {name for one in trials for name in one.table["program"].unique().to_pylist()}
    return Counts(
        program_files=found,
        passed_over=found - len(programs),
        programs=len(rows),
        programs_refused=kinds["program"],
        different_programs=len({row["id"] for row in rows}),
        different_networks=len({row["network_id"] for row in rows}),
        in_contract=sum(row["contract"] for row in rows),
        measured_programs=len(measured),
        trial_files=sum(one.files for one in trials),
        empty_trial_files=sum(one.empty for one in trials),
        trial_files_refused=kinds["file"],
        trials=sum(one.trials for one in trials),
        measurements=sum(one.table.num_rows for one in trials),
        trials_refused=kinds["trial"],
        reasons=dict(Counter(f"{row['kind']}: {row['reason']}" for row in refused).most_common()),
    )


def _write(
    out: Path,
    tree: Tree,
    choice: Choice,
    sketcher: Sketcher,
    programs: Sequence[ReadProgram],
    trials: Sequence[ReadTrials],
    refused: Sequence[Row],
    counts: Counts,
) -> None:
    """The tables first, the card last."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [one.row for one in programs if one.row is not None]
    _write_table(out / "programs.parquet", pa.Table.from_pylist(rows, PROGRAMS))
    _write_table(
        out / "measurements.parquet", pa.concat_tables([MEASUREMENTS.empty_table(), *(t.table for t in trials)])
    )
    _write_table(out / "refused.parquet", pa.Table.from_pylist(refused, REFUSED))
    _write_table(out / "sketches.parquet", _sketches_table(programs, sketcher))
    card = {
        "format": FORMAT,
        "source": tree.root.name,
        "created": now().isoformat(timespec="seconds"),
        "choice": asdict(choice),
        "counts": asdict(counts),
    }
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _write_table(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def _sketches_table(programs: Sequence[ReadProgram], sketcher: Sketcher) -> pa.Table:
    """Each program and network once, in the order of names."""
    parts = {part[0]: part for one in programs for part in one.sketches}
    ids, texts, sketches = zip(*parts.values(), strict=True)
    flat = Sketches.of(ids, sketches, sketcher.permutations)
    signatures = pa.array(flat.signatures.ravel())
    places = pa.array(np.arange(0, len(signatures) + 1, sketcher.permutations, dtype=np.int32))
    columns = [
        pa.array(ids),
        pa.array(texts),
        pa.ListArray.from_arrays(pa.array(flat.starts.astype(np.int32)), pa.array(flat.shingles)),
        pa.ListArray.from_arrays(places, signatures),
    ]
    metadata = {SETTINGS: json.dumps(settings_of(sketcher)).encode()}
    return pa.Table.from_arrays(columns, schema=SKETCHES.with_metadata(metadata))
