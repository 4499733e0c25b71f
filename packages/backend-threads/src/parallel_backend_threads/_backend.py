"""The contract of `parallel.backend`, on a `ThreadPool`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel.backend import Job, ParallelBackendBase, resolve_n_jobs
from parallel_backend_threads._pool import Future, ThreadPool

__all__ = ["ThreadsBackend"]


class ThreadsBackend(ParallelBackendBase):
    """Runs tasks in threads of this process.

    Good for tasks that wait, or that release the interpreter's lock (numpy, compression, I/O). Tasks see the caller's
    own objects. The threads end with the call or the ``with`` block; a task that never ends cannot be killed, but its
    thread does not keep the interpreter from exiting.

    Parameters
    ----------
    nesting_level, inner_max_num_threads
        See `ParallelBackendBase`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = True
    uses_threads = True
    same_host = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._pool: ThreadPool | None = None
        self._size = 0

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts; see `parallel.backend.resolve_n_jobs`."""
        return resolve_n_jobs(n_jobs, self.default_n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Make the pool; its threads start with the jobs."""
        if options:
            raise TypeError(f"the backend 'threads' knows no option {', '.join(options)}")
        self._size = self.effective_n_jobs(n_jobs)
        self._pool = ThreadPool(self._size)
        return self._size

    def submit(self, func: Job, callback: Callable[[Any], None]) -> Future:
        """Queue a job; see `ParallelBackendBase`."""
        assert self._pool is not None, "submit before configure"
        return self._pool.submit(func, callback)

    def retrieve_result_callback(self, future: Future) -> Any:
        """Give the outcome; see `ParallelBackendBase`."""
        return future.result()

    def replace(self, future: Future) -> bool:
        """Start another thread in the place of the one that is stuck; see `ParallelBackendBase`."""
        if self._pool is None:
            return False
        if future.is_running:  # else it has no thread, and will end at once when it gets one: it was cancelled
            self._pool.grow()
        return True

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Forget what waits and leave the threads that are busy to themselves."""
        if self._pool is not None:
            self._pool.drop_waiting()
            self._pool.abandon()
            self._pool = ThreadPool(self._size) if ensure_ready else None

    def terminate(self) -> None:
        """End the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
