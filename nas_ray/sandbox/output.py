"""What a child prints, kept within bounds.

In: the read end of a pipe. Out: the last 64 KiB as clean text, and how many bytes came in all.
"""

from __future__ import annotations

import os

from nas_ray.sandbox.messages import clean_text

KEPT_BYTES = 64 << 10
READ_BYTES = 64 << 10


class OutputTail:
    """The end of a stream that is read without ever waiting for it. Owns `handle`, the read end of a pipe."""

    def __init__(self, handle: int) -> None:
        os.set_blocking(handle, False)
        self.handle = handle
        self.total = 0  # bytes read so far
        self.ended = False
        self._tail = bytearray()

    def read(self, rounds: int = 16) -> None:
        """Takes what is there now, at most `rounds` x 64 KiB, so that a flood cannot hold up the caller."""
        for _ in range(rounds):
            try:
                data = os.read(self.handle, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
                return
            self.total += len(data)
            self._tail += data
            del self._tail[:-KEPT_BYTES]

    def text(self) -> str:
        """The end of what was printed, control characters removed."""
        return clean_text(self._tail.decode(errors="replace"))

    def close(self) -> None:
        os.close(self.handle)
