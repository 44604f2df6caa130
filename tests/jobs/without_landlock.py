"""Runs a Python command on a machine that is really weaker:  python without_landlock.py -m jobs.cli search ...

In: arguments for Python. Out: this process becomes that command, for which, and for all that it starts, the kernel has
no Landlock and mounts nothing, as in many containers, so that bubblewrap fails: a seccomp filter answers the system
calls landlock_create_ruleset with ENOSYS and mount with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

LANDLOCK_CREATE_RULESET = 444  # on every architecture
MOUNT = {"x86_64": 165, "aarch64": 40}[platform.machine()]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


class Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction)))


def take_walls() -> None:
    """From this process and everything that it starts."""
    instructions = (Instruction * 6)(
        Instruction(LOAD, 0, 0, 0),  # the number of the system call
        Instruction(JUMP_IF_EQUAL, 0, 1, LANDLOCK_CREATE_RULESET),
        Instruction(RETURN, 0, 0, ERRNO | errno.ENOSYS),
        Instruction(JUMP_IF_EQUAL, 0, 1, MOUNT),
        Instruction(RETURN, 0, 0, ERRNO | errno.EPERM),
        Instruction(RETURN, 0, 0, ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = Filter(len(instructions), instructions)
    unused = ctypes.c_ulong(0)
    steps = (
        (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), unused),
        (PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program)),
    )
    for option, value, pointer in steps:
        if libc.prctl(option, value, pointer, unused, unused) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    take_walls()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
