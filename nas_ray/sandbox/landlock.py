"""The file layer: Landlock, with which a process takes from itself what it may open, and cannot give it back.

In: a `Reach`. Out: a ruleset that a child enforces on itself. Covers opening, making, removing and executing files,
device control (from ABI 5), TCP (from ABI 4), and signals and abstract sockets to the outside (from ABI 6). Does NOT
cover looking (`stat`), changing modes, owners and times, which seccomp refuses, nor files that are open already.
"""

from __future__ import annotations

import os

from landlockpy import AccessFS, LandlockError, Ruleset, Scope, abi_version

from nas_ray.sandbox.reach import Reach

READ = AccessFS.READ_FILE
LIST = AccessFS.READ_DIR
USE = AccessFS.READ_FILE | AccessFS.READ_DIR | AccessFS.WRITE_FILE | AccessFS.IOCTL_DEV
OWN = (
    AccessFS.READ_FILE
    | AccessFS.READ_DIR
    | AccessFS.WRITE_FILE
    | AccessFS.TRUNCATE
    | AccessFS.MAKE_REG
    | AccessFS.MAKE_DIR
    | AccessFS.REMOVE_FILE
    | AccessFS.REMOVE_DIR
    | AccessFS.REFER
)


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 where there is none, or where it is switched off."""
    try:
        return abi_version()
    except (LandlockError, OSError):
        return 0


def create_ruleset(reach: Reach) -> Ruleset:
    """A ruleset that allows `reach` and nothing else. Raises `OSError` where the kernel refuses."""
    ruleset = Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET)
    for path in reach.listable:
        ruleset.allow_path(path, LIST)
    for path in reach.readable:
        ruleset.allow_path(path, READ | LIST if os.path.isdir(path) else READ)
    for path in reach.writable:
        ruleset.allow_path(path, USE if os.path.isdir(path) else USE & ~LIST)
    ruleset.allow_path(reach.scratch, OWN)
    return ruleset


def allow_thread_names(ruleset: Ruleset) -> None:
    """Lets the calling process name its own threads; CUDA does not start otherwise."""
    ruleset.allow_path("/proc/self/task", READ | LIST | AccessFS.WRITE_FILE)
