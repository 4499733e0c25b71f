"""How a test and its tasks talk, whatever process of this host the tasks run in: through named pipes and files.

Everything here pickles as its path. The test's side is the object that was made; it is closed at the end of the test.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

__all__ = ["Gate", "Mailbox", "Tally"]

#: How many tasks a gate lets through once it is open; a pipe holds as many bytes on every system.
_PERMITS = 4096


class _Pipe:
    """A named pipe, kept open for reading and writing by the side that made it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        os.mkfifo(self.path)
        self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Take the pipe away."""
        if self._descriptor is not None:
            Path(self.path).unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_descriptor": None}


class Gate(_Pipe):
    """Closed until the test opens it; `wait` blocks meanwhile.

    Parameters
    ----------
    path
        Where to make the named pipe.
    """

    def open(self) -> None:
        """Let everybody through who waits or will wait."""
        if self._descriptor is not None:
            # Written as well as closed: a worker that was forked may hold a copy of the descriptor, and so no reader
            # would see the end.
            os.write(self._descriptor, b"." * _PERMITS)
            super().close()

    def close(self) -> None:
        """Open it: nobody is left waiting at a gate that is gone."""
        self.open()

    def wait(self) -> None:
        """Block until the gate is open. Called by tasks."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:  # open since before
            return
        try:
            while True:
                try:
                    os.read(descriptor, 1)  # one permit, or the end
                    return
                except BlockingIOError:
                    poll = select.poll()
                    poll.register(descriptor, select.POLLIN)
                    poll.poll()
        finally:
            os.close(descriptor)


class Mailbox(_Pipe):
    """Short messages from tasks to the test.

    Parameters
    ----------
    path
        Where to make the named pipe.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._text = b""

    def send(self, text: object) -> None:
        """Send one line. Called by tasks; nobody may be listening any more."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(descriptor, f"{text}\n".encode())  # in one piece: it is short
            finally:
                os.close(descriptor)

    def receive(self, count: int = 1, seconds: float = 30.0) -> list[str]:
        """Block until there are `count` messages, and give them.

        Raises
        ------
        AssertionError
            If they have not come within `seconds`; not a measurement: only what hangs should ever reach it.
        """
        lines = self.receive_up_to(count, seconds)
        if len(lines) < count:
            raise AssertionError(f"{count} messages expected, {len(lines)} came within {seconds:g} s: {lines}")
        return lines

    def receive_up_to(self, count: int, seconds: float = 30.0) -> list[str]:
        """Block until there are `count` messages, or `seconds` are over, and give what has come."""
        assert self._descriptor is not None, "the mailbox is closed"
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        give_up = monotonic() + seconds
        while self._text.count(b"\n") < count and (left := give_up - monotonic()) > 0:
            if poll.poll(left * 1000):
                self._text += os.read(self._descriptor, 65536)
        *lines, rest = self._text.split(b"\n", count)
        self._text = rest
        return [line.decode() for line in lines]


class Tally:
    """Counts what tasks did, in a file.

    Parameters
    ----------
    path
        The file; made with the first count.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)

    def add(self) -> None:
        """Count one. Called by tasks."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)

    def count(self) -> int:
        """Tell how many were counted so far."""
        try:
            return Path(self.path).stat().st_size
        except FileNotFoundError:
            return 0
