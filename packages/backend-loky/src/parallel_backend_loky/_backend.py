"""The contract of `parallel.backend`, on executors of the loky distribution."""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.process
import os
import pickle
import re
import select
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any

from loky import process_executor
from loky.backend import get_context
from loky.process_executor import ProcessPoolExecutor, ShutdownExecutorError

from parallel.backend import (
    BackendError,
    Job,
    ParallelBackendBase,
    WarmPools,
    WorkerLostError,
    dumps,
    end_with_process,
    explain_processes,
    process_n_jobs,
)
from parallel_backend_loky._exit import ExitHook, kill_executor
from parallel_backend_loky._semaphores import note_workers, unlink_semaphores

__all__ = ["LokyBackend"]

#: After how long without work a worker ends; joblib's value.
IDLE_SECONDS = 300.0


def _close(executor: ProcessPoolExecutor) -> None:
    kill_executor(executor)
    unlink_semaphores(executor)


def _is_usable(executor: ProcessPoolExecutor) -> bool:
    # loky offers no public way to ask; its own reusable executor looks at the same two flags.
    return executor._flags.broken is None and not executor._flags.shutdown


def _is_whole(executor: ProcessPoolExecutor) -> bool:
    """Look at the workers too: loky's thread may have yet to notice that one of them has ended between two calls."""
    if not _is_usable(executor):
        return False
    # Not `is_alive`, which takes a process for alive that loky's thread is about to reap.
    sentinels = [process.sentinel for process in list(executor._processes.values())]
    if not hasattr(select, "poll"):
        return not multiprocessing.connection.wait(sentinels, 0)
    poll = select.poll()  # a fifth of what `wait` takes, which is asked before every call of a block
    for sentinel in sentinels:
        poll.register(sentinel, select.POLLIN)
    return not poll.poll(0)


#: Executors between calls. Not `loky.get_reusable_executor`, which from 3.7 on keeps one per thread, so that a call in
#: another thread would start new workers. loky ends its workers at exit by itself.
_warm: WarmPools[ProcessPoolExecutor] = WarmPools(_close, _is_whole, close_at_exit=False)


_exit = ExitHook()


def _forget_children() -> None:
    # In a forked child: the workers are the parent's. multiprocessing would try to join them when the child exits, and
    # loky would wait for a lock that a thread of the parent may have held (it clears this table itself after the forks
    # that multiprocessing makes, but not after others).
    multiprocessing.process._children.clear()  # type: ignore[attr-defined]
    process_executor._threads_wakeups.clear()
    _exit.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_children)

#: In a worker: the traceback of the user's initializer, if that raised.
_start_error: list[str] = []


