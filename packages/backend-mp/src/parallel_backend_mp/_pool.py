"""A fixed number of worker processes, each behind a socket, and the one thread that reads from them.

Guarantees:

- `submit` does not block on a socket: what a full one does not take is sent by the I/O thread. (It starts a process
  where one has to be replaced.)
- The first processes are started by the constructor, in the thread that calls it and before the I/O thread exists, so
  that "fork" forks no thread of ours.
- Every future that was submitted ends: with an outcome, or with an error when its worker, or the I/O thread, ends.
- After `close` or `kill` no process, thread or descriptor of the pool is left.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import multiprocessing.util
import os
import selectors
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing.context import BaseContext
from time import monotonic

from parallel.backend import BackendError
from parallel_backend_mp._frames import READY, STOP, pack
from parallel_backend_mp._process import Future, Worker
from parallel_backend_mp._worker import WorkerSetup

__all__ = ["WorkerPool"]

#: How long a worker may take to end by itself when it has nothing to do, before it is killed: it runs its own exit
#: handlers.
EXIT_SECONDS = 5.0


#: How long a worker that closed its socket may take to end, before it is killed: a process that ends closes its sockets
#: some microseconds before it is gone, and its exit code is worth waiting for.
LINGER_SECONDS = 0.2


class WorkerPool:
    """Worker processes and their I/O thread.

    `submit` and `kill_worker_of` may be called by several threads; `close` and `kill` by one, when nobody submits.

    Parameters
    ----------
    size
        Number of processes.
    context
        The multiprocessing context that starts them.
    setup
        What each does first.
    """

    def __init__(self, size: int, context: BaseContext, setup: WorkerSetup) -> None:
        self._context = context
        self._setup = setup
        self._workers: list[Worker] = []
        # Guards the sending side of the workers, and their replacement: jobs may be submitted by two calls, and the
        # rest sent by the I/O thread. Never held while a callback runs.
        self._lock = threading.Lock()
        # Guards the end: the exit of the interpreter does not wait for ever for a call that is ending the pool itself.
        self._end_lock = threading.RLock()
        # Workers that the I/O thread is to watch, and lost ones that are to be closed.
        self._new: deque[Worker] = deque()
        self._lost: list[Worker] = []
        self._is_stopping = False
        # What ended the I/O thread, which nothing should.
        self._defect: Exception | None = None
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None
        try:
            for index in range(size):
                self._workers.append(self._start_worker(index))
            self._start_io()
        except BaseException:
            self.kill()
            raise
        _end_at_exit(self)

    # -- the caller's side ---------------------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        """Whether `kill` was called; it may have been interrupted."""
        return self._is_stopping

    @property
    def is_idle(self) -> bool:
        """Whether no worker has anything to do."""
        return not any(worker.futures for worker in self._workers)

    @property
    def is_whole(self) -> bool:
        """Whether all workers are alive and idle, as far as is known."""
        is_served = not self._is_stopping and self._defect is None
        return is_served and self.is_idle and not any(worker.is_lost for worker in self._workers)

    def submit(self, payload: bytes, lane: int, callback: Callable[[Future], None]) -> Future:
        """Send a job to a worker, a new one if that is lost. Blocks only while a process is started.

        Raises
        ------
        BackendError
            If the I/O thread has failed.
        """
        index = lane % len(self._workers)
        future = Future(callback)
        with self._lock:
            if self._defect is not None:
                raise _io_error(self._defect)
            worker = self._workers[index]
            # It may have ended a moment ago, between two calls, say, and the I/O thread has yet to notice.
            if worker.has_ended():
                worker = self._replace(index)
            worker.futures.append(future)
            had_unsent = bool(worker.unsent)
            worker.unsent.extend(pack(payload))
            if not had_unsent and not self._send(worker):
                self._wake()
        return future

    def kill_worker_of(self, future: Future) -> None:
        """End the worker that runs a job, now or once it comes to it; its loss is noticed like any other."""
        with self._lock:
            for worker in self._workers:
                if future in worker.futures:
                    future.is_doomed = True
                    if worker.futures[0] is future:
                        worker.sacrifice()
                    return

    def tidy(self) -> None:
        """Give back what is no longer needed, because nothing may be sent for a while."""
        with self._lock:
            self._close_lost()

    def close(self) -> None:
        """End the workers and wait for them; at once if they have something to do, which nobody wants any more."""
        if self.is_idle and not self._is_stopping:
            with self._lock:
                for worker in self._workers:
                    if not worker.is_lost:
                        worker.unsent.extend(pack(STOP))
                        self._send(worker)
            until = monotonic() + EXIT_SECONDS
            for worker in self._workers:
                worker.join(max(until - monotonic(), 0.0))
        self.kill()

    def kill(self) -> None:
        """End the workers at once, whatever they do, and wait for them."""
        with self._end_lock:
            self._stop_io()
            # Again from the beginning if it is interrupted (a second Ctrl-C): nothing is forgotten before it is done.
            for worker in (*self._workers, *self._lost):
                worker.kill()
            for worker in (*self._workers, *self._lost):
                worker.close()
            self._workers, self._lost = [], []
            _live_pools.discard(self)

    # -- starting ------------------------------------------------------------------------------------------------------

    def _start_worker(self, index: int) -> Worker:
        to_close = [descriptor for worker in (*self._workers, *self._lost) for descriptor in worker.descriptors()]
        if self._selector is not None:
            to_close += [self._wake_reader.fileno(), self._wake_writer.fileno()]
            fileno = getattr(self._selector, "fileno", None)  # epoll and kqueue have a descriptor of their own
            if fileno is not None:
                to_close.append(fileno())
        return Worker(index, self._context, self._setup, to_close, is_replacement=self._thread is not None)

    def _replace(self, index: int) -> Worker:
        """Start a worker in the place of one that is lost; with the lock held."""
        worker = self._start_worker(index)
        self._lost.append(self._workers[index])
        self._workers[index] = worker
        self._close_lost()
        self._new.append(worker)
        self._wake()
        return worker

    def _close_lost(self) -> None:
        """Give back what lost workers hold that have been replaced; with the lock held."""
        lost, self._lost = self._lost, []
        for worker in lost:
            if worker.is_lost:  # so the I/O thread has done with it
                worker.close()
            else:
                self._lost.append(worker)

    def _start_io(self) -> None:
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._new.extend(self._workers)
        self._watch_new(self._selector)
        self._thread = threading.Thread(target=self._run, name="parallel-mp-io", daemon=True)
        self._thread.start()

    def _stop_io(self) -> None:
        self._is_stopping = True
        if self._thread is not None:
            self._wake()
            self._thread.join()
            self._thread = None
        if self._selector is not None:
            self._selector.close()
            self._selector = None
            self._wake_reader.close()
            self._wake_writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake up anyway
            self._wake_writer.send(b"x")

    # -- sending, with the lock held -----------------------------------------------------------------------------------

    def _send(self, worker: Worker) -> bool:
        """Send as much as the socket takes; tell whether that is all. A broken socket is the reader's to notice."""
        while worker.unsent:
            piece = worker.unsent[0]
            try:
                count = worker.sock.send(piece)
            except BlockingIOError:
                return False
            except OSError:
                worker.unsent.clear()
                return True
            if count == len(piece):
                worker.unsent.popleft()
            else:
                worker.unsent[0] = piece[count:]
        return True

    # -- the I/O thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        selector = self._selector
        assert selector is not None
        try:
            self._serve(selector)
        except Exception as error:  # a defect: nobody would ever hear of the jobs again
            with self._lock:
                self._defect = error
                futures = [future for worker in (*self._workers, *self._lost) for future in worker.futures]
                for worker in self._workers:
                    worker.futures.clear()
            for future in futures:
                future.settle(None, _io_error(error))

    def _serve(self, selector: selectors.BaseSelector) -> None:
        while not self._is_stopping:
            for key, events in selector.select():
                worker = key.data
                if worker is None:
                    self._woken(selector)
                elif worker.is_lost:
                    continue
                elif key.fileobj is not worker.sock:
                    self._read(selector, worker, until_end=True)
                else:
                    if events & selectors.EVENT_WRITE:
                        self._flush(selector, worker)
                    if events & selectors.EVENT_READ:
                        self._read(selector, worker)

    def _woken(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass
        self._watch_new(selector)
        for worker in list(self._workers):
            if not worker.is_lost:
                self._flush(selector, worker)

    def _watch_new(self, selector: selectors.BaseSelector) -> None:
        while self._new:
            worker = self._new.popleft()
            selector.register(worker.sock, selectors.EVENT_READ, worker)
            if worker.death is not None:
                selector.register(worker.death, selectors.EVENT_READ, worker)

    def _flush(self, selector: selectors.BaseSelector, worker: Worker) -> None:
        with self._lock:
            if worker in self._new:
                return  # started just now: it is watched, and flushed, at the next wake-up, which is on its way
            is_all = self._send(worker)
        wanted = selectors.EVENT_READ if is_all else selectors.EVENT_READ | selectors.EVENT_WRITE
        selector.modify(worker.sock, wanted, worker)

    def _read(self, selector: selectors.BaseSelector, worker: Worker, until_end: bool = False) -> None:
        """Take what a worker has sent; `until_end` when it has ended, so that nothing it had finished is lost."""
        while True:
            try:
                messages = worker.reader.read()
            except BlockingIOError:
                if until_end:
                    self._lose(selector, worker)
                return
            except (EOFError, OSError):
                self._lose(selector, worker)
                return
            for message in messages:
                if worker.is_ready:
                    with self._lock:
                        future = worker.futures.popleft()
                        if worker.futures and worker.futures[0].is_doomed:
                            worker.sacrifice()
                    future.settle(message)
                elif message == READY:
                    worker.is_ready = True
                else:
                    worker.fail_start(message.decode(errors="replace"))
            if not until_end:
                return

    def _lose(self, selector: selectors.BaseSelector, worker: Worker) -> None:
        selector.unregister(worker.sock)
        if worker.death is not None:
            selector.unregister(worker.death)
        # Its end may be that of the socket only, which a task can close.
        worker.wait(LINGER_SECONDS)
        worker.was_cut_off = worker.death is not None and not worker.has_ended()
        with self._lock:  # a process that is started meanwhile would have multiprocessing reap this one too
            worker.kill()
            worker.process.join()
        with self._lock:
            worker.is_lost = True
            futures, worker.futures = list(worker.futures), deque()
            worker.unsent.clear()
            # It may have answered the job that it was ended for just before the end. Made here, because from now on
            # the worker may be closed.
            # Only the first was run by it; the others waited behind, perhaps for another call, and are none the worse.
            errors = [
                worker.end_error(is_deliberate=(position > 0 or worker.was_killed) and not future.is_doomed)
                for position, future in enumerate(futures)
            ]
        for future, error in zip(futures, errors, strict=True):
            future.settle(None, error)


def _io_error(defect: Exception) -> BackendError:
    error = BackendError(
        f"the thread of the backend 'mp' that reads from its workers has failed ({type(defect).__name__}: {defect}); "
        "this is a defect of parallel-backend-mp",
        backend="mp",
    )
    error.__cause__ = defect
    return error


#: Pools to end when the interpreter exits: multiprocessing's own exit handler would wait for their workers.
_live_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


#: The process in which multiprocessing was told of them.
_told_in: int | None = None


def _end_at_exit(pool: WorkerPool) -> None:
    # Not once and for all at import: in a forked child multiprocessing forgets, or ignores, what its parent has told.
    global _told_in
    _live_pools.add(pool)
    if _told_in != os.getpid():
        _told_in = os.getpid()
        multiprocessing.util.Finalize(None, _kill_live_pools, exitpriority=100)


def _kill_live_pools() -> None:
    for pool in list(_live_pools):
        pool.kill()


def _forget_live_pools() -> None:
    # In a forked child: the workers are the parent's, and multiprocessing would try to join them when the child exits.
    _live_pools.clear()
    multiprocessing.process._children.clear()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_live_pools)
