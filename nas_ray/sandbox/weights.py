"""A trained network's weights on their way out of a child: safetensors in shared memory, behind the logits.

In: the state of a network, written by a child that may be dishonest. Out: a file that safetensors, which runs nothing
that it reads, has parsed. Layout from `offset` on: the length in bytes (8 bytes, little endian), then a safetensors
file.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import safetensors

if TYPE_CHECKING:
    from torch import nn

_LENGTH = struct.Struct("<Q")


class InvalidWeights(ValueError):
    """What a child left is no safetensors file, or one that is too large for its room."""


def write_weights(handle: int, offset: int, net: nn.Module) -> None:
    """Write the whole state of `net`. Raises ValueError where it does not fit or holds something other than tensors."""
    import safetensors.torch  # here, in the child: the supervisor, which reads, does without torch
    from torch import Tensor

    state = net.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"the network's state holds something other than tensors: {', '.join(strange)}")
    # Copies, because the format has no word for two names of one tensor.
    data = safetensors.torch.save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
    room = os.fstat(handle).st_size - offset - _LENGTH.size
    if len(data) > room:
        raise ValueError(f"the network's state takes {len(data):,} bytes; there is room for {room:,}")
    os.pwrite(handle, _LENGTH.pack(len(data)), offset)
    view = memoryview(data)
    written = 0
    while written < len(data):  # one call writes 2 GiB at most
        written += os.pwrite(handle, view[written:], offset + _LENGTH.size + written)


def read_weights(handle: int, offset: int) -> bytes:
    """The safetensors file that `write_weights` left, once the writer is dead; raises `InvalidWeights`."""
    room = os.fstat(handle).st_size - offset - _LENGTH.size
    (length,) = _LENGTH.unpack(os.pread(handle, _LENGTH.size, offset))
    if not 0 < length <= room:
        raise InvalidWeights(f"a file of {length:,} bytes in a room of {room:,}")
    data = b""
    while len(data) < length and (piece := os.pread(handle, length - len(data), offset + _LENGTH.size + len(data))):
        data += piece
    try:
        safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidWeights(f"not a safetensors file: {error}") from error
    return data
