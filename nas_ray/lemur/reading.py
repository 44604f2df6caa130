"""One program file, or one folder of trials, of LEMUR: what is in it, or why it is not taken.

In: paths. Out: rows for the tables of `nas_ray.lemur.imported`, plain values that travel between processes. Nothing
here raises for what a file holds, and no code of a program runs.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa

from nas_ray.contract import check_contract
from nas_ray.lemur.imported import MEASUREMENTS
from nas_ray.lemur.network import network_part
from nas_ray.lemur.tree import SPLITTER, prefix_of
from nas_ray.normalisation import normalise
from nas_ray.outcome import Rejection
from nas_ray.program import id_of, read_program
from nas_ray.sketches import Sketch, Sketcher

OUTSIDE = ("accuracy", "duration", "transform", "uid")  # of a trial; all else are hyperparameters
LARGEST = 2**63 - 1  # whole number that a table holds

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadProgram:
    """A program file: its row of `PROGRAMS` and its sketches with their normalised texts, or its row of `REFUSED`."""

    path: str  # below the tree's root
    row: Row | None
    refused: Row | None = None
    sketches: tuple[tuple[str, str, Sketch], ...] = ()  # (id, normalised text, sketch)


@dataclass(frozen=True, slots=True)
class TrialsFolder:
    """A folder of trials, and the reason for which none of them is taken, if there is one."""

    path: Path
    refused: str | None = None


@dataclass(slots=True)
class ReadTrials:
    """What some folders of trials hold: the table `MEASUREMENTS`, rows of `REFUSED`, and counts."""

    table: pa.Table = field(default_factory=MEASUREMENTS.empty_table)
    refused: list[Row] = field(default_factory=list)
    files: int = 0
    empty: int = 0  # files with a list of no trial
    trials: int = 0


def read_program_file(path: Path, root: Path, shingle_tokens: int, permutations: int) -> ReadProgram:
    """Read one program file below `root`."""
    shown = str(path.relative_to(root))
    if not _is_text(path.name):
        return ReadProgram(shown, None, refuse("program", shown, "file name", "the name is not UTF-8"))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return ReadProgram(shown, None, refuse("program", shown, "cannot be read", error.strerror or str(error)))
    except UnicodeDecodeError as error:
        return ReadProgram(shown, None, refuse("program", shown, "not UTF-8", f"byte {error.start}: {error.reason}"))
    program = read_program(text)
    if isinstance(program, Rejection):
        return ReadProgram(shown, None, refuse("program", shown, _reason(program), program.detail))
    code = network_part(program.code)
    normalised = normalise(code) if code != program.code else program.normalised
    network_id = id_of(normalised)
    broken = check_contract(program)
    row = {
        "name": path.stem,
        "prefix": prefix_of(path.stem),
        "id": program.id,
        "network_id": network_id,
        "code": program.code,
        "network": code,
        "contract": broken is None,
        "contract_error": broken.detail if broken is not None else "",
    }
    sketcher = _sketcher(shingle_tokens, permutations)
    texts = {program.id: program.normalised, network_id: normalised}
    return ReadProgram(shown, row, None, tuple((one, text, sketcher.sketch(text)) for one, text in texts.items()))


def read_trials(folders: Sequence[TrialsFolder], root: Path) -> ReadTrials:
    """Read all files of some folders of trials below `root`."""
    read = ReadTrials()
    rows: list[Row] = []
    for folder in folders:
        parts = folder.path.name.split(SPLITTER)
        try:
            files = sorted(folder.path.iterdir())
        except OSError as error:
            read.files += 1
            shown, why = str(folder.path.relative_to(root)), error.strerror or str(error)
            read.refused.append(refuse("file", shown, "no folder of trials", why))
            continue
        for file in files:
            read.files += 1
            shown = str(file.relative_to(root))
            trials = _read_list(file, parts)
            if isinstance(trials, tuple):
                read.refused.append(refuse("file", shown, *trials))
                continue
            read.empty += not trials
            read.trials += len(trials)
            for place, trial in enumerate(trials):
                wrong = _mistake(trial) if folder.refused is None else (folder.refused, parts[-1])
                if wrong is not None:
                    read.refused.append(refuse("trial", shown, *wrong, place=place))
                else:
                    rows.append(_row(trial, parts, int(file.stem)))
    read.table = pa.Table.from_pylist(rows, MEASUREMENTS)
    return read


def _read_list(file: Path, parts: list[str]) -> list[Any] | tuple[str, str]:
    """The trials of a file, or (reason, detail) why there are none to read."""
    if len(parts) != 4 or not all(parts) or not _is_text(file.parent.name):
        return "folder name", f"{file.parent.name} is not TASK{SPLITTER}DATASET{SPLITTER}METRIC{SPLITTER}NAME"
    if not (file.suffix == ".json" and file.stem.isascii() and file.stem.isdigit()):
        return "file name", f"{file.name} is not EPOCH.json"
    if int(file.stem) > LARGEST:
        return "file name", f"{file.name}: an epoch is at most {LARGEST}"
    try:
        trials = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return "not JSON", f"{type(error).__name__}: {error}"
    return trials if isinstance(trials, list) else ("not a list", f"it holds a {type(trials).__name__}")


def _mistake(trial: Any) -> tuple[str, str] | None:
    """(reason, detail) why a trial is not taken; None for a good one."""
    if not isinstance(trial, dict):
        return "not an object", f"it is a {type(trial).__name__}"
    accuracy, transform, duration, uid = (trial.get(name) for name in ("accuracy", "transform", "duration", "uid"))
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        return "accuracy", f"accuracy is {reprlib.repr(accuracy)}; a number between 0 and 1 is needed"
    if not transform or not _is_text(transform):
        return "transform", f"transform is {reprlib.repr(transform)}; a name is needed"
    whole = isinstance(duration, int) and not isinstance(duration, bool)
    if duration is not None and not (whole and 0 <= duration <= LARGEST):
        return "duration", f"duration is {reprlib.repr(duration)}; whole nanoseconds are needed"
    if uid is not None and not (_is_text(uid) or _is_number(uid)):
        return "uid", f"uid is {reprlib.repr(uid)}; a name is needed"
    given = {name: value for name, value in trial.items() if name not in OUTSIDE}
    if not all(isinstance(value, bool) or _is_text(value) or _is_number(value) for value in given.values()):
        return "hyperparameters", "a hyperparameter is neither a finite number nor a string"
    if not all(map(_is_text, given)):
        return "hyperparameters", "the name of a hyperparameter is not UTF-8"
    return None


def _is_number(value: Any) -> TypeGuard[int | float]:
    """True for what a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _is_text(value: Any) -> TypeGuard[str]:
    """True for a string that UTF-8 can write: JSON may hold half a surrogate pair, and the name of a file any bytes."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(trial: Row, parts: list[str], epoch: int) -> Row:
    task, dataset, metric, name = parts
    hyperparameters = {key: value for key, value in trial.items() if key not in OUTSIDE}
    uid = trial.get("uid")
    return {
        "program": name,
        "task": task,
        "dataset": dataset,
        "metric": metric,
        "epoch": epoch,
        "accuracy": float(trial["accuracy"]),
        "duration_ns": trial.get("duration"),
        "transform": trial["transform"],
        "hyperparameters": json.dumps(hyperparameters, sort_keys=True),
        "uid": str(uid) if uid is not None else None,
    }


def _reason(rejection: Rejection) -> str:
    if rejection.error_type == "ValueError" and "limit" in rejection.detail:
        return "too large"
    return "no class or function" if rejection.outcome == "no_code" else "syntax error"


def refuse(kind: str, path: str, reason: str, detail: str, place: int | None = None) -> Row:
    """A row of `REFUSED`. What UTF-8 cannot write of a path or a detail stands there as `\\udcff`."""
    path, detail = (text.encode(errors="backslashreplace").decode() for text in (path, detail))
    return {"kind": kind, "path": path, "place": place, "reason": reason, "detail": detail}


@lru_cache(maxsize=1)
def _sketcher(shingle_tokens: int, permutations: int) -> Sketcher:
    return Sketcher(shingle_tokens, permutations)
