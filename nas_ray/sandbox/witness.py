"""The witness: sees the system calls that a child's filter hands over, judges them, and names what is forbidden.

In: the listener of one child's filter, its pid, its reach. Out: answers to the kernel, and a `Finding` for the first
act that the child may not commit, whether or not the program swallows the error. It runs in the supervisor, outside.

It judges, the layers enforce: an answer "go on" for a path still meets the file layer, so that a program which changes
the path under the witness's eyes gains nothing. Process and thread identifiers come in registers and cannot change.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from nas_ray.outcome import Outcome
from nas_ray.sandbox import syscalls as calls
from nas_ray.sandbox.gauges import BLOCK
from nas_ray.sandbox.kernel import files_of
from nas_ray.sandbox.messages import clean_text
from nas_ray.sandbox.reach import Reach

# <linux/seccomp.h>: struct seccomp_notif, struct seccomp_notif_resp, and the two ioctl.
_NOTICE = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_CONTINUE = 1

GIB = 1 << 30
PATH_BYTES = 4096
PATH_SHOWN = 200  # bytes
AT_FDCWD = -100
O_TMPFILE = 0o20000000  # without O_DIRECTORY, which it includes
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What makes a thread like every other: CLONE_VM, _FS, _FILES, _SIGHAND and _THREAD.
THREAD_FLAGS = 0x0001_0F00
# Opening these fails, but accuses nobody: libraries look at them, and they hold nothing.
QUIET = ("/dev/nvidia", "/proc/driver/nvidia")
OWN_NUMBERS = ("cgroup", "io", "limits", "maps", "smaps", "stat", "statm", "status")  # in /proc/self
OWN_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/")

_KINDS = {name: kind for kind, names in calls.ACTS.items() for name in names.split()}
_FAMILIES = {1: "Unix", 2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What ends a child: `forbidden`, with the layer and the act, or a limit that it is over, with the value."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the kernel is to do with a call: let it be made, or return an error or 0 without making it."""

    error: int = 0
    go_on: bool = False


_GO_ON = _Answer(go_on=True)


