"""Messages on a stream socket: eight bytes of length, then that many bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

__all__ = ["READY", "STOP", "FrameReader", "pack"]

_LENGTH = struct.Struct("<Q")

#: The message that asks a worker to end. No job and no outcome is empty.
STOP = b""

#: The first message of a worker, once it can take jobs. Any other first message is the traceback of why it cannot.
READY = b"ready"

#: How much to ask the kernel for at a time; small messages come with one call, large ones go where they belong at once.
_CHUNK_BYTES = 1 << 16


def pack(content: bytes) -> Sequence[memoryview]:
    """Give the pieces to send for one message; a large content is not copied."""
    header = _LENGTH.pack(len(content))
    if len(content) < _CHUNK_BYTES:
        return [memoryview(header + content)]
    return [memoryview(header), memoryview(content)]


class FrameReader:
    """Takes messages out of a socket, blocking or not."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._chunk = bytearray(_CHUNK_BYTES)
        self._pending = bytearray()
        # A message larger than a chunk is received into its own buffer; how much of it is there.
        self._large: bytearray | None = None
        self._large_filled = 0

    def read(self) -> list[bytearray]:
        """Receive once, and give the messages that are complete with it; none if the message goes on.

        Raises
        ------
        EOFError
            If the other side is gone.
        BlockingIOError
            If nothing is there, on a socket that does not block.
        OSError
            If the connection is broken.
        """
        if self._large is not None:
            count = self._sock.recv_into(memoryview(self._large)[self._large_filled :])
            if count == 0:
                raise EOFError
            self._large_filled += count
            if self._large_filled < len(self._large):
                return []
            message, self._large = self._large, None
            return [message]
        count = self._sock.recv_into(self._chunk)
        if count == 0:
            raise EOFError
        self._pending += memoryview(self._chunk)[:count]
        return self._split()

    def _split(self) -> list[bytearray]:
        messages = []
        pending = self._pending
        at = 0
        while len(pending) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, at)
            begin = at + _LENGTH.size
            if len(pending) - begin >= length:
                messages.append(pending[begin : begin + length])
                at = begin + length
                continue
            if length > _CHUNK_BYTES:
                self._large = bytearray(length)
                self._large_filled = len(pending) - begin
                self._large[: self._large_filled] = memoryview(pending)[begin:]
                at = len(pending)
            break
        del pending[:at]
        return messages
