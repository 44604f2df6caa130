"""Gauges: what a child uses of memory, threads and scratch space, read from outside.

In: a pid, a folder. Out: numbers. Nothing here trusts the child; a process that is gone reads as 0.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress

from nas_ray.sandbox.kernel import files_of

BLOCK = 512  # bytes; the unit of st_blocks
UNCOUNTED = 1 << 40  # files in a folder that cannot be listed: over any limit
_FIELDS = (b"VmHWM", b"VmPTE", b"VmSwap", b"RssAnon", b"RssFile", b"RssShmem", b"Threads")


class MemoryGauge:
    """Reads a process's memory and threads from `/proc`, cheaply (about 50 microseconds).

    Memory is anonymous, shared and swapped-out memory and page tables, beyond what the process had when the gauge was
    made (a fork begins with the pages of its parent) and beyond the mapped data set.
    """

    def __init__(self, pid: int, data_bytes: int) -> None:
        self._handle = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._data_bytes = data_bytes
        self._baseline = 0
        self.peak = 0
        self.threads = 0
        self._baseline = self.read()
        self.peak = 0

    def read(self) -> int:
        """Bytes in use now; 0 once the process is dead. `peak` follows, by the kernel's own high-water mark."""
        try:
            text = os.pread(self._handle, 8192, 0)
        except ProcessLookupError:
            return 0
        fields = {}
        for line in text.splitlines():
            name, _, value = line.partition(b":")
            if name in _FIELDS:
                fields[name] = int(value.split()[0])
        if len(fields) < len(_FIELDS):
            return 0  # it is dying: its memory is gone, its number is not
        self.threads = fields[b"Threads"]
        shared = fields[b"RssShmem"] << 10
        mapped = min(shared, self._data_bytes)
        used = (fields[b"RssAnon"] + fields[b"VmSwap"] + fields[b"VmPTE"] << 10) + shared - mapped - self._baseline
        high = (fields[b"VmHWM"] - fields[b"RssFile"] << 10) - mapped - self._baseline
        self.peak = max(self.peak, used, high)
        return max(used, 0)

    def close(self) -> None:
        os.close(self._handle)


class ScratchGauge:
    """Counts the files and bytes of a folder, and the bytes of files that a process holds without a name.

    Args:
        uid: of the process, where it is another than this one's.
        most_files: counting may stop when there are more.
    """

    def __init__(self, folder: str, pid: int, uid: int | None, most_files: int = UNCOUNTED) -> None:
        self._folder = folder
        self._pid = pid
        self._uid = uid
        self._most_files = most_files
        self._device = os.stat(folder).st_dev
        self._next = 0.0

    def read(self, removed: Mapping[int, int] | None) -> tuple[int, int] | None:
        """(bytes, files); None where it is too early to look again: looking takes a third of the time at most.

        With `removed` (inode -> bytes, as far as known), files that the process removed but has open or mapped count.
        """
        begun = time.monotonic()
        if begun < self._next:
            return None
        size, files = self._walk()
        if removed is not None:
            size += self._open_nameless() + self._mapped_nameless(removed)
        ended = time.monotonic()
        self._next = ended + 2 * (ended - begun)
        return size, files

    def _walk(self) -> tuple[int, int]:
        size, files, waiting = 0, 0, [self._folder]
        opened: set[str] = set()  # that were made so that nobody could look into them
        while waiting and files <= self._most_files:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        files += 1
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # gone again
                        size += status.st_blocks * BLOCK
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(entry.path)
            except FileNotFoundError:
                continue
            except PermissionError:
                with suppress(OSError):
                    os.chmod(folder, 0o700)
                files += UNCOUNTED if folder in opened else 0
                waiting += [] if folder in opened else [folder]
                opened.add(folder)
            except OSError:  # folders in folders without end
                files += UNCOUNTED
        return size, files

    def _open_nameless(self) -> int:
        """Bytes of files of the scratch folder's file system that the process has open and that have no name."""
        size, folder = 0, f"/proc/{self._pid}/fd"
        with suppress(OSError), files_of(self._uid):
            for name in os.listdir(folder):
                with suppress(OSError):
                    status = os.stat(f"{folder}/{name}")
                    if not status.st_nlink and stat.S_ISREG(status.st_mode) and status.st_dev == self._device:
                        size += status.st_blocks * BLOCK
        return size

    def _mapped_nameless(self, removed: Mapping[int, int]) -> int:
        """Bytes of files of the scratch folder that have no name but are mapped: as known, or as much as is mapped."""
        sizes: dict[int, int] = {}
        with suppress(OSError), files_of(self._uid), open(f"/proc/{self._pid}/maps", "rb") as file:
            prefix = os.fsencode(self._folder) + b"/"
            for line in file:
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[5].startswith(prefix) and fields[5].rstrip().endswith(b"(deleted)"):
                    start, _, end = fields[0].partition(b"-")
                    inode = int(fields[4])
                    sizes[inode] = sizes.get(inode, 0) + int(end, 16) - int(start, 16)
        return sum(max(size, removed.get(inode, 0)) for inode, size in sizes.items())
