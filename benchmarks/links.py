"""Round trips between two threads or two processes, for `stages`: each a context manager that gives one trip."""

from __future__ import annotations

import atexit
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

from parallel.backend import ParallelBackendBase

__all__ = ["Trip", "backend", "connection", "frames", "inboxes", "open_until_exit", "own_inbox", "sockets"]

Trip = Callable[[], object]

_MESSAGE = bytes(200)

_open = ExitStack()
atexit.register(_open.close)


def open_until_exit(link: AbstractContextManager[Trip]) -> Trip:
    """Open a link for the rest of the run: an idle one disturbs nobody."""
    return _open.enter_context(link)


def _echo_sockets(end: socket.socket) -> None:
    while data := end.recv(1 << 16):
        end.sendall(data)


def _echo_frames(end: socket.socket) -> None:
    from parallel_backend_mp._frames import FrameReader, pack

    reader = FrameReader(end)
    while True:
        for message in reader.read():
            if not message:
                return
            end.sendmsg(pack(bytes(message)))


def _echo_connection(end: Any) -> None:
    while message := end.recv_bytes():
        end.send_bytes(message)


@contextmanager
def _process(target: Callable[[Any], None], theirs: Any, stop: Callable[[], object]) -> Iterator[None]:
    # The other end is an argument, so any start method will do.
    process = multiprocessing.Process(target=target, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield
    finally:
        stop()
        process.join()


@contextmanager
def sockets() -> Iterator[Trip]:
    ours, theirs = socket.socketpair()

    def trip() -> None:
        ours.sendall(_MESSAGE)
        missing = len(_MESSAGE)
        while missing:
            missing -= len(ours.recv(missing))

    # A forked child has our end too, so closing it would not be noticed.
    with ours, _process(_echo_sockets, theirs, lambda: ours.shutdown(socket.SHUT_WR)):
        yield trip


@contextmanager
def frames() -> Iterator[Trip]:
    from parallel_backend_mp._frames import FrameReader, pack

    ours, theirs = socket.socketpair()
    reader = FrameReader(ours)

    def trip() -> None:
        ours.sendmsg(pack(_MESSAGE))
        while not reader.read():
            pass

    with ours, _process(_echo_frames, theirs, lambda: ours.sendmsg(pack(b""))):
        yield trip


@contextmanager
def connection() -> Iterator[Trip]:
    ours, theirs = multiprocessing.Pipe()

    def trip() -> None:
        ours.send_bytes(_MESSAGE)
        ours.recv_bytes()

    with ours, _process(_echo_connection, theirs, lambda: ours.send_bytes(b"")):
        yield trip


@contextmanager
def inboxes() -> Iterator[Trip]:
    there: SimpleQueue[int | None] = SimpleQueue()
    back: SimpleQueue[int | None] = SimpleQueue()

    def echo() -> None:
        while (event := there.get()) is not None:
            back.put(event)

    def trip() -> None:
        there.put(1)
        back.get()

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    try:
        yield trip
    finally:
        there.put(None)
        thread.join()


def own_inbox() -> Trip:
    inbox: SimpleQueue[int] = SimpleQueue()

    def trip() -> None:
        inbox.put(1)
        inbox.get()

    return trip


@contextmanager
def backend(it: ParallelBackendBase, make_job: Callable[[], Any]) -> Iterator[Trip]:
    """Give the trip of one job through a backend: nothing but what `submit` and the workers do."""
    inbox: SimpleQueue[Any] = SimpleQueue()

    def trip() -> object:
        it.submit(make_job(), inbox.put)
        return it.retrieve_result_callback(inbox.get())

    it.configure(2, None)
    it.start_call()
    try:
        yield trip
    finally:
        it.stop_call()
        it.terminate()
