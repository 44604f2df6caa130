"""What an exception says about a program: the outcome, and one line for a person.

In: an exception that a program's code raised, in the child process that runs it. Out: an `Outcome` and a detail. The
same exception gets the same name wherever it is raised, at the build or in training.

An exception's class is the program's to write, and so is everything that can be asked of it. Nothing that it raises
while it is looked at comes out of here; one that never answers is ended by the watchdog, like any endless loop.
"""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Any

import torch

from nas_ray.grading import Diverged, InvalidOutput
from nas_ray.outcome import Outcome

FILE = "<candidate>"  # the file name that a program is compiled under
DETAIL_CHARACTERS = 400
NAME_CHARACTERS = 64
NO_ACCESS = (errno.EACCES, errno.EPERM)
NO_SPACE = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)


class ContractViolation(Exception):
    """The program lacks what the engine must call: the outcome `contract_error`."""


class TooLarge(Exception):
    """The network is over the budget: the outcome `too_large`."""


def name_failure(error: BaseException, otherwise: Outcome) -> tuple[Outcome, str]:
    """The outcome of a program that raised `error`, and one line on it; `otherwise` where it says nothing special."""
    detail = describe_error(error)
    kind = type(error)  # `isinstance` would ask the error itself what it is
    if is_out_of_memory(error):
        return Outcome.OUT_OF_MEMORY, detail
    if issubclass(kind, ContractViolation):
        return Outcome.CONTRACT_ERROR, detail
    if issubclass(kind, TooLarge):
        return Outcome.TOO_LARGE, detail
    if issubclass(kind, Diverged):
        return Outcome.DIVERGED, detail
    if issubclass(kind, InvalidOutput):
        return Outcome.INVALID_OUTPUT, detail
    if issubclass(kind, RuntimeError) and "can't start new thread" in _message(error):
        return Outcome.LIMIT_EXCEEDED, f"threads: {detail}"[:DETAIL_CHARACTERS]
    number = _errno(error)
    if number in NO_SPACE:
        return Outcome.LIMIT_EXCEEDED, f"scratch: {detail}"[:DETAIL_CHARACTERS]
    file = _file(error) if number in NO_ACCESS else ""
    if file:
        return Outcome.FORBIDDEN, f"filesystem ({file})"
    return otherwise, detail


def describe_error(error: BaseException) -> str:
    """One line for a person: the program's line that failed and the message's first line, at most 400 characters."""
    line, message = _failing_line(error), _message(error)
    if issubclass(type(error), SyntaxError):
        line, message = _broken_line(error) or line, _text(_member(SyntaxError, "msg", error))
    where = f"line {line}: " if line else ""
    return (where + (_first_line(message) or class_name(error)))[:DETAIL_CHARACTERS]


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, the system's, PyTorch's CPU and PyTorch's CUDA ways of saying that memory ran out."""
    if issubclass(type(error), (MemoryError, torch.OutOfMemoryError)) or _errno(error) == errno.ENOMEM:
        return True
    return issubclass(type(error), RuntimeError) and "can't allocate memory" in _message(error)


def class_name(error: BaseException) -> str:
    """The name of the error's class, at most 64 characters."""
    return _text(type.__dict__["__name__"].__get__(type(error)))[:NAME_CHARACTERS]  # past a metaclass's own `__name__`


def _message(error: BaseException) -> str:
    """What the error says, up to 4,096 characters."""
    try:
        return _text(str(error))
    except BaseException as failure:  # the error's own `__str__` may raise anything, SystemExit included
        return f"(its text could not be read: {class_name(failure)})"


def _text(value: object) -> str:
    """`value` as plain text; a subclass of `str` could answer anything."""
    try:
        return str.__str__(value if isinstance(value, str) else str(value))[:4096]
    except BaseException:
        return ""


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def _failing_line(error: BaseException) -> int:
    """The innermost line of the program in the error's traceback; 0 where there is none."""
    line = 0
    place: TracebackType | None = _member(BaseException, "__traceback__", error)
    while place is not None:
        if _text(place.tb_frame.f_code.co_filename) == FILE:
            line = place.tb_lineno
        place = place.tb_next
    return line


def _broken_line(error: BaseException) -> int:
    """The program's line that does not parse; 0 where what does not parse is not the program's own text."""
    line = _member(SyntaxError, "lineno", error)
    in_program = _text(_member(SyntaxError, "filename", error)) == FILE
    return line if in_program and type(line) is int else 0


def _errno(error: BaseException) -> int:
    """The system's error number; 0 where there is none."""
    number = _member(OSError, "errno", error) if issubclass(type(error), OSError) else None
    return number if type(number) is int else 0


def _file(error: BaseException) -> str:
    """The file that a system error names; empty where it names none."""
    name = _member(OSError, "filename", error)
    if isinstance(name, bytes):
        name = bytes.decode(name, errors="replace")
    return "" if name is None else _first_line(_text(name))[:DETAIL_CHARACTERS]


def _member(owner: type, name: str, error: BaseException) -> Any:
    """`error.NAME` as Python's own exception class stores it, whatever the program's subclass makes of the name."""
    return owner.__dict__[name].__get__(error)