class Witness:
    """One child's witness.

    Args:
        listener: of the child's filter; owned from here on. -1: there is none, and nothing will be heard.
        watched: number -> name of the calls that the filter hands over.
        uid: that the child runs as, where it is another than the supervisor's.
        threads: that the child may have at once.
        memory_bytes: of shared anonymous memory that it may ask for in all.
    """

    def __init__(
        self,
        listener: int,
        pid: int,
        watched: Mapping[int, str],
        reach: Reach,
        uid: int | None,
        threads: int,
        memory_bytes: int,
    ) -> None:
        self.listener = listener
        self.made_files = listener < 0  # it may have files of its own by now
        self.lost_files = listener < 0  # a file that it has open may have no name any more
        self.removed: dict[int, int] = {}  # inode -> bytes of files that it took a name from
        self._pid = pid
        self._watched = watched
        self._reach = reach
        self._uid = uid
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._shared_bytes = 0
        self._poll = select.poll()
        if listener >= 0:
            self._poll.register(listener, select.POLLIN)
        self._memory = -1  # without it paths cannot be read: the layers refuse, but the act stays unnamed
        with suppress(OSError), files_of(uid):
            self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        for handle in (self.listener, self._memory):
            if handle >= 0:
                os.close(handle)
        self.listener = self._memory = -1

    def is_called(self) -> bool:
        """True where a call waits to be judged; a listener whose child is gone is never called."""
        return any(event & select.POLLIN for _, event in self._poll.poll(0))

    def hear(self, accuses: bool = True) -> Finding | None:
        """Judges the call that waits. Returns what the child is to be killed for, unanswered.

        With `accuses` False, while the child is still the engine's (it may be starting a GPU), an act only fails.
        """
        buffer = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None  # the caller died, or was interrupted
            raise
        token, caller, _, number, _, _, *arguments = _NOTICE.unpack(buffer)
        judged = self._judge(self._watched.get(number, f"system call {number}"), arguments, caller)
        if isinstance(judged, Finding):
            if accuses:
                return judged
            judged = _Answer(errno.EPERM)
        try:
            fcntl.ioctl(self.listener, _SEND, _ANSWER.pack(token, 0, -judged.error, _CONTINUE if judged.go_on else 0))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise
        return None

    def _judge(self, name: str, arguments: list[int], caller: int) -> Finding | _Answer:
        if name in calls.OPENING:
            return self._judge_opening(name, arguments)
        if name in calls.CHANGING:
            return self._judge_changing(name, arguments)
        if name in calls.MARKING:
            path = self._path(arguments, *calls.MARKING[name])
            if path is None or self._may_change(path):
                return _Answer()  # as if it had been done: times and modes of its own files are nobody's concern
            return _forbidden("filesystem", f"{name} {_clean(path)}")
        if name in calls.CLONE:
            if arguments[0] & THREAD_FLAGS != THREAD_FLAGS:
                return _forbidden("process", "fork")
            count = self._count_threads()
            if count < self._threads:
                return _GO_ON
            return Finding(Outcome.LIMIT_EXCEEDED, f"threads: {count + 1} > {self._threads}")
        if name in calls.EXIT:
            return _GO_ON if caller != self._pid else _forbidden("process", "exit of the main thread alone")
        if name in calls.MAPPING:
            self._shared_bytes += arguments[1]
            if self._shared_bytes <= self._memory_bytes:
                return _GO_ON
            asked = f"{self._shared_bytes / GIB:.2f} GiB > {self._memory_bytes / GIB:g} GiB of shared memory asked for"
            return Finding(Outcome.OUT_OF_MEMORY, asked)
        if name in calls.PROCESS_CONTROL:
            return _forbidden("privilege", f"{name} {arguments[0] & 0xFFFFFFFF}")
        if name in calls.SIGNALLING:
            return _GO_ON if self._is_own(name, _signed(arguments[0])) else _forbidden("signal", name)
        if name in calls.LIMITING:
            return _GO_ON if _signed(arguments[0]) == self._pid else _forbidden("process", name)
        if name in calls.FILE_CONTROL or name in calls.DEVICE_CONTROL:
            return _forbidden("signal", f"{name} {arguments[1] & 0xFFFFFFFF:#x}")
        if name == "socket":
            family = arguments[0] & 0xFFFFFFFF
            return _forbidden("network", f"socket, {_FAMILIES.get(family, f'family {family}')}")
        return _forbidden(_KINDS.get(name, "network" if name in calls.CHANNEL_CALLS else "privilege"), name)

    def _judge_opening(self, name: str, arguments: list[int]) -> Finding | _Answer:
        folder, place = calls.OPENING[name]
        flags = WRITES if name == "creat" else arguments[place + 1] & 0xFFFFFFFF
        if flags & O_TMPFILE:
            return _Answer(errno.EOPNOTSUPP)  # a file without a name escapes the count of scratch bytes
        writes = bool(flags & WRITES)
        self.made_files |= writes
        path = self._path(arguments, folder, place)
        if path is None or path.startswith(OWN_STREAMS):
            return _GO_ON
        real = os.path.realpath(path)
        within = self._reach.may_write(real) if writes else self._reach.may_read(real, listing=os.path.isdir(real))
        # Its own numbers and the names of its own threads are no act either, though the file layer may refuse them.
        own = f"/proc/{self._pid}/"
        within = within or (real.startswith(own) and real.removeprefix(own) in OWN_NUMBERS)
        within = within or (real.startswith(f"{own}task/") and real.endswith("/comm")) or real.startswith(QUIET)
        # Looking for a file that is not there is no act: libraries ask for many that few machines have.
        if within or not (os.path.lexists(path) or flags & os.O_CREAT):
            return _GO_ON
        return _forbidden("filesystem", f"{'write' if writes else 'open'} {_clean(path)}")

    def _judge_changing(self, name: str, arguments: list[int]) -> Finding | _Answer:
        self.made_files = self.lost_files = True
        for where in calls.CHANGING[name]:
            path = self._path(arguments, *where)
            if path is None:
                continue
            if not self._may_change(path) and _could_change(name, path):
                return _forbidden("filesystem", f"{name} {_clean(path)}")
            with suppress(OSError, ValueError):
                status = os.lstat(path)
                self.removed[status.st_ino] = status.st_blocks * BLOCK
        return _GO_ON

    def _may_change(self, path: str) -> bool:
        """True for what lies in a folder within reach; a link at the end of `path` is not followed."""
        folder, _, name = path.rstrip("/").rpartition("/")
        return self._reach.may_write(f"{os.path.realpath(folder or '/').rstrip('/')}/{name}")

    def _path(self, arguments: list[int], folder: int | None, place: int | None) -> str | None:
        """The absolute path that a call names, links unresolved; None where it cannot be read."""
        try:
            text = os.fsdecode(self._read_text(arguments[place])) if place is not None else ""
            if text.startswith("/"):
                return self._own_view(text)
            handle = _signed(arguments[folder]) if folder is not None else AT_FDCWD
            base = f"/proc/{self._pid}/cwd" if handle == AT_FDCWD else f"/proc/{self._pid}/fd/{handle}"
            with files_of(self._uid):
                base = os.readlink(base)
        except (OSError, ValueError):
            return None
        return os.path.join(base, text) if text else base

    def _own_view(self, path: str) -> str:
        """`path` as the child sees it: /proc/self is the child's."""
        for name, own in (("/proc/self", ""), ("/proc/thread-self", f"/task/{self._pid}")):
            if path == name or path.startswith(name + "/"):
                return f"/proc/{self._pid}{own}{path.removeprefix(name)}"
        return path

    def _read_text(self, address: int) -> bytes:
        """The C string at `address` of the child's memory. Raises `OSError` or `ValueError`."""
        if self._memory < 0 or address >= 1 << 63:
            raise ValueError("the child's memory cannot be read there")
        text = b""
        while b"\0" not in text and len(text) < PATH_BYTES:
            length = 256 - (address + len(text)) % 256  # never beyond the page that holds the last character
            part = os.pread(self._memory, length, address + len(text))
            if not part:
                raise ValueError("no text there")
            text += part
        return text.partition(b"\0")[0]

    def _count_threads(self) -> int:
        with open(f"/proc/{self._pid}/status", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Threads:"))

    def _is_own(self, name: str, target: int) -> bool:
        """True where a signal goes to the child itself or to one of its threads."""
        if name == "tkill":
            return os.path.exists(f"/proc/{self._pid}/task/{target}")
        return target in (0, self._pid, -self._pid)  # its process group holds nobody else


def _could_change(name: str, path: str) -> bool:
    """True where the call would do something if it were allowed: what makes a name, or takes away one that is there."""
    makes = name.startswith(("mkdir", "rename", "link"))
    return os.path.lexists(os.path.dirname(path.rstrip("/"))) if makes else os.path.lexists(path)


def _clean(path: str) -> str:
    """`path` for a person: one line, of printable characters, not long."""
    return " ".join(clean_text(os.fsencode(path)[:PATH_SHOWN].decode(errors="replace")).split())


def _forbidden(kind: str, act: str) -> Finding:
    return Finding(Outcome.FORBIDDEN, f"{kind} ({act})")


def _signed(register: int) -> int:
    """A C int out of a register."""
    return (register & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
