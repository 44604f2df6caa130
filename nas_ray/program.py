"""From what a language model answered to a program: its definitions and imports, exactly as written.

In: the text of a completion. Out: a `Program`, or a `Rejection` with outcome `no_code` or `syntax_error`. Never an
exception, whatever the text holds. (A file that somebody wrote is kept as a whole: `read_program`.)

Kept, as slices of the source: classes, functions, imports, and assignments that call nothing to names that a kept
definition reads (`WIDTHS = [16, 32]`, `Norm = nn.BatchNorm2d`: they define a name and do nothing else, and without them
the program would be another one). Everything else at top level is left out and recorded in `Program.dropped`: prose,
training scripts, and the imports that only those use. Nothing is repaired: a class that does not parse, cut off or not,
is a `syntax_error`. The one thing that may be incomplete is what follows a whole `class Net` and is no class: a script
that the token limit cut off.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nas_ray.candidate import Program
from nas_ray.imports import STAR, imported
from nas_ray.normalisation import normalise
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.passage import Passage, choose_passage

MAX_COMPLETION_BYTES = 256 * 1024
MAX_CODE_BYTES = 64 * 1024
MAX_DROPPED = 64  # lines of `Program.dropped`; a last one counts the rest
MAX_LINE = 120  # characters of one line of `dropped` or of a detail

DEFINITION = re.compile(r"(class|def|async\s+def)\s+\w+\s*([(:]|$)|@\w")
IMPORT = re.compile(r"import\s+[\w.]+(\s+as\b|\s*,|\s*;|\s*#|\s*$)|from\s+[\w.]+\s+import\b")
CONTINUED = re.compile(r"\s|#|[)\]}]|$")  # the line belongs to the statement before it
INNER_DEFINITION = re.compile(r"^[ \t]+(async[ \t]+)?(def|class)[ \t]+\w+", re.MULTILINE)
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Piece:
    """One top-level statement, or a run of lines that is none (`node` is None)."""

    source: str
    first_line: int  # in the completion, from 1
    node: ast.stmt | None


def parse_completion(text: str) -> Program | Rejection:
    """Take the program out of a completion; a program's own code gives the same program again."""
    try:
        return _parse(text.replace("\r\n", "\n").replace("\r", "\n"))
    except UNREADABLE as error:
        return Rejection(Outcome.SYNTAX_ERROR, Stage.PARSE, _describe(error), type(error).__name__)


def read_program(text: str) -> Program | Rejection:
    """Take a whole file as a program: nothing is left out, and what is no Python is a `syntax_error`."""
    code = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        _check_size("code", code, MAX_CODE_BYTES)
        if not any(isinstance(node, Definition) for node in _parse_python(code).body):
            return _no_code(code)
        return _make_program(code)
    except UNREADABLE as error:
        return Rejection(Outcome.SYNTAX_ERROR, Stage.PARSE, _describe(error), type(error).__name__)


def _parse(text: str) -> Program | Rejection:
    _check_size("completion", text, MAX_COMPLETION_BYTES)
    passage, others = Passage(text, 1), list[Passage]()
    tree = _read(text)
    if tree is None or not any(isinstance(node, Definition) for node in tree.body):
        passage, others = choose_passage(text)
    pieces = _split_pieces(passage)
    if not any(isinstance(piece.node, Definition) for piece in pieces):
        return _no_code(text)
    kept, script = _choose_pieces(pieces)
    code = _join(kept)
    _check_size("code", code, MAX_CODE_BYTES)
    left_out = [(other.first_line, other.text) for other in others]
    left_out += [(piece.first_line, piece.source) for piece in script]
    return _make_program(code, _describe_dropped(sorted(left_out)))


def _no_code(text: str) -> Rejection:
    return Rejection(Outcome.NO_CODE, Stage.PARSE, f"no class or function in {len(text)} characters of text")


def _make_program(code: str, dropped: tuple[str, ...] = ()) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like are the author's business
        compile(code, "<candidate>", "exec", dont_inherit=True)  # finds what the grammar alone does not
    normalised = normalise(code)
    return Program(id_of(normalised), code, normalised, dropped)


def id_of(normalised: str) -> str:
    """A program's id: the first 16 hex digits of the SHA-256 of its normalised text."""
    return hashlib.sha256(normalised.encode()).hexdigest()[:16]


def _read(text: str) -> ast.Module | None:
    """The tree of a text that is Python as a whole."""
    try:
        return _parse_python(text)
    except UNREADABLE:
        return None


