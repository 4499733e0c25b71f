"""The contract of `parallel.backend`, on an executor that the user brings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

from parallel.backend import Job, ParallelBackendBase, WorkerLostError, end_with_process, resolve_n_jobs

__all__ = ["FuturesBackend"]

#: Where executors say how many workers they have: the standard library's and loky's, and mpi4py's.
_WORKER_ATTRIBUTES = ("_max_workers", "num_workers")


def _is_process_pool(executor: Executor) -> bool:
    """Tell whether it is a pool of processes of this host; without importing what made it."""
    for module in ("concurrent.futures.process", "loky.process_executor"):
        kind = getattr(sys.modules.get(module), "ProcessPoolExecutor", None)
        if kind is not None and isinstance(executor, kind):
            return True
    return False


#: In a worker: the processes that it is going to end with.
_watched: set[int] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watched.clear)  # a fork does not copy the thread that watches


class _Watched:
    """A job whose worker ends when the caller is killed; else it would wait for ever for the pool's next task."""

    __slots__ = ("_caller", "_job")

    def __init__(self, job: Callable[[], Any], caller: int) -> None:
        self._job = job
        self._caller = caller

    def __reduce__(self) -> tuple[Any, ...]:
        return _Watched, (self._job, self._caller)

    def __call__(self) -> Any:
        if self._caller not in _watched:
            _watched.add(self._caller)
            end_with_process(self._caller)
        return self._job()


class FuturesBackend(ParallelBackendBase):
    """Runs tasks in an executor of the user's, which is never shut down.

    ::

        with ProcessPoolExecutor() as executor:
            Parallel(backend="futures", executor=executor)(delayed(f)(x) for x in data)

    What is submitted to executors other than `ThreadPoolExecutor` pickles as bytes made by cloudpickle's rules, so
    lambdas and functions of ``__main__`` work there too. The workers of a pool of processes that have run a task end
    with the process that sent it, also when that is killed.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Where tasks run.
    nesting_level, inner_max_num_threads
        See `ParallelBackendBase`.

    Raises
    ------
    TypeError
        If `executor` is none.
    """

    supports_retrieve_callback = True
    owns_workers = False
    #: An executor of one worker may be anywhere; whoever brings one wants tasks to run there.
    runs_in_caller_when_single = False

    def __init__(
        self,
        executor: Executor | None = None,
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if not isinstance(executor, Executor):
            raise TypeError(
                "the backend 'futures' needs an executor: Parallel(backend='futures', executor=ex) or "
                f"parallel_config('futures', executor=ex), with a concurrent.futures.Executor and not {executor!r}"
            )
        self._executor = executor
        in_threads = isinstance(executor, ThreadPoolExecutor)
        self.supports_sharedmem = in_threads
        self.uses_threads = in_threads
        # Only what is known to run on this host may look for the call's board there.
        in_processes = _is_process_pool(executor)
        self.wire = "bytes" if in_processes else "objects"
        self.same_host = self.supports_inner_max_num_threads = in_threads or in_processes
        self.loses_all_workers = in_processes
        self.default_n_jobs = resolve_n_jobs(-1, workers=self._n_workers())

    def _n_workers(self) -> int | None:
        for name in _WORKER_ATTRIBUTES:
            value = getattr(self._executor, name, None)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @property
    def worker_owner(self) -> object:
        """The executor; see `ParallelBackendBase`."""
        return self._executor

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As many as the executor has; fewer if `n_jobs` says so; what `n_jobs` says where the executor does not.

        Inside a task no more than the task's share of the CPUs, unless a positive `n_jobs` says so.
        """
        known = self._n_workers()
        resolved = resolve_n_jobs(-1 if n_jobs is None else n_jobs, workers=known)
        return min(resolved, known or resolved)

    def explain(self, n_jobs: int) -> dict[str, tuple[Any, str]]:
        """See `ParallelBackendBase`."""
        facts: dict[str, tuple[Any, str]] = {"executor": (type(self._executor).__name__, "argument executor")}
        known = self._n_workers()
        if known is not None and self.effective_n_jobs(n_jobs) == known:
            facts["n_jobs"] = known, f"the executor has {known} workers"
        return facts

    def submit(self, func: Job, callback: Callable[[Any], None]) -> Future[Any]:
        """Give a job to the executor; see `ParallelBackendBase`."""
        try:
            future = self._executor.submit(_Watched(func, os.getpid()) if self.wire == "bytes" else func)
        except BrokenExecutor as error:
            raise self._lost(error) from error
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Give the outcome; see `ParallelBackendBase`."""
        try:
            return future.result()
        except BrokenExecutor as error:
            raise self._lost(error) from error

    def cancel(self, future: Future[Any]) -> None:
        """Drop a job that has not started; see `ParallelBackendBase`."""
        future.cancel()

    def _lost(self, error: BrokenExecutor) -> WorkerLostError:
        kind = type(self._executor).__name__
        return WorkerLostError(
            f"the {kind} behind the backend 'futures' is broken and will take no more tasks: {error}; make a new one",
            backend="futures",
        )