def _start_worker(caller: int, initializer: bytes | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's; it ends the workers
    end_with_process(caller)
    if initializer is not None:
        try:
            function, args = pickle.loads(initializer)  # noqa: S301 - from our own caller
            function(*args)
        except BaseException:  # an error here would break the executor, without a word of why
            _start_error.append(traceback.format_exc())


class _Guarded:
    """A job that is refused by a worker whose initializer failed."""

    __slots__ = ("_job",)

    def __init__(self, job: Callable[[], Any]) -> None:
        self._job = job

    def __reduce__(self) -> tuple[Any, ...]:
        return _Guarded, (self._job,)

    def __call__(self) -> Any:
        if _start_error:
            raise BackendError(f"the initializer of a worker process failed:\n{_start_error[0]}", backend="loky")
        return self._job()


class LokyBackend(ParallelBackendBase):
    """Runs tasks in loky's worker processes, which stay warm between calls, whichever thread makes them.

    Parameters
    ----------
    idle_worker_timeout : float, default 300
        Seconds without work after which a worker ends.
    initializer, initargs
        A function that each worker calls when it starts, and its arguments. Workers with an initializer are not kept
        warm for other calls.
    nesting_level, inner_max_num_threads
        See `ParallelBackendBase`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    wire = "bytes"
    same_host = True
    supports_kill = True
    replaces_workers = True
    loses_all_workers = True  # an executor that lost one worker is broken and ends the others

    def __init__(
        self,
        idle_worker_timeout: float = IDLE_SECONDS,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._idle_seconds = idle_worker_timeout
        self._initializer = initializer
        self._initargs = initargs
        self._executor: ProcessPoolExecutor | None = None
        # Guards the replacement of the executor, between calls that use this object at the same time.
        self._lock = threading.Lock()
        self._key: tuple[Any, ...] = ()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts, 1 in a daemonic process; see `parallel.backend.process_n_jobs`."""
        return process_n_jobs(n_jobs, self.default_n_jobs)

    def explain(self, n_jobs: int) -> dict[str, tuple[Any, str]]:
        """See `ParallelBackendBase`."""
        return explain_processes("loky", "fork and exec, without a copy of the caller's state")

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, idle_worker_timeout: float | None = None, **options: Any
    ) -> int:
        """Borrow warm workers, or have new ones started with the first job."""
        if options:
            raise TypeError(f"the backend 'loky' knows no option {', '.join(options)}")
        if idle_worker_timeout is not None:
            self._idle_seconds = idle_worker_timeout
        size = self.effective_n_jobs(n_jobs)
        environment = self._prepare_worker_env(size)
        self._key = (size, self._idle_seconds, tuple(sorted(environment.items())))
        self._executor = self._get()
        return size

    def _get(self) -> ProcessPoolExecutor:
        return _warm.lend(self._key, self._make) if self._initializer is None else self._make()

    def _make(self) -> ProcessPoolExecutor:
        size, idle_seconds, environment = self._key
        initializer = dumps((self._initializer, self._initargs)) if self._initializer is not None else None
        return ProcessPoolExecutor(
            max_workers=size,
            timeout=idle_seconds,
            context=get_context("loky"),
            initializer=_start_worker,
            initargs=(os.getpid(), initializer),
            env=dict(environment),
        )

    def submit(self, func: Job, callback: Callable[[Any], None]) -> Future[Any]:
        """Queue a job; see `ParallelBackendBase`. An executor that broke is replaced first, which takes a moment."""
        if _exit.has_come:
            raise BackendError("the interpreter is exiting: no more tasks can be started", backend="loky")
        executor = self._usable_executor()
        try:
            future: Future[Any] = executor.submit(_Guarded(func))
        except (BrokenExecutor, ShutdownExecutorError):  # it broke just now
            executor = self._usable_executor()
            future = executor.submit(_Guarded(func))
        _exit.add(executor)
        note_workers(executor)
        future.add_done_callback(callback)
        return future

    def _usable_executor(self) -> ProcessPoolExecutor:
        """Give the executor, a new one if it broke or was ended; two calls may ask at a time."""
        with self._lock:
            if self._executor is None or not _is_usable(self._executor):
                self.abort_everything(ensure_ready=True)
            assert self._executor is not None
            return self._executor

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Give the outcome; see `ParallelBackendBase`."""
        try:
            return future.result()
        except (BrokenExecutor, ShutdownExecutorError) as error:
            raise _lost(error) from error

    def kill(self, future: Future[Any]) -> None:
        """End all workers: loky has no way to end one of them; see `ParallelBackendBase`."""
        with self._lock:
            if not future.done():
                self.abort_everything(ensure_ready=False)

    def start_call(self) -> None:
        """Replace an executor that broke between two calls of a ``with`` block."""
        if self._executor is not None and not _is_whole(self._executor):
            self.abort_everything(ensure_ready=True)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the workers."""
        executor, self._executor = self._executor, None
        if executor is not None:
            _close(executor)
        if ensure_ready:
            self._executor = self._make()

    def terminate(self) -> None:
        """Give the workers back, warm; end them if they are broken."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        # What it still has to do was left by an abort that was interrupted.
        if _is_usable(executor) and not executor._pending_work_items and self._initializer is None:
            _warm.give_back(self._key, executor)
        else:
            _close(executor)


def _lost(error: BaseException) -> WorkerLostError:
    """Say in one line what loky says in ten; the exit codes are in its text only, as ``{SIGKILL(-9), EXIT(1)}``."""
    if isinstance(error, ShutdownExecutorError):
        text = "the worker processes of the backend 'loky' were ended"
        return WorkerLostError(text, backend="loky", is_deliberate=True)
    codes = [int(code) for code in re.findall(r"\((-?\d+)\)", str(error))]
    signal_number = next((-code for code in codes if code < 0), None)
    exit_code = codes[0] if codes and signal_number is None else None
    how = "ended unexpectedly"
    if signal_number is not None:
        how = f"was killed by signal {signal_number}"
    elif exit_code is not None:
        how = f"ended with exit code {exit_code}"
    return WorkerLostError(
        f"a worker process of the backend 'loky' {how}", backend="loky", exit_code=exit_code, signal=signal_number
    )
