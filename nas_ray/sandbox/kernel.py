"""The few Linux calls that Python has no name for.

In: numbers of `prctl(2)`. Out: an `OSError` with the kernel's reason where a call fails. Importing this needs no
torch.
"""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """`prctl(option, value, 0, 0, 0)`; raises `OSError` where the kernel refuses."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def die_with_parent(signal_number: int, parent: int) -> None:
    """Has the kernel send `signal_number` to this process when its parent ends; exits at once if it has ended already.

    `parent` is the pid that the parent had before the fork.
    """
    prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Makes this process the new parent of any descendant whose own parent ends."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
