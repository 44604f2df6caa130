"""Watches one child from outside and ends it at the first limit that it reaches.

In: a child's pid, channel and output, and its limits. Out: an `Ending`: the child's last message, or the outcome
that the watchdog found. The child is dead when `watch` returns. Nothing here depends on the child's cooperation: a
program that ignores signals, deadlocks, holds the interpreter's lock or floods its channel ends like any other.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from nas_ray.candidate import Build
from nas_ray.outcome import Outcome
from nas_ray.sandbox.messages import PACKET_BYTES, Entered, Failed, MalformedMessage, Step, Trained, decode
from nas_ray.sandbox.output import OutputTail

TICK_SECONDS = 0.02  # between two looks at the child's memory
DEATH_SECONDS = 5.0  # from SIGKILL to gone; only a stuck driver takes longer
MESSAGES = 64  # more than any honest child sends
GIB = 1 << 30


class Unkillable(RuntimeError):
    """A child that is still there long after SIGKILL."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a child."""

    seconds: float  # wall time
    memory_bytes: int  # anonymous and shared memory, the mapped data set not counted
    data_bytes: int = 0  # of the mapped data set
    output_bytes: int = 256 << 20  # printed


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: with a `message` of its own, or by an `outcome` that was found from outside."""

    message: Build | Trained | Failed | None
    outcome: Outcome | None
    detail: str
    step: Step
    seconds: float
    peak_memory_bytes: int


class MemoryGauge:
    """Reads a process's memory from `/proc`, cheaply (about 50 microseconds)."""

    def __init__(self, pid: int, data_bytes: int) -> None:
        self._handle = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._data_bytes = data_bytes
        self.peak = 0

    def read(self) -> int:
        """Bytes in use now; 0 once the process is dead. `peak` follows, by the kernel's own high-water mark."""
        try:
            text = os.pread(self._handle, 8192, 0)
        except ProcessLookupError:
            return 0
        fields = {}
        for line in text.splitlines():
            name, _, value = line.partition(b":")
            if name in (b"VmHWM", b"RssAnon", b"RssFile", b"RssShmem"):
                fields[name] = int(value.split()[0]) << 10
        if len(fields) < 4:
            return 0
        mapped = min(fields[b"RssShmem"], self._data_bytes)
        used = fields[b"RssAnon"] + fields[b"RssShmem"] - mapped
        self.peak = max(self.peak, used, fields[b"VmHWM"] - fields[b"RssFile"] - mapped)
        return used

    def close(self) -> None:
        os.close(self._handle)


def kill(pid: int, process: int) -> None:
    """SIGKILLs the child and its process group, and waits until it is dead (not yet reaped).

    `process` is its pidfd. The pid cannot belong to anyone else: the zygote has not reaped it.
    """
    with suppress(ProcessLookupError):  # it may have died before it became a group of its own
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    ready, _, _ = select.select([process], [], [], DEATH_SECONDS)
    if not ready:
        raise Unkillable(f"process {pid} did not die within {DEATH_SECONDS:.0f} s of SIGKILL")


class Watchdog:
    """One child's watch. `on_step` is called for every step that the child reports."""

    def __init__(
        self,
        pid: int,
        channel: socket.socket,
        output: OutputTail,
        limits: Limits,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self._pid = pid
        self._channel = channel
        self._output = output
        self._limits = limits
        self._on_step = on_step
        self._step = Step.START
        self._messages = 0
        self._last: Build | Trained | Failed | None = None
        channel.setblocking(False)

    def watch(self) -> Ending:
        """Returns when the child is dead. Raises `Unkillable`, or `ProcessLookupError` if there is no such child."""
        start = time.monotonic()
        process = os.pidfd_open(self._pid)
        try:
            gauge = MemoryGauge(self._pid, self._limits.data_bytes)
            try:
                outcome, detail = self._wait(start, process, gauge)
                gauge.read()
            finally:
                gauge.close()
                kill(self._pid, process)
        finally:
            os.close(process)
        self._output.read()
        last = self._last if outcome is None else None
        return Ending(last, outcome, detail, self._step, time.monotonic() - start, gauge.peak)

    def _wait(self, start: float, process: int, gauge: MemoryGauge) -> tuple[Outcome | None, str]:
        """Waits for the last message, the child's death or a limit: (None, "") or the outcome and its reason."""
        poll = select.poll()
        for handle in (self._channel.fileno(), self._output.handle, process):
            poll.register(handle, select.POLLIN)
        looked = 0.0
        while True:
            now = time.monotonic()
            left = self._limits.seconds - (now - start)
            if left <= 0:
                return Outcome.TIMEOUT, f"{self._step.name.lower()}: not done after {self._limits.seconds:g} s"
            if now - looked >= TICK_SECONDS:
                looked = now
                used = gauge.read()
                if used > self._limits.memory_bytes:
                    limit = self._limits.memory_bytes / GIB
                    return Outcome.OUT_OF_MEMORY, f"{self._step.name.lower()}: {used / GIB:.1f} GiB > {limit:.1f} GiB"
            ready = {handle for handle, _ in poll.poll(1000 * min(left, TICK_SECONDS))}
            if self._output.handle in ready:
                self._output.read()
                if self._output.ended:
                    poll.unregister(self._output.handle)
                if self._output.total > self._limits.output_bytes:
                    printed = f"{self._output.total >> 20} MiB printed"
                    return Outcome.LIMIT_EXCEEDED, f"{printed} > {self._limits.output_bytes >> 20} MiB"
            if self._channel.fileno() in ready or process in ready:
                try:
                    open_still = self._receive()
                except MalformedMessage as error:
                    return Outcome.INVALID_OUTPUT, f"broken protocol: {error}"
                if self._last is not None:
                    return None, ""
                if not open_still:
                    with suppress(KeyError):
                        poll.unregister(self._channel.fileno())
                if process in ready:
                    return Outcome.CRASHED, ""  # the zygote knows the signal or the exit code

    def _receive(self) -> bool:
        """Reads the messages that are there, up to the last one. Returns False once the child has closed its end."""
        while self._last is None:
            try:
                packet = self._channel.recv(PACKET_BYTES)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not packet:
                return False
            self._messages += 1
            if self._messages > MESSAGES:
                raise MalformedMessage(f"more than {MESSAGES} messages")
            message = decode(packet)
            if isinstance(message, Entered):
                self._step = message.step
                self._on_step(message.step)
            else:
                self._last = message
        return True
