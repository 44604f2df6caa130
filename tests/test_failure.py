"""An exception has one name wherever it is raised, and no exception, however hostile, breaks the naming."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from nas_ray.build import load_module
from nas_ray.failure import (
    DETAIL_CHARACTERS,
    NAME_CHARACTERS,
    ContractViolation,
    TooLarge,
    class_name,
    describe_error,
    name_failure,
)
from nas_ray.grading import Diverged, InvalidOutput
from nas_ray.outcome import Outcome


def caught(code: str) -> BaseException:
    """What `code` raises when it is loaded as a program."""
    try:
        load_module(code)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "outcome", "detail"),
    [
        (MemoryError(), Outcome.OUT_OF_MEMORY, "MemoryError"),
        (OSError(errno.ENOMEM, "no memory"), Outcome.OUT_OF_MEMORY, "[Errno 12] no memory"),
        (RuntimeError("[enforce fail] can't allocate memory: 9 TB"), Outcome.OUT_OF_MEMORY, "[enforce fail]"),
        (torch.OutOfMemoryError("CUDA out of memory"), Outcome.OUT_OF_MEMORY, "CUDA out of memory"),
        (ContractViolation("no Net"), Outcome.CONTRACT_ERROR, "no Net"),
        (TooLarge("9 > 8"), Outcome.TOO_LARGE, "9 > 8"),
        (Diverged("nan"), Outcome.DIVERGED, "nan"),
        (InvalidOutput("list"), Outcome.INVALID_OUTPUT, "list"),
        (PermissionError(errno.EACCES, "denied", "/root/a"), Outcome.FORBIDDEN, "filesystem (/root/a)"),
        (PermissionError(errno.EPERM, "denied", b"/root/b"), Outcome.FORBIDDEN, "filesystem (/root/b)"),
        (PermissionError(errno.EACCES, "no file"), Outcome.TRAIN_ERROR, "[Errno 13] no file"),
        (FileNotFoundError(errno.ENOENT, "none", "/a"), Outcome.TRAIN_ERROR, "[Errno 2] none: '/a'"),
        (OSError(errno.EFBIG, "too big"), Outcome.LIMIT_EXCEEDED, "scratch: [Errno 27] too big"),
        (OSError(errno.ENOSPC, "full"), Outcome.LIMIT_EXCEEDED, "scratch: [Errno 28] full"),
        (OSError(errno.EDQUOT, "quota"), Outcome.LIMIT_EXCEEDED, "scratch: [Errno 122] quota"),
        (RuntimeError("can't start new thread"), Outcome.LIMIT_EXCEEDED, "threads: can't start new thread"),
        (SystemExit(0), Outcome.TRAIN_ERROR, "0"),
        (KeyError(), Outcome.TRAIN_ERROR, "KeyError"),
    ],
    ids=repr,
)
def test_an_exception_has_its_outcome_and_detail(error: BaseException, outcome: Outcome, detail: str) -> None:
    found, line = name_failure(error, Outcome.TRAIN_ERROR)
    assert found is outcome
    assert line.startswith(detail)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("x = 1\nraise ValueError('first\\nsecond')", "line 2: first"),
        ("def f():\n    g()\ndef g():\n    1 / 0\nf()", "line 4: division by zero"),
        ("import json\njson.loads('[')", "line 2: Expecting value"),
        ("x = (", "line 1: '(' was never closed"),
        ("y = 2\neval('1 +')", "line 2: invalid syntax"),
        ("raise SyntaxError(7)", "line 1: 7"),
    ],
)
def test_a_detail_names_the_programs_own_line(code: str, detail: str) -> None:
    assert describe_error(caught(code)).startswith(detail)


HOSTILE = {
    "raises when printed": "class Bad(Exception):\n    def __str__(self):\n        raise SystemExit(3)\n",
    "recurses when printed": "class Bad(Exception):\n    def __str__(self):\n        return str(self)\n",
    "prints no text": "class Bad(Exception):\n    def __str__(self):\n        return 3\n",
    "prints a text that fights": (
        "class Text(str):\n    def _no(self, *a): raise KeyboardInterrupt\n"
        "    strip = splitlines = __contains__ = __getitem__ = __add__ = __radd__ = __len__ = __str__ = _no\n"
        "class Bad(Exception):\n    def __str__(self): return Text('fight')\n"
    ),
    "has members that fight": (
        "class Bad(PermissionError):\n    @property\n    def errno(self): raise SystemExit\n"
        "    filename = __traceback__ = __class__ = errno\n"
    ),
    "has a class that fights": (
        "class Kind(type):\n    @property\n    def __name__(cls): raise SystemExit\n"
        "    def __instancecheck__(cls, one): raise SystemExit\n"
        "class Bad(Exception, metaclass=Kind): pass\n"
    ),
    "raises a hostile one when printed": ("class Bad(Exception):\n    def __str__(self):\n        raise Bad()\n"),
    "is a broken SyntaxError": (
        "class Bad(SyntaxError):\n    @property\n    def msg(self): raise SystemExit\n    lineno = filename = msg\n"
    ),
}


@pytest.mark.parametrize("top", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_exception_is_named_like_any_other(top: str) -> None:
    error = caught(f"{top}raise Bad()")
    outcome, detail = name_failure(error, Outcome.BUILD_ERROR)
    assert outcome is Outcome.BUILD_ERROR
    assert detail.startswith(f"line {top.count(chr(10)) + 1}: ") or "SyntaxError" in top
    assert class_name(error) == "Bad"


def test_texts_and_names_are_bounded() -> None:
    error = caught("raise type('N' * 100_000, (Exception,), {})('m' * (1 << 24))")
    assert len(describe_error(error)) == DETAIL_CHARACTERS
    assert class_name(error) == "N" * NAME_CHARACTERS
    file = "/" + "f" * 10_000
    assert len(name_failure(PermissionError(errno.EACCES, "no", file), Outcome.TRAIN_ERROR)[1]) < 450


def test_a_deep_recursion_is_told_in_one_line() -> None:
    outcome, detail = name_failure(caught("def f(): f()\nf()"), Outcome.BUILD_ERROR)
    assert (outcome, detail) == (Outcome.BUILD_ERROR, "line 1: maximum recursion depth exceeded")


def test_a_real_permission_error_names_its_file(tmp_path: object) -> None:
    file = f"{tmp_path}/closed"
    os.close(os.open(file, os.O_CREAT, 0o000))
    error = caught(f"import os\nraise PermissionError({errno.EACCES}, os.strerror({errno.EACCES}), {file!r})")
    assert name_failure(error, Outcome.BUILD_ERROR) == (Outcome.FORBIDDEN, f"filesystem ({file})")
