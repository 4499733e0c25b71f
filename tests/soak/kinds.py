"""The backends that calls run on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from parallel import Parallel
from tests.soak.tasks import square

__all__ = ["KINDS", "Kind", "Kinds"]

N_JOBS = 2


class Kind:
    """One way to run tasks.

    Parameters
    ----------
    name
        As it is given on the command line.
    backend
        The name of the backend.
    in_processes
        Whether a worker can end without its caller, and results travel.
    replaces_workers
        Whether the call goes on when one does.
    make_executor
        For the backend futures.
    **options
        Of the backend.
    """

    def __init__(
        self,
        name: str,
        backend: str,
        *,
        in_processes: bool,
        replaces_workers: bool = False,
        make_executor: Callable[[], Executor] | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self.backend = backend
        self.in_processes = in_processes
        self.replaces_workers = replaces_workers
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
        return Parallel(**{"n_jobs": N_JOBS, "backend": self.backend, **options, **arguments})

    def rest(self) -> None:
        """Have as many warm workers as after every other call: the last one may have ended them."""
        if self._executor is not None:
            try:
                self._executor.submit(square, 1).result()
            except BrokenExecutor:
                self.close()
        assert self.make(batch_size=1).map(square, range(4)) == [0, 1, 4, 9]

    def close(self) -> None:
        """End an executor."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


def _process_pool() -> Executor:
    return ProcessPoolExecutor(N_JOBS, mp_context=multiprocessing.get_context("forkserver"))


def _mp(method: str) -> Kind:
    return Kind(f"mp-{method}", "mp", in_processes=True, replaces_workers=True, start_method=method)


def _all() -> list[Kind]:
    # A backend that injects faults into another one is one more line here.
    return [
        Kind("threads", "threads", in_processes=False),
        Kind("loky", "loky", in_processes=True, replaces_workers=True),
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
