"""The system call layer: a seccomp filter, compiled once in the zygote and installed by each child on itself.

In: the tables of `nas_ray.sandbox.syscalls`. Out: BPF instructions, and the numbers of the calls that the filter hands
to the witness. Covers sockets, processes, signals to others, privileges, shared memory that no limit counts, and calls
of a foreign architecture, which are death. Does NOT cover what allowed calls can do to a kernel with a hole in it.

libseccomp knows the numbers and compiles a search tree; its import runs `ldconfig`, so it is imported when the filter
is compiled and nowhere else.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nas_ray.sandbox import syscalls as calls
from nas_ray.sandbox.kernel import install_filter

CLONE_THREAD = 0x0001_0000
MAP_SHARED_ANONYMOUS = 0x21


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter."""

    call: int  # number of the system call `seccomp` here
    program: bytes
    watched: dict[int, str]  # number -> name of the calls that wait for the witness; none in a filter without one

    def install(self) -> int:
        """Puts the calling thread behind the filter; returns the witness's listener, or -1 without a witness."""
        return install_filter(self.call, self.program, bool(self.watched))


class NoSeccomp(RuntimeError):
    """This machine has no libseccomp, or one that cannot do what is needed; says which."""


def compile_filter(channel: int, witness: bool, gpu: bool = False) -> Filter:
    """Compiles the filter.

    Args:
        channel: the child's descriptor of its channel to the supervisor, the one socket that it may use.
        witness: hand forbidden calls to a listener; without, they fail with EPERM and nobody learns of it.
        gpu: allow a GPU driver's device control, and let sockets and shared memory, which it tries, fail quietly.

    Raises `NoSeccomp`.
    """
    try:
        import pyseccomp as library
    except (ImportError, RuntimeError, OSError) as error:
        raise NoSeccomp(f"pyseccomp or libseccomp (Debian: libseccomp2) is not there: {error}") from error
    try:
        return _compile(library, channel, witness, gpu)
    except OSError as error:  # libseccomp asks the kernel what it can
        raise NoSeccomp(f"the kernel cannot do what the filter needs: {error}") from error


def _compile(library: Any, channel: int, witness: bool, gpu: bool) -> Filter:
    refused = library.ERRNO(errno.EPERM)
    forbidden = library.NOTIFY if witness else refused
    rules = library.SyscallFilter(library.ERRNO(errno.ENOSYS))
    rules.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    rules.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a search tree instead of a list
    watched: dict[int, str] = {}

    def add(action: int, names: Iterable[str], *conditions: Any) -> None:
        for name in names:
            number = library.resolve_syscall(library.Arch.NATIVE, name)
            if number < 0:
                continue  # not on this architecture
            rules.add_rule(action, number, *conditions)
            if action == library.NOTIFY:
                watched[number] = name

    def add_values(action: int, names: Iterable[str], argument: int, values: Iterable[int]) -> None:
        for value in values:
            add(action, names, library.Arg(argument, library.EQ, value))

    add(library.ALLOW, calls.ALLOWED)
    add(library.ERRNO(errno.EOPNOTSUPP), calls.UNSUPPORTED)
    for kind, names in calls.ACTS.items():
        add(refused if gpu and kind in ("network", "memory") else forbidden, names.split())
    add(forbidden, calls.MARKING)
    add_values(library.ALLOW, calls.CHANNEL_CALLS, 0, [channel])
    add(forbidden, calls.CHANNEL_CALLS, library.Arg(0, library.NE, channel))
    add_values(library.ALLOW, calls.LIMITING, 0, [0])
    add(forbidden, calls.LIMITING, library.Arg(0, library.NE, 0))
    add_values(library.ALLOW, ["sched_setaffinity"], 0, [0])
    add_values(library.ALLOW, ["close_range"], 2, calls.CLOSE_FLAGS)
    for flags in (0, 0x01, 0x20):  # private, or of a file
        add(library.ALLOW, calls.MAPPING, library.Arg(3, library.MASKED_EQ, MAP_SHARED_ANONYMOUS, flags))
    shared = library.Arg(3, library.MASKED_EQ, MAP_SHARED_ANONYMOUS, MAP_SHARED_ANONYMOUS)
    add(library.NOTIFY if witness else library.ALLOW, calls.MAPPING, shared)
    add_values(forbidden, calls.PROCESS_CONTROL, 0, calls.UNDOING_CONTROLS)
    add_values(library.ALLOW, calls.PROCESS_CONTROL, 0, calls.PROCESS_CONTROLS)
    add_values(library.ALLOW, calls.FILE_CONTROL, 1, calls.FILE_CONTROLS)
    add_values(forbidden, calls.FILE_CONTROL, 1, calls.SIGNAL_CONTROLS)
    add_values(library.ALLOW, calls.DEVICE_CONTROL, 1, calls.DEVICE_CONTROLS)
    add_values(forbidden, calls.DEVICE_CONTROL, 1, calls.SIGNAL_DEVICE_CONTROLS)
    for mask, value in calls.GPU_CONTROLS if gpu else ():
        add(library.ALLOW, calls.DEVICE_CONTROL, library.Arg(1, library.MASKED_EQ, mask, value))
    if witness:
        add(library.NOTIFY, [*calls.OPENING, *calls.CHANGING, *calls.SIGNALLING, *calls.CLONE, *calls.EXIT])
    else:
        add(library.ALLOW, [*calls.OPENING, *calls.CHANGING, *calls.EXIT])
        add(refused, calls.SIGNALLING)
        add(library.ALLOW, calls.CLONE, library.Arg(0, library.MASKED_EQ, CLONE_THREAD, CLONE_THREAD))
        add(refused, calls.CLONE, library.Arg(0, library.MASKED_EQ, CLONE_THREAD, 0))
    return Filter(library.resolve_syscall(library.Arch.NATIVE, "seccomp"), _export(rules), watched)


def _export(rules: Any) -> bytes:
    """The BPF instructions of libseccomp's rules."""
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
