"""One writer at a time for a run folder on a disk.

In: the folder. Out: a lock that the kernel takes back when its process ends, however it ends, and the name of who holds
it. Between machines it is as good as the shared file system's `flock`: good on Linux's NFS, absent on some others.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from nas_ray.schema import now
from nas_ray.store.place import StoreError

ATTEMPTS = 20  # at 0.05 s: `nas-ray status` holds the lock for a moment when it looks whether a driver is alive


@dataclass(frozen=True, slots=True)
class Driver:
    """The process that writes a run at this moment."""

    pid: int
    host: str
    since: str  # ISO time, UTC


class RunLock:
    """The lock of one run folder: the file `.lock` in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".lock"
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take it; False where this object holds it already. Raises StoreError where another process does."""
        if self._file is not None:
            return False
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write to {self._folder}: {error.strerror}. Check the folder and its permissions."
            ) from error
        for _ in range(ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        else:
            holder = _read_driver(file)
            os.close(file)
            raise StoreError(
                f"{self._folder} is being written by process {holder.pid} on {holder.host} since {holder.since}. "
                "Wait for it, or end it and try again."
            )
        self._file = file
        try:
            os.ftruncate(file, 0)
            name = [os.getpid(), socket.gethostname(), now().isoformat(timespec="seconds")]
            os.pwrite(file, json.dumps(name).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds without a name on it, and the next append says what is wrong
        return True

    def release(self) -> None:
        """Give it back; nothing happens where it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def holder(self) -> Driver | None:
        """Who holds it, this process included; None where nobody does."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _read_driver(file)
        finally:
            os.close(file)


def _read_driver(file: int) -> Driver:
    try:
        pid, host, since = json.loads(os.pread(file, 4096, 0))
        return Driver(int(pid), str(host), str(since))
    except (ValueError, TypeError):
        return Driver(0, "an unknown machine", "an unknown time")
