"""What is taken from a child before it meets candidate code.

In: a memory limit and the file descriptors to keep. Out: a process that is its own group, dies with its parent,
dumps no core, cannot allocate far past its limit, and holds nothing but the descriptors it needs.

Covers: stray processes of the child's group, runaway allocation between two looks of the watchdog, core dumps, the
parent's sockets. Does NOT cover: files, the network, signals to processes of the same user, the GPU's memory.
Further layers (Landlock, seccomp, dropped privileges) belong at the end of `confine`, in this order, and nowhere
else.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Collection
from contextlib import suppress

from nas_ray.sandbox.kernel import die_with_parent

SLACK_BYTES = 512 << 20  # above the memory limit: the watchdog's kill, which names the limit, should come first


def confine(parent: int, memory_bytes: int, keep: Collection[int], device: str) -> None:
    """Confines the calling process, which must be a fresh fork of `parent`; there is no way back."""
    os.setsid()
    die_with_parent(signal.SIGKILL, parent)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with suppress(OSError):  # the descriptor of the listing itself is gone by now
                os.close(int(name))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine runs out of memory, the child goes first
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if device == "cpu":  # a GPU's driver reserves far more than it uses
        limit = memory_bytes + SLACK_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
