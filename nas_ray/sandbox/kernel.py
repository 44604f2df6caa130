"""The few Linux calls that Python has no name for.

In: numbers as in the manual pages of prctl(2), capset(2), setfsuid(2) and seccomp(2). Out: an `OSError` with the
kernel's reason where a call fails. Importing this needs no torch.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FLAG_NEW_LISTENER = 1 << 3
_SECCOMP_FLAG_WAIT_KILLABLE = 1 << 5  # from Linux 5.19: a notified thread can only be killed, not interrupted

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    """`prctl(option, value, 0, 0, 0)`; raises `OSError` where the kernel refuses."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option}, {value})")


def die_with_parent(signal_number: int, parent: int) -> None:
    """Has the kernel send `signal_number` to this process when its parent ends; exits at once if it has ended already.

    `parent` is the pid that the parent had before the fork. A change of user id undoes this: call it afterwards.
    """
    prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Makes this process the new parent of any descendant whose own parent ends."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def drop_capabilities() -> None:
    """Gives up every capability of the calling thread, for good where nothing is executed afterwards."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def has_capabilities() -> bool:
    """True where the calling thread may do anything that an ordinary user may not."""
    with open("/proc/thread-self/status") as file:
        return any(int(line.split()[1], 16) for line in file if line.startswith(("CapPrm:", "CapEff:")))


@contextmanager
def files_of(uid: int | None) -> Iterator[None]:
    """Lets the calling thread look at files and processes as the user `uid` would; None: as it is."""
    if uid is None:
        yield
        return
    user, group = os.geteuid(), os.getegid()
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(user)
        _libc.setfsgid(group)


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def install_filter(number: int, program: bytes, notify: bool) -> int:
    """Installs a seccomp filter for this thread and all that it starts; there is no way back.

    Args:
        number: of the system call `seccomp` on this machine.
        program: BPF instructions, 8 bytes each.
        notify: make a listener for the calls that the filter wants judged.

    Returns the listener's file descriptor, or -1 without one.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    form = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    flags = _SECCOMP_FLAG_NEW_LISTENER | _SECCOMP_FLAG_WAIT_KILLABLE if notify else 0
    call = (ctypes.c_long(number), ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER))
    result = _libc.syscall(*call, ctypes.c_ulong(flags), ctypes.byref(form))
    if result < 0 and notify:
        result = _libc.syscall(*call, ctypes.c_ulong(_SECCOMP_FLAG_NEW_LISTENER), ctypes.byref(form))
    _check(result, "seccomp")
    return int(result) if notify else -1
