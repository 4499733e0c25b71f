"""The backends that calls run on."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from parallel import Parallel, ParallelBackendBase
from parallel.errors import BackendError, ResultPicklingError
from parallel_backend_mp import MpBackend
from parallel_backend_threads import ThreadsBackend
from parallel_testkit import FlakyBackend
from tests.soak.tasks import square

__all__ = ["FAULTS", "KINDS", "Kind", "Kinds"]

N_JOBS = 2

#: How often a call of four tasks may fail in a row on a backend with faults, of which one in ten does.
REST_ATTEMPTS = 20


class Kind:
    """One way to run tasks.

    Parameters
    ----------
    name
        As it is given on the command line.
    backend
        The name of the backend, or what makes one.
    in_processes
        Whether a worker can end without its caller, and results travel.
    replaces_workers
        Whether the call goes on when one does.
    make_executor
        For the backend futures.
    may_raise
        What calls may raise that nothing is wrong with, because the backend has faults of its own.
    **options
        Of the backend.
    """

    def __init__(
        self,
        name: str,
        backend: str | Callable[[], ParallelBackendBase],
        *,
        in_processes: bool,
        replaces_workers: bool = False,
        make_executor: Callable[[], Executor] | None = None,
        may_raise: tuple[type[BaseException], ...] = (),
        **options: Any,
    ) -> None:
        self.name = name
        self.backend = backend
        self.in_processes = in_processes
        self.replaces_workers = replaces_workers
        self.may_raise = may_raise
        self._make_executor = make_executor
        self._options = options
        self._executor: Executor | None = None

    def make(self, **arguments: Any) -> Parallel:
        """Make a `Parallel` with two workers of this kind."""
        options = dict(self._options)
        if self._make_executor is not None:
            if self._executor is None:
                self._executor = self._make_executor()
            options["executor"] = self._executor
        backend = self.backend if isinstance(self.backend, str) else self.backend()
        return Parallel(**{"n_jobs": N_JOBS, "backend": backend, **options, **arguments})

    def rest(self) -> None:
        """Have as many warm workers as after every other call: the last one may have ended them."""
        if self._executor is not None:
            try:
                self._executor.submit(square, 1).result()
            except BrokenExecutor:
                self.close()
        for attempts_left in reversed(range(REST_ATTEMPTS)):
            try:
                assert self.make(batch_size=1).map(square, range(4)) == [0, 1, 4, 9]
                return
            except self.may_raise:
                if not attempts_left:
                    raise

    def close(self) -> None:
        """End an executor."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


#: What a call may raise whose workers or connection failed, or of whose outcomes one was cut off.
FAULTS = (BackendError, ResultPicklingError)


def _process_pool() -> Executor:
    return ProcessPoolExecutor(N_JOBS, mp_context=multiprocessing.get_context("forkserver"))


def _mp(method: str) -> Kind:
    return Kind(f"mp-{method}", "mp", in_processes=True, replaces_workers=True, start_method=method)


def _faulty(make: Callable[[], ParallelBackendBase]) -> Callable[[], ParallelBackendBase]:
    """Have go wrong what ends a call with an error of the infrastructure, or leaves it to its right end."""
    seeds = itertools.count()
    return lambda: FlakyBackend(
        make(),
        seed=next(seeds),
        p_lost=0.01,
        p_truncated=0.01,
        p_submit_error=0.005,
        connection_lost=(5, 0.02),
    )


def _flaky(make: Callable[[], ParallelBackendBase]) -> Callable[[], ParallelBackendBase]:
    """Have go wrong what a call has to come to its right end with all the same."""
    seeds = itertools.count()
    return lambda: FlakyBackend(
        make(),
        seed=next(seeds),
        delay_seconds=(0.0, 0.01),
        p_delay=0.2,
        reorder=3,
        p_duplicate=0.2,
        p_missing=0.01,
        slow_start_seconds=0.01,
    )


def _all() -> list[Kind]:
    return [
        Kind("threads", "threads", in_processes=False),
        Kind("loky", "loky", in_processes=True, replaces_workers=True),
        Kind("flaky-threads", _flaky(ThreadsBackend), in_processes=False),
        Kind("flaky-mp", _flaky(lambda: MpBackend(start_method="fork")), in_processes=True, replaces_workers=True),
        Kind("faulty-threads", _faulty(ThreadsBackend), in_processes=False, may_raise=FAULTS),
        Kind(
            "faulty-mp",
            _faulty(lambda: MpBackend(start_method="fork")),
            in_processes=True,
            replaces_workers=True,
            may_raise=FAULTS,
        ),
        *(_mp(method) for method in ("fork", "spawn", "forkserver")),
        Kind("futures-threads", "futures", in_processes=False, make_executor=lambda: ThreadPoolExecutor(N_JOBS)),
        Kind("futures-processes", "futures", in_processes=True, make_executor=_process_pool),
    ]


#: The names, for the command line.
KINDS = tuple(kind.name for kind in _all())


@contextmanager
def Kinds(names: list[str]) -> Iterator[list[Kind]]:  # noqa: N802 - used like a class
    """Make those of the given names, and end their executors at the end."""
    kinds = [kind for kind in _all() if kind.name in names]
    try:
        yield kinds
    finally:
        for kind in kinds:
            kind.close()
