"""A pool of daemon threads that ends with the call it was made for.

Guarantees:

- A thread is started only when a job finds none idle, so a call of two tasks starts two threads at most.
- Threads are daemons: a task that never ends does not keep the interpreter from exiting. (The threads of
  `concurrent.futures` are joined at exit, which is why it is not used here.)
- After `close` idle threads have ended; after `abandon` each thread ends with the task it is running.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["Future", "ThreadPool"]


class Future:
    """The outcome of one job, once there is one."""

    __slots__ = ("_error", "_is_done", "_outcome", "_was_started")

    def __init__(self) -> None:
        self._was_started = False
        self._is_done = False
        self._outcome: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Tell whether the job has ended."""
        return self._is_done

    def result(self) -> Any:
        """Give what the job returned, or raise what it raised; only once it is done, and once.

        It is not kept: the frames of the worker lead to this object, and an error of a task to these.
        """
        if self._error is not None:
            raise self._error
        outcome, self._outcome = self._outcome, None
        return outcome

    @property
    def is_running(self) -> bool:
        """Whether a thread is busy with the job."""
        return self._was_started and not self._is_done

    def run(self, job: Callable[[], Any]) -> None:
        """Run the job and keep what comes of it."""
        self._was_started = True
        try:
            self._outcome = job()
        except BaseException as error:
            self._error = error
        self._is_done = True


_Item = tuple[Future, Callable[[], Any], Callable[[Future], None]]


class ThreadPool:
    """At most `size` threads that take jobs from one queue.

    `submit` may be called by several threads at a time; `close` and `abandon` by one, when nobody submits any more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._jobs: SimpleQueue[_Item | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # A token for each thread that waits for a job; taking one is atomic, so no lock is needed to count them. A
        # thread may take a job without its token being taken; then there is a token too many and a job waits for a
        # thread that is busy for a moment, instead of a new one.
        self._idle: deque[None] = deque()

    def submit(self, job: Callable[[], Any], callback: Callable[[Future], None]) -> Future:
        """Run a job in one of the threads, then call `callback` there. Does not block."""
        future = Future()
        self._jobs.put((future, job, callback))
        try:
            self._idle.pop()
        except IndexError:
            is_taken = False
        else:
            is_taken = True
        if not is_taken and len(self._threads) < self._size:  # out here: Ctrl-C has nothing to do with that IndexError
            self._start_thread()
        return future

    def _start_thread(self) -> None:
        name = f"parallel-threads-{len(self._threads)}"
        thread = threading.Thread(target=_work, args=(self._jobs, self._idle), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def grow(self) -> None:
        """Add a thread, because one is stuck in a job that nobody waits for any more."""
        self._size += 1
        self._start_thread()

    def close(self) -> None:
        """End all threads and wait for them; jobs that were submitted are run first."""
        self.abandon()
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        """Tell all threads to end after what they are doing, without waiting for them."""
        for _ in self._threads:
            self._jobs.put(None)

    def drop_waiting(self) -> None:
        """Forget the jobs that no thread has taken."""
        while not self._jobs.empty():
            try:
                self._jobs.get_nowait()
            except Exception:  # a thread was faster
                return


def _work(jobs: SimpleQueue[_Item | None], idle: deque[None]) -> None:
    while True:
        item = jobs.get()
        if item is None:
            return
        future, job, callback = item
        future.run(job)
        idle.append(None)
        callback(future)
        del item, future, job, callback  # do not keep the results of the last batch alive while waiting