def _parse_python(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _split_pieces(passage: Passage) -> list[Piece]:
    """Every top-level statement and every run of prose, in order.

    Raises:
        SyntaxError: a class, or anything before the end of `class Net` that is code, does not parse.
    """
    try:
        return list(_statements(passage.text, passage.first_line))
    except SyntaxError as error:
        broken = error  # of the whole passage; its parts may be readable
    pieces: list[Piece] = []
    net_is_whole = False
    for first_line, source in _chunks(passage):
        is_class = source.startswith(("class", "@"))
        is_code = bool(DEFINITION.match(source) or IMPORT.match(source))
        try:
            pieces += _statements(source, first_line)
        except SyntaxError as error:
            if is_code and (is_class or not net_is_whole):
                error.lineno = first_line - 1 + (error.lineno or 1)
                raise
            if not is_code and INNER_DEFINITION.search(source):
                raise broken from None  # a definition was broken open by a line that lost its indent
            pieces.append(Piece(source, first_line, None))
        net_is_whole = net_is_whole or any(_defines_net(piece.node) for piece in pieces[-1:])
    return _merge_prose(pieces)


def _chunks(passage: Passage) -> Iterator[tuple[int, str]]:
    """Runs of lines that each start at the margin, with their first line's number; decorators stay in place."""
    chunk: list[str] = []
    start, margin = passage.first_line, ""  # margin: the chunk's last line that starts at the margin
    for number, line in enumerate(passage.text.split("\n"), start=passage.first_line):
        if not CONTINUED.match(line):
            if chunk and not margin.startswith("@"):
                yield start, "\n".join(chunk)
                chunk, start = [], number
            margin = line
        chunk.append(line)
    yield start, "\n".join(chunk)


def _statements(source: str, first_line: int) -> Iterator[Piece]:
    """The statements of a text that parses, as slices of it. Lines are counted as `ast` counts them, by newlines."""
    lines = source.split("\n")
    for node in _parse_python(source).body:
        start, end = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, Definition):
            start = min([start, *(decorator.lineno for decorator in node.decorator_list)])
            text = "\n".join(lines[start - 1 : end])
        else:  # may share its lines with others; columns count UTF-8 bytes
            last = lines[end - 1].encode()[: node.end_col_offset].decode()
            text = "\n".join([*lines[start - 1 : end - 1], last]).encode()[node.col_offset :].decode()
        yield Piece(text, first_line - 1 + start, node)


def _merge_prose(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring runs of lines that are no statements, as one."""
    merged: list[Piece] = []
    for is_prose, group in itertools.groupby(pieces, key=lambda piece: piece.node is None):
        run = list(group)
        merged += [Piece("\n".join(piece.source for piece in run), run[0].first_line, None)] if is_prose else run
    return merged


def _defines_net(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == "Net"


def _choose_pieces(pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces that make the program, and those that are left out, both in order."""
    definitions = [piece for piece in pieces if isinstance(piece.node, Definition)]
    aliases: dict[str, list[Piece]] = {}
    for piece in pieces:
        for name in _assigned_names(piece.node):
            aliases.setdefault(name, []).append(piece)
    read, kept, waiting = set[str](), set[int](), definitions
    while waiting:
        kept.update(id(piece) for piece in waiting)
        new = _names_read(waiting) - read
        read |= new
        waiting = [piece for name in new for piece in aliases.get(name, ()) if id(piece) not in kept]

    imports = [piece for piece in pieces if isinstance(piece.node, ast.Import | ast.ImportFrom)]
    unread = {id(piece) for piece in imports} | kept
    read_by_script = _names_read(piece for piece in pieces if id(piece) not in unread)
    for piece in imports:
        names = _imported_names(piece.node)
        if STAR in names or names & read or not names & read_by_script:
            kept.add(id(piece))
    return [piece for piece in pieces if id(piece) in kept], [piece for piece in pieces if id(piece) not in kept]


def _imported_names(node: ast.stmt | None) -> set[str]:
    return {name for name, _ in imported(node)} if isinstance(node, ast.Import | ast.ImportFrom) else set()


def _assigned_names(node: ast.stmt | None) -> set[str]:
    """Names that a statement sets to an expression without any call; empty for any other statement."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return set()
    if node.value is None or any(isinstance(part, ast.Call | ast.NamedExpr) for part in ast.walk(node.value)):
        return set()
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return names if len(names) == len(targets) else set()


def _names_read(pieces: Iterable[Piece]) -> set[str]:
    """Names that these pieces read; every word of a piece that does not parse."""
    pieces = list(pieces)
    words = {word for piece in pieces if piece.node is None for word in re.findall(r"\w+", piece.source)}
    return words | {
        node.id
        for piece in pieces
        if piece.node is not None
        for node in ast.walk(piece.node)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _join(pieces: list[Piece]) -> str:
    """The pieces as one text: two empty lines around definitions, none between imports."""
    code = ""
    for before, piece in zip([None, *pieces], pieces, strict=False):
        is_definition = isinstance(piece.node, Definition)
        gap = "\n\n" if before is not None and (is_definition or isinstance(before.node, Definition)) else ""
        code += f"{gap}{piece.source}\n"
    return code


def _check_size(what: str, text: str, limit: int) -> None:
    size = len(text.encode())  # a lone surrogate raises UnicodeEncodeError here
    if size > limit:
        raise ValueError(f"the {what} has {size} bytes, more than the limit of {limit}")


def _describe(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        source = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        return _one_line(f"line {error.lineno}: {error.msg}{source}")
    if isinstance(error, RecursionError | MemoryError):
        return "the code is nested more deeply than the parser can read"
    if isinstance(error, UnicodeEncodeError):
        return f"character {error.start} is a lone surrogate, which is no text"
    return _one_line(str(error))


def _describe_dropped(left_out: list[tuple[int, str]]) -> tuple[str, ...]:
    lines: list[str] = []
    for first_line, source in left_out:
        if not source.strip():
            continue
        body = source.strip("\n")
        first_line += len(source) - len(source.lstrip("\n"))
        last_line = first_line + body.count("\n")
        where = f"line {first_line}" if first_line == last_line else f"lines {first_line}-{last_line}"
        lines.append(_one_line(f"{where}: {body.lstrip().split(chr(10))[0]}"))
    if len(lines) > MAX_DROPPED:
        lines = [*lines[:MAX_DROPPED], f"and {len(lines) - MAX_DROPPED} more"]
    return tuple(lines)


def _one_line(text: str) -> str:
    """Printable, on one line, no longer than `MAX_LINE`."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * MAX_LINE])
    line = " ".join(printable.split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…"
