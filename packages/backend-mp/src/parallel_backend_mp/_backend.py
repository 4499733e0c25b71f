"""The contract of `parallel.backend`, on a `WorkerPool`."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import BaseContext, DefaultContext
from typing import Any

from parallel.backend import Job, ParallelBackendBase, WarmPools, dumps, explain_processes, process_n_jobs
from parallel_backend_mp._pool import WorkerPool
from parallel_backend_mp._process import Future
from parallel_backend_mp._start import default_context, why_default
from parallel_backend_mp._worker import WorkerSetup

__all__ = ["MpBackend"]

#: Pools between calls, for the start methods whose workers do not hold a copy of the caller's state.
_warm: WarmPools[WorkerPool] = WarmPools(WorkerPool.close, lambda pool: pool.is_whole, close_at_exit=False)


class MpBackend(ParallelBackendBase):
    """Runs tasks in worker processes made by multiprocessing.

    With "fork" the workers end with the call or the ``with`` block: a fork is a copy of the caller as it was, and a
    later call would see stale globals. With "spawn" and "forkserver" they stay warm for the next call.

    Parameters
    ----------
    context : multiprocessing context, optional
        Starts the workers.
    start_method : {"fork", "spawn", "forkserver"}, optional
        Instead of a context. Without either: the environment's ``PARALLEL_START_METHOD``, else multiprocessing's
        default.
    initializer, initargs
        A function that each worker calls when it starts, and its arguments. Workers with an initializer are not kept
        warm for other calls.
    nesting_level, inner_max_num_threads
        See `ParallelBackendBase`.

    Raises
    ------
    ValueError
        If both are given, or the platform does not have that start method.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    wire = "bytes"
    same_host = True
    supports_kill = True
    replaces_workers = True

    def __init__(
        self,
        context: BaseContext | None = None,
        start_method: str | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if context is not None and start_method is not None:
            raise ValueError("give either context or start_method, not both")
        given: Any = context
        # joblib's users also pass the module itself, which has the methods of its default context.
        if given is None or given is multiprocessing or isinstance(given, DefaultContext):
            why = "argument" if start_method is not None else why_default()
            context = default_context(start_method)
        elif isinstance(given, BaseContext):
            why, context = "argument context", given
        else:
            raise ValueError(f"context must be a multiprocessing context, not {context!r}; a method is start_method=")
        self._context = context
        self._why_method = why
        self._method = context.get_start_method()
        self._initializer = initializer
        self._initargs = initargs
        self._keeps_warm = self._method != "fork" and initializer is None
        self._key: tuple[Any, ...] = ()
        self._pool: WorkerPool | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts, 1 in a daemonic process; see `parallel.backend.process_n_jobs`."""
        return process_n_jobs(n_jobs, self.default_n_jobs)

    def explain(self, n_jobs: int) -> dict[str, tuple[Any, str]]:
        """See `ParallelBackendBase`."""
        return explain_processes(self._method, self._why_method)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Start the workers, or borrow warm ones. Blocks while processes are started."""
        if options:
            raise TypeError(f"the backend 'mp' knows no option {', '.join(options)}")
        size = self.effective_n_jobs(n_jobs)
        self._key = (size, self._method, tuple(sorted(self._prepare_worker_env(size).items())))
        self._pool = self._get()
        return size

    def _get(self) -> WorkerPool:
        return _warm.lend(self._key, self._make) if self._keeps_warm else self._make()

    def _make(self) -> WorkerPool:
        size, _, environment = self._key
        initializer = dumps((self._initializer, self._initargs)) if self._initializer is not None else None
        setup = WorkerSetup(os.getpid(), dict(environment), initializer)
        return WorkerPool(size, self._context, setup)

    def submit(self, func: Job, callback: Callable[[Any], None]) -> Future:
        """Send a job to the worker it was given to; see `ParallelBackendBase`."""
        pool = self._pool
        if pool is None or pool.is_ending:  # an abort that was to leave a new one ready has been interrupted
            if pool is not None:
                pool.kill()
            pool = self._pool = self._get()
        return pool.submit(func.payload, func.worker, callback)

    def retrieve_result_callback(self, future: Future) -> Any:
        """Give the outcome; see `ParallelBackendBase`."""
        return future.result()

    def kill(self, future: Future) -> None:
        """End the one worker that has the job; see `ParallelBackendBase`."""
        if self._pool is not None:
            self._pool.kill_worker_of(future)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the workers."""
        if self._pool is not None:
            self._pool.kill()
        self._pool = None  # only now: if this was interrupted, the next one finds what is left to end
        if ensure_ready:
            self._pool = self._get()

    def terminate(self) -> None:
        """End the workers, or keep them warm."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if self._keeps_warm and pool.is_whole:
            pool.tidy()
            _warm.give_back(self._key, pool)
        else:
            pool.close()
