"""What supervisor and zygote, who trust each other, say over their stream: JSON one way, numbers the other.

In and out: a `dict` with file descriptors towards the zygote; a kind and a number back, and once a `dict`.
"""

from __future__ import annotations

import json
import socket
import struct
from enum import IntEnum
from typing import Any

HANDLES = 4  # most file descriptors of one frame
_LENGTH = struct.Struct("<Q")
_REPLY = struct.Struct("<Bq")


class Reply(IntEnum):
    """What the zygote's number means."""

    READY = 1  # threads it runs (always 1)
    FORKED = 2  # pid, or -errno
    REAPED = 3  # wait status
    FAILED = 4  # it cannot serve; see its error stream


def send_frame(stream: socket.socket, content: dict[str, Any], handles: list[int]) -> None:
    """Sends `content` and copies of `handles`."""
    data = json.dumps(content).encode()
    socket.send_fds(stream, [_LENGTH.pack(len(data))], handles)
    stream.sendall(data)


def receive_frame(stream: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Waits for a frame. Raises `EOFError` when the other end is gone."""
    header, handles, _, _ = socket.recv_fds(stream, _LENGTH.size, HANDLES)
    if len(header) < _LENGTH.size:
        raise EOFError
    return json.loads(_receive(stream, _LENGTH.unpack(header)[0])), handles


def send_reply(stream: socket.socket, kind: Reply, number: int) -> None:
    stream.sendall(_REPLY.pack(kind, number))


def receive_reply(stream: socket.socket) -> tuple[Reply, int]:
    """Waits for a reply. Raises `EOFError` when the other end is gone, `TimeoutError` after the socket's timeout."""
    kind, number = _REPLY.unpack(_receive(stream, _REPLY.size))
    return Reply(kind), number


def _receive(stream: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
