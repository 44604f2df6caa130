"""The supervisor's handle on a zygote: start it, have it fork, have it reap, end it.

In: an opening (JSON and file descriptors) and tasks. Out: pids and wait statuses, or `ZygoteLost`.
"""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nas_ray
from nas_ray.sandbox.frames import Reply, receive_frame, receive_reply, send_frame
from nas_ray.sandbox.namespace import find_wrapper
from nas_ray.sandbox.reach import Reach, find_reach
from nas_ray.sandbox.tiers import Walls
from nas_ray.scratch import make_scratch, remove_scratch
from nas_ray.threads import PASSIVE_THREADS

START_SECONDS = 180.0  # importing torch on a busy machine
ANSWER_SECONDS = 30.0  # a fork or a wait, on a busy machine
ERROR_LINES = 5
# Everything else stays behind: tokens, keys and paths of the worker are none of a candidate's business.
KEPT_ENVIRONMENT = frozenset(
    ["PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LANG", "LC_ALL", "VIRTUAL_ENV"]
)


class ZygoteLost(RuntimeError):
    """The zygote ended, or does not answer; a new one is needed."""


def _environment(scratch: str) -> dict[str, str]:
    """A clean environment in which torch neither spins while it waits nor touches a GPU at import."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return {
        **kept,
        **PASSIVE_THREADS,
        "PYTHONPATH": str(Path(nas_ray.__file__).parent.parent),
        "HOME": scratch,
        "TMPDIR": scratch,
        "USER": "candidate",
        "PYTHONUSERBASE": site.getuserbase(),  # HOME, which it hangs on, is another now
        "PYTHONDONTWRITEBYTECODE": "1",  # beside a library's source would be an act
        "PYTHONHASHSEED": "0",  # a program's sets come in the same order every time
        "PYTHONUNBUFFERED": "1",  # what a killed program printed is not lost in a buffer
        "OMP_NUM_THREADS": "1",  # no pool before the fork, NumPy's included; the child sets its own number
        "OPENBLAS_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }


@dataclass(frozen=True, slots=True)
class Report:
    """What a zygote found out about its node."""

    walls: Walls
    uid: int | None  # that candidates run as, where it is another than this process's
    watched: dict[int, str]  # system calls that wait for the witness: number -> name
    reach: Reach

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Report:
        return cls(
            Walls.from_json(values["walls"]), values["uid"], dict(values["watched"]), Reach.from_json(values["reach"])
        )


class Zygote:
    """A running zygote. Starting is quick; `wait_until_ready` takes as long as importing torch."""

    def __init__(self, opening: dict[str, Any], handles: list[int]) -> None:
        self.report: Report | None = None  # from when it is ready
        self.scratch = make_scratch("sandbox")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the zygote)
        self._outside = tempfile.NamedTemporaryFile()  # noqa: SIM115 (likewise)
        self._process: subprocess.Popen[bytes] | None = None
        self.stream, theirs = socket.socketpair()
        try:
            with theirs:
                wrapper = find_wrapper(find_reach(self.scratch, opening["device"])) if opening["raise_walls"] else []
                self._process = subprocess.Popen(
                    [*wrapper, sys.executable, "-m", "nas_ray.sandbox.zygote", str(theirs.fileno()), self.scratch],
                    env=_environment(self.scratch),
                    cwd=self.scratch,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=self._errors,
                    stderr=self._errors,
                    start_new_session=True,  # an interrupt from the terminal is for the driver alone
                )
            self._send({**opening, "outside": self._outside.name if wrapper else ""}, handles)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Returns once the zygote can fork. Raises `ZygoteLost`, with the end of what it printed."""
        if self.report is None:
            self._receive(Reply.READY, START_SECONDS)
            try:
                self.report = Report.from_json(receive_frame(self.stream)[0])
            except (EOFError, OSError) as error:
                raise ZygoteLost(self._explain(str(error) or "it ended")) from None

    def fork(self, task: dict[str, Any], handles: list[int]) -> int:
        """Forks a child for `task` with `handles` (channel, output, logits). Returns its pid; it stays until `reap`."""
        self._send(task, handles)
        pid = self._receive(Reply.FORKED, ANSWER_SECONDS)
        if pid < 0:
            raise ZygoteLost(f"the evaluator cannot start a process: {os.strerror(-pid)}")
        return pid

    def reap(self, pid: int) -> int:
        """Collects the killed child `pid`, kills what it left behind, and returns its wait status."""
        self._send({"reap": pid}, [])
        return self._receive(Reply.REAPED, ANSWER_SECONDS)

    def close(self) -> None:
        """Ends the zygote and its children. Waits until it is gone."""
        self.stream.close()  # it sees the end of the stream, sweeps and leaves
        if self._process is not None:
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._errors.close()
        self._outside.close()
        remove_scratch(self.scratch)

    def _send(self, content: dict[str, Any], handles: list[int]) -> None:
        try:
            self.stream.settimeout(ANSWER_SECONDS)
            send_frame(self.stream, content, handles)
        except OSError as error:
            raise ZygoteLost(self._explain(str(error))) from error

    def _receive(self, kind: Reply, seconds: float) -> int:
        try:
            self.stream.settimeout(seconds)
            found, number = receive_reply(self.stream)
        except TimeoutError:
            raise ZygoteLost(self._explain(f"no answer within {seconds:.0f} s")) from None
        except (EOFError, OSError) as error:
            raise ZygoteLost(self._explain(str(error) or "it ended")) from None
        if found is not kind:
            reason = f"it answered {found.name.lower()} ({number}) instead of {kind.name.lower()}"
            raise ZygoteLost(self._explain(reason))
        return number

    def _explain(self, reason: str) -> str:
        """`reason` with the end of what the zygote printed."""
        code = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)  # its exit code says more than a broken stream
            code = self._process.returncode
        ended = "" if code is None else f" (exit code {code})"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()[-ERROR_LINES:]
        return f"the evaluator's process failed: {reason}{ended}" + "".join(f"\n  {line}" for line in lines)
