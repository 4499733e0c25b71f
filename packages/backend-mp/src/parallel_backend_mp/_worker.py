"""What a worker process runs: jobs in, outcomes out, until it is told to stop or its caller is gone."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from parallel.backend import end_with_process, run_payload
from parallel_backend_mp._frames import READY, STOP, FrameReader, pack
from parallel_backend_mp._importing import forget_imports

__all__ = ["WorkerSetup", "serve"]


class WorkerSetup(NamedTuple):
    """What a worker is to do when it starts.

    Attributes
    ----------
    caller
        Process id of the caller; when it ends, the worker does.
    environment
        Variables to set, for libraries that are not loaded yet.
    initializer
        The user's function to call first, with its arguments, as a pickle by cloudpickle's rules; or None.
    inherited
        Descriptors of the caller that a fork has copied: the caller's ends of other workers' sockets, and the like.
    is_forked
        Whether the worker began as a copy of the caller.
    """

    caller: int
    environment: dict[str, str]
    initializer: bytes | None = None
    inherited: Sequence[int] = ()
    is_forked: bool = False


def serve(sock: socket.socket, setup: WorkerSetup) -> None:
    """Serve jobs from a socket, this worker's end of it.

    The first message back says that the worker is ready, or with what traceback it is not.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's; it ends the workers
    for descriptor in setup.inherited:
        os.close(descriptor)
    if setup.is_forked:
        forget_imports()
    os.environ.update(setup.environment)
    end_with_process(setup.caller)
    sock.setblocking(True)
    try:
        if setup.initializer is not None:
            function, args = pickle.loads(setup.initializer)  # noqa: S301 - from our own caller
            function(*args)
    except BaseException:
        import traceback  # takes milliseconds, which a worker seldom needs

        _send(sock, traceback.format_exc().encode(errors="replace"))
        return
    if _send(sock, READY):
        _serve_jobs(sock)


def _serve_jobs(sock: socket.socket) -> None:
    reader = FrameReader(sock)
    while True:
        try:
            messages = reader.read()
        except (EOFError, OSError):
            return
        for message in messages:
            if message == STOP:
                return
            if not _send(sock, run_payload(message)):
                return
        del messages  # or the last batch would be kept until the next one comes


def _send(sock: socket.socket, message: bytes) -> bool:
    """Send a message; False if the caller is gone, or a task closed what was not its own."""
    try:
        for piece in pack(message):
            sock.sendall(piece)
    except OSError:
        return False
    return True
