"""Deltas: a program written as an edit of another one, applied strictly.

In: the text of an answer and the parent program that it edits. Out: a `Delta` (the child's code, and the edit alone),
or a `Rejection` with outcome `patch_failed`. Never an exception, whatever the text holds. The other way round,
`write_delta` says how one program becomes another.

Two formats, `DeltaConfig.format`. Search and replace, any number of blocks:

    <<<<<<< SEARCH
    whole lines of the parent
    =======
    the lines in their place
    >>>>>>> REPLACE

and unified diff, whose hunks begin with `@@` (the line numbers after it, which models count badly, are not read).

Strictly means: what a block searches for must stand in the parent, as whole lines, once and only once, and no two
blocks may touch the same line. Nothing is searched for approximately. Only white space at the end of a line does not
count. Every block refers to the parent as the model saw it, not to what the blocks before it made of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from nas_ray.outcome import Outcome, Rejection, Stage

SEARCH, DIVIDER, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
HUNK = "@@"
FENCE = "```"
FILE_HEADERS = ("--- ", "+++ ", "diff ", "index ")
# How a prompt says each word of `DeltaConfig.wanted`.
WANTED = {
    "accuracy": "higher accuracy",
    "smaller": "fewer parameters",
    "larger": "more parameters",
    "different": "another idea",
}
MAX_SHOWN = 60  # characters of a line that a message quotes

Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """One block: these lines of the parent become those."""

    search: Lines
    replace: Lines


@dataclass(frozen=True, slots=True)
class Delta:
    """An edit that fits its parent."""

    code: str  # the child
    patch: str  # the answer's blocks alone, written the one way in which `write_delta` writes them


class PatchError(ValueError):
    """An answer that holds no edit, or one that does not fit."""


def apply_delta(answer: str, parent: str, form: str) -> Delta | Rejection:
    """Make the child of `parent` that `answer` describes; `form` is "search_replace" or "unified_diff"."""
    try:
        edits = _read_edits(answer.replace("\r\n", "\n").replace("\r", "\n"), form)
        return Delta(_apply(edits, parent), _write(edits, form))
    except PatchError as error:
        return Rejection(Outcome.PATCH_FAILED, Stage.PARSE, str(error))


def write_delta(parent: str, child: str, form: str) -> str:
    """The edit that makes `child` of `parent`, with no more context than finds each place; "" where they are equal.

    Raises ValueError for a parent without a line, in which there is no place.
    """
    if not parent.strip():
        raise ValueError("an empty program cannot be edited")
    before, after = parent.rstrip("\n").split("\n"), child.rstrip("\n").split("\n")
    opcodes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changes = [Change(*numbers) for tag, *numbers in opcodes if tag != "equal"]
    while True:  # context may make two changes one
        wide = [change.widened(before) for change in changes]
        overlap = next((place for place, (one, two) in enumerate(pairwise(wide)) if one.high > two.low), None)
        if overlap is None:
            break
        one, two = changes[overlap : overlap + 2]
        changes[overlap : overlap + 2] = [Change(one.low, two.high, one.new_low, two.new_high)]
    edits = [Edit(tuple(before[one.low : one.high]), tuple(after[one.new_low : one.new_high])) for one in wide]
    return _write(edits, form)


class Change(NamedTuple):
    """Lines low .. high - 1 of the parent become lines new_low .. new_high - 1 of the child."""

    low: int
    high: int
    new_low: int
    new_high: int

    def widened(self, before: Sequence[str]) -> Change:
        """With lines around it, so many that what is searched for stands in the parent once."""
        low, high = self.low, self.high
        while low == high or not before[high - 1] or len(_find(before[low:high], before)) != 1:
            at_the_end = high > low and not before[high - 1]  # of a hunk, an empty line would not count
            low, high = (low - 1, high) if low and not at_the_end else (low, high + 1)
        return Change(low, high, self.new_low - (self.low - low), self.new_high + (high - self.high))


def _find(wanted: Sequence[str], lines: Sequence[str]) -> list[int]:
    """Where `wanted` begins in `lines`."""
    count = len(wanted)
    return [start for start in range(len(lines) - count + 1) if lines[start : start + count] == wanted]


def _apply(edits: Sequence[Edit], parent: str) -> str:
    """The child. Raises PatchError where an edit does not fit."""
    child = parent.rstrip("\n").split("\n")
    lines = [line.rstrip() for line in child]
    places: list[tuple[int, Edit]] = []
    for number, edit in enumerate(edits, start=1):
        name = f"block {number} of {len(edits)}"
        if not any(edit.search):
            raise PatchError(f"{name} searches for nothing; it must quote lines of the program")
        found = _find(list(edit.search), lines)
        if len(found) != 1:
            problem = "does not stand in the program" if not found else f"stands in the program {len(found)} times"
            raise PatchError(f"{name} searches for what {problem}: {_quote(edit.search)}")
        places.append((found[0], edit))
    places.sort(key=lambda place: place[0])
    for (one, edit), (two, _) in pairwise(places):
        if one + len(edit.search) > two:
            raise PatchError(f"two blocks change the same line: {_quote((lines[two],))}")
    for start, edit in reversed(places):
        child[start : start + len(edit.search)] = edit.replace
    return "\n".join(child) + "\n"


def _quote(lines: Lines) -> str:
    first = next(line for line in lines if line).strip()
    shown = first if len(first) <= MAX_SHOWN else f"{first[:MAX_SHOWN]}…"
    return f"{shown!r}" + (f" and {len(lines) - 1} more lines" if len(lines) > 1 else "")


def _read_edits(text: str, form: str) -> list[Edit]:
    """The blocks of an answer. Raises PatchError where there is none, or one is not finished."""
    lines = [line.rstrip() for line in text.split("\n")]
    edits = list(_read_blocks(lines) if form == "search_replace" else _read_hunks(lines))
    if not edits:
        wanted = f"{SEARCH} block" if form == "search_replace" else f"{HUNK} hunk"
        raise PatchError(f"no {wanted} in {len(text)} characters of text")
    return edits


def _read_blocks(lines: Sequence[str]) -> Iterator[Edit]:
    """Search-and-replace blocks; what stands between them is prose."""
    parts: list[list[str]] = []  # of the block that is open: what it searches for, and what comes in its place
    for line in lines:
        if line == SEARCH:
            if parts:
                raise PatchError(f"a block begins inside another: {DIVIDER} or {REPLACE} is missing")
            parts = [[]]
        elif line == DIVIDER and len(parts) == 1:
            parts.append([])
        elif line == REPLACE and len(parts) == 2:
            yield Edit(tuple(parts[0]), tuple(parts[1]))
            parts = []
        elif parts:
            parts[-1].append(line)
    if parts:
        raise PatchError(f"the last block does not end: {DIVIDER if len(parts) == 1 else REPLACE} is missing")


def _read_hunks(lines: Sequence[str]) -> Iterator[Edit]:
    """Hunks of a unified diff; before the first one, between file headers and after a fence is prose."""
    hunk: list[str] | None = None
    for line in [*lines, FENCE]:
        if line.startswith((HUNK, FENCE, *FILE_HEADERS)):
            if hunk:
                yield _edit_of(hunk)
            hunk = [] if line.startswith(HUNK) else None
        elif hunk is not None:
            hunk.append(line)


def _edit_of(hunk: Sequence[str]) -> Edit:
    """A hunk's lines as an edit; an empty line is an empty line of context, but not at the hunk's end."""
    while hunk and not hunk[-1]:
        hunk = hunk[:-1]
    strange = next((line for line in hunk if line and line[0] not in " +-"), None)
    if strange is not None:
        raise PatchError(f"a line of a hunk begins with none of ' ', '+' and '-': {_quote((strange,))}")
    search = tuple(line[1:] for line in hunk if not line.startswith("+"))
    replace = tuple(line[1:] for line in hunk if not line.startswith("-"))
    return Edit(search, replace)


def _write(edits: Iterable[Edit], form: str) -> str:
    lines: list[str] = []
    for edit in edits:
        if form == "search_replace":
            lines += [SEARCH, *edit.search, DIVIDER, *edit.replace, REPLACE]
        else:
            lines += [HUNK, *_hunk_of(edit)]
    return "".join(f"{line}\n" for line in lines)


def _hunk_of(edit: Edit) -> Iterator[str]:
    for tag, low, high, new_low, new_high in difflib.SequenceMatcher(
        None, edit.search, edit.replace, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            yield from (f" {line}".rstrip() for line in edit.search[low:high])
        else:
            yield from (f"-{line}" for line in edit.search[low:high])
            yield from (f"+{line}" for line in edit.replace[new_low:new_high])
