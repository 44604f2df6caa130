"""The resource layer: what the kernel itself counts for one process.

In: bytes and threads. Out: limits that the process cannot raise again. They are the second line behind the watchdog,
which looks every 20 ms and names what it finds; these hold between two looks. Address space is not limited: a GPU's
driver reserves terabytes of it.
"""

from __future__ import annotations

import resource
import signal

SLACK_BYTES = 512 << 20  # above the memory limit: the watchdog's kill, which names the limit, should come first
SLACK_THREADS = 64
OPEN_FILES = 256


def limit_resources(memory_bytes: int | None, file_bytes: int, threads: int) -> None:
    """Limits the calling process: private memory (None: not), the size of one file, threads of its user id (0: not)."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_MEMLOCK: 64 << 10,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if memory_bytes is not None:
        limits[resource.RLIMIT_DATA] = _data_bytes() + memory_bytes + SLACK_BYTES
    if threads:
        limits[resource.RLIMIT_NPROC] = threads + SLACK_THREADS
    for number, value in limits.items():
        hard = resource.getrlimit(number)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bound, bound))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; a file that grows too long shall be an end


def _data_bytes() -> int:
    """Private writable memory of this process, touched or not: what a fork begins with."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()
