"""Ends executors, and all of them when the interpreter exits, also those whose workers are inside a task."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import multiprocessing.util
import os
import threading
import weakref
from time import monotonic

from loky.process_executor import ProcessPoolExecutor

from parallel.backend import kill_process_tree

__all__ = ["ExitHook", "kill_executor"]

#: How long the exit of the interpreter waits for workers that have nothing to do, and for the threads that feed them.
GRACE_SECONDS = 1.0

#: Held while an end of a pipe is closed.
_closing = threading.Lock()


def kill_executor(executor: ProcessPoolExecutor) -> None:
    """End the workers of an executor at once, and wait for them and for the threads that served them."""
    queue, threads = executor._call_queue, _threads_of(executor)
    executor.shutdown(wait=True, kill_workers=True)
    # The thread that feeds the workers may be in the middle of writing to a pipe that is full. With the last end to
    # read from closed that fails, which it takes for its end; else it would stay for ever.
    if queue is not None:
        with _closing, contextlib.suppress(OSError):  # another thread may be doing the same, or loky's own
            if not queue._reader.closed:
                queue._reader.close()
    _join(threads, monotonic() + GRACE_SECONDS)


def _threads_of(executor: ProcessPoolExecutor) -> list[threading.Thread]:
    """Give the threads of an executor, for `_join` after its end.

    loky waits for one of them, sometimes. They have the last references to some of its semaphores, which are given back
    in two steps, and they are daemons, the one that manages the workers if the thread was that started it: if the
    process ends between the two steps, a semaphore is reported as leaked.
    """
    queue = executor._call_queue
    threads = [executor._executor_manager_thread, queue._thread if queue is not None else None]
    return [thread for thread in threads if thread is not None]


def _join(threads: list[threading.Thread], until: float) -> None:
    for thread in threads:
        thread.join(max(until - monotonic(), 0.0))


class ExitHook:
    """Closes executors before loky's own exit handler, which waits for their tasks.

    A half consumed generator may be at work when the program ends, with tasks that last for hours.
    """

    def __init__(self) -> None:
        #: Whether the interpreter is exiting: nothing must be submitted any more.
        self.has_come = False
        self._is_registered = False
        # The process in which multiprocessing was told too.
        self._told_in: int | None = None
        self._executors: weakref.WeakSet[ProcessPoolExecutor] = weakref.WeakSet()

    def add(self, executor: ProcessPoolExecutor) -> None:
        """See to an executor that has got a job; called after its `submit`."""
        self._executors.add(executor)
        if not self._is_registered:
            # These handlers run before those of atexit, and the last one first; loky adds its own with the first job.
            # The function is private to Python, and what concurrent.futures and loky use.
            threading._register_atexit(self._come)  # type: ignore[attr-defined]
            self._is_registered = True
        if self._told_in != os.getpid():
            # A child that multiprocessing has forked waits for its children before it runs any of those handlers. It
            # forgets what its parent has told, so this is once for each process.
            multiprocessing.util.Finalize(None, self._come, exitpriority=100)
            self._told_in = os.getpid()

    def forget(self) -> None:
        """Leave all executors alone, in a forked child: they are the parent's, and so is who may hold the lock."""
        global _closing
        _closing = threading.Lock()
        self._executors.clear()

    def _come(self) -> None:
        self.has_come = True
        idle = []
        for executor in list(self._executors):
            if executor._pending_work_items:
                kill_executor(executor)
            else:
                idle.append(executor)
        _end_gently(idle)


def _end_gently(executors: list[ProcessPoolExecutor]) -> None:
    """Let workers that have nothing to do end by themselves, so that they end what they have started.

    Those that do not come to it, because a task has left a thread that goes on, are killed.
    """
    workers = [process for executor in executors for process in list((executor._processes or {}).values())]
    sentinels = {process.sentinel: process for process in workers}
    threads = [thread for executor in executors for thread in _threads_of(executor)]
    for executor in executors:
        executor.shutdown(wait=False)
    until = monotonic() + GRACE_SECONDS
    while sentinels and monotonic() < until:
        for ended in multiprocessing.connection.wait(list(sentinels), until - monotonic()):
            del sentinels[ended]
    for process in sentinels.values():
        kill_process_tree(process.pid)
    _join(threads, until)
