"""The privileges layer: a candidate runs as a user of its own, or at least without capabilities.

In: what the node allows (see `nas_ray.sandbox.probe`). Out: a process that is nobody in particular. Covers what the
file layer does not: permissions of files and processes, the kernel's privileged calls. A user id of its own also keeps
candidates of neighbouring slots apart. It is impossible where the interpreter lies under a folder that only its owner
may enter (a home with mode 0700).
"""

from __future__ import annotations

import os

from nas_ray.sandbox.kernel import PR_SET_DUMPABLE, drop_capabilities, prctl
from nas_ray.sandbox.tiers import Privileges

# Far above the ids of people and services. The second range is for user namespaces that map 65,536 ids.
UID_RANGES = ((0x7000_0000, 1 << 22), (20_000, 40_000))


def slot_uids() -> list[int]:
    """User ids to try for this process's candidates: unique on the node as long as the process lives."""
    return [start + os.getpid() % size for start, size in UID_RANGES]


def drop_privileges(kind: Privileges, uid: int) -> None:
    """Gives up this process's privileges for good. Raises `OSError` where the kernel refuses.

    `uid` counts for the kind "uid" only; it serves as group id too.
    """
    if kind == "uid":
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        prctl(PR_SET_DUMPABLE, 1)  # or the supervisor, where it is not allowed everything, could not look in
    if kind in ("uid", "capabilities"):
        drop_capabilities()
