"""Memory shared between the supervisor and its children: the data set (read only) and the logits (written once).

In: NumPy arrays. Out: file descriptors of anonymous memory (`memfd`), sealed so that a child can neither change the
data nor resize a buffer under the supervisor's feet, and arrays mapped from them. Validation labels never come here.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ALIGNMENT = 64  # bytes; what vector instructions like


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one array lies in shared memory. JSON-friendly, so that it can travel in a message."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def lay_out(arrays: dict[str, NDArray[Any]]) -> list[Layout]:
    """Where each of `arrays` lies in memory that they share."""
    layouts, offset = [], 0
    for name, array in arrays.items():
        layouts.append(Layout(name, array.dtype.str, array.shape, offset))
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return layouts


def share_arrays(arrays: dict[str, NDArray[Any]]) -> tuple[int, list[Layout]]:
    """Copies `arrays` into sealed, read-only memory. Returns its file descriptor and where each array lies."""
    layouts = lay_out(arrays)
    size = max(1, sum(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays.values()))
    handle = os.memfd_create("nas-ray-data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, size)
    with mmap.mmap(handle, size) as view:
        for layout, array in zip(layouts, arrays.values(), strict=True):
            target = np.frombuffer(view, array.dtype, array.size, layout.offset)
            target[:] = array.reshape(-1)
            del target  # the mapping cannot be closed while an array looks into it
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _FIXED_SIZE | fcntl.F_SEAL_WRITE)
    return handle, layouts


def map_arrays(handle: int, layouts: list[Layout]) -> dict[str, NDArray[Any]]:
    """The arrays of `share_arrays`. What a process writes into them stays its own (copy on write)."""
    size = os.fstat(handle).st_size
    view = mmap.mmap(handle, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    arrays = {}
    for layout in layouts:
        dtype = np.dtype(layout.dtype)
        count = int(np.prod(layout.shape, dtype=np.int64))
        arrays[layout.name] = np.frombuffer(view, dtype, count, layout.offset).reshape(layout.shape)
    return arrays


def create_buffer(size: int) -> int:
    """A zeroed buffer of exactly `size` bytes for ever; returns its file descriptor."""
    handle = os.memfd_create("nas-ray-logits", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, max(size, 1))
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _FIXED_SIZE)
    return handle


def write_logits(handle: int, logits: NDArray[np.float32]) -> None:
    """Writes (N, classes) logits at the start of a buffer of `create_buffer`; `ValueError` if there is no room."""
    data = np.ascontiguousarray(logits, dtype=np.float32)
    size = os.fstat(handle).st_size
    if data.nbytes > size:
        raise ValueError(f"{data.nbytes} bytes of logits for a buffer of {size}")
    os.pwrite(handle, data.tobytes(), 0)


def read_logits(handle: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A copy of the (N, classes) logits in a buffer. Call it once the writer is dead."""
    data = os.pread(handle, shape[0] * shape[1] * 4, 0)
    return np.frombuffer(data, dtype=np.float32).reshape(shape).copy()
