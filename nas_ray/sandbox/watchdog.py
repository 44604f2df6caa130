"""Watches one child from outside and ends it at the first limit that it reaches.

In: a child's pid, channel and output, its witness and its limits. Out: an `Ending`: the child's last message, or the
outcome that was found from outside. The child is dead when `watch` returns. Nothing here depends on the child's
cooperation: a program that ignores signals, deadlocks, holds the interpreter's lock or floods its channel, its output
or its witness ends like any other.
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
from nas_ray.sandbox.gauges import UNCOUNTED, MemoryGauge, ScratchGauge
from nas_ray.sandbox.messages import (
    PACKET_BYTES,
    Entered,
    Failed,
    MalformedMessage,
    Step,
    Trained,
    decode,
    may_conclude,
    may_follow,
)
from nas_ray.sandbox.output import OutputTail
from nas_ray.sandbox.witness import Finding, Witness

TICK_SECONDS = 0.02  # between two looks at the child's memory
DEATH_SECONDS = 5.0  # from SIGKILL to gone; only a stuck driver takes longer
MESSAGES = 64  # more than any honest child sends
CALLS = 16  # that the witness hears before the other limits get their turn
GO = b"g"  # the child has been measured and may begin
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
    scratch_bytes: int = 512 << 20  # in its working folder
    scratch_files: int = 10_000  # there, folders included
    threads: int = 64


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: with a `message` of its own, or by an `outcome` that was found from outside."""

    message: Build | Trained | Failed | None
    outcome: Outcome | None
    detail: str
    step: Step
    seconds: float
    peak_memory_bytes: int


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
        witness: Witness,
        scratch: ScratchGauge,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self._pid = pid
        self._witness = witness
        self._scratch = scratch
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
                with suppress(OSError):  # it may be dead already
                    self._channel.send(GO)
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
        for handle in (self._channel.fileno(), self._output.handle, process, self._witness.listener):
            if handle >= 0:
                poll.register(handle, select.POLLIN)
        looked = 0.0
        while True:
            now = time.monotonic()
            left = self._limits.seconds - (now - start)
            if left <= 0:
                return Outcome.TIMEOUT, f"{self._limits.seconds:g} s in {self._place}"
            if now - looked >= TICK_SECONDS:
                looked = now
                found = self._look(gauge)
                if found is not None:
                    return found.outcome, found.detail
            events = dict(poll.poll(1000 * min(left, TICK_SECONDS)))
            if self._output.handle in events:
                self._output.read()
                if self._output.ended:
                    poll.unregister(self._output.handle)
            if self._channel.fileno() in events or process in events:
                try:
                    open_still = self._receive()
                except MalformedMessage as error:
                    return Outcome.INVALID_OUTPUT, f"broken protocol: {error}"
                if not open_still:
                    with suppress(KeyError):
                        poll.unregister(self._channel.fileno())
            if events.get(self._witness.listener) == select.POLLHUP:
                poll.unregister(self._witness.listener)  # nobody is behind the filter any more
            found = self._hear()
            if found is None and self._last is not None:
                found = self._look(gauge)  # what it did last counts as well
            if found is not None:
                return found.outcome, found.detail
            if self._last is not None:
                return None, ""
            if process in events:
                return Outcome.CRASHED, ""  # the zygote knows the signal or the exit code

    @property
    def _place(self) -> str:
        return self._step.name.lower()

    def _hear(self) -> Finding | None:
        """What the witness finds in the calls that wait, if anything; not in all of them where there is a flood."""
        for _ in range(CALLS):
            if not self._witness.is_called():
                break
            found = self._witness.hear(accuses=self._step is not Step.START)
            if found is not None:
                return Finding(found.outcome, f"{found.detail} in {self._place}")
        return None

    def _look(self, gauge: MemoryGauge) -> Finding | None:
        """The first limit that the child is over, if any."""
        limits = self._limits
        used = gauge.read()
        if used > limits.memory_bytes:
            words = f"{used / GIB:.2f} GiB > {limits.memory_bytes / GIB:g} GiB in {self._place}"
            return Finding(Outcome.OUT_OF_MEMORY, words)
        if gauge.threads > limits.threads:
            return self._exceeded(f"threads: {gauge.threads} > {limits.threads}")
        if self._output.total > limits.output_bytes:
            return self._exceeded(f"printed: {self._output.total >> 20} MiB > {limits.output_bytes >> 20} MiB")
        if not self._witness.made_files:
            return None
        counted = self._scratch.read(self._witness.removed if self._witness.lost_files else None)
        if counted is None:
            return None
        size, files = counted
        if size > limits.scratch_bytes:
            return self._exceeded(f"scratch: {size >> 20} MiB > {limits.scratch_bytes >> 20} MiB")
        if files >= UNCOUNTED:
            return self._exceeded("scratch: folders that cannot be looked into")
        if files > limits.scratch_files:
            return self._exceeded(f"scratch: more than {limits.scratch_files:,} files")
        return None

    def _exceeded(self, words: str) -> Finding:
        return Finding(Outcome.LIMIT_EXCEEDED, f"{words} in {self._place}")

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
                if not may_follow(message.step, self._step):
                    raise MalformedMessage(f"{message.step.name.lower()} after {self._place}")
                self._step = message.step
                self._on_step(message.step)
            else:
                if not may_conclude(message, self._step):
                    raise MalformedMessage(f"a result in {self._place}")
                self._last = message
        return True
