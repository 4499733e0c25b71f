"""Those who take part: each a context manager that gives a warm pool, or the like, of so many workers.

All peers are opened as their documentation says for a pool that is used again and again. Imports are inside the
functions: a peer that is not installed is left out of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from multiprocessing import Pool
from multiprocessing.pool import ThreadPool
from typing import Any, Self

from benchmarks import styles
from benchmarks.tasks import introduce
from parallel import Parallel

__all__ = ["CONTENDERS", "Contender", "OpenContenders", "other_backends"]

#: How long a task of the warm-up sleeps, so that others get one too.
_WARM_UP_SECONDS = 0.01

#: How long workers may take to start: dozens of new interpreters on two CPUs.
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who runs functions.

    Attributes
    ----------
    opens
        Gives the context manager for a number of workers.
    maps
        Runs one function on items with what that gave, one task for each item.
    module
        What must be installed.
    """

    opens: Callable[[int], AbstractContextManager[Any]]
    maps: Callable[[Any, Callable[..., Any], Iterable[Any]], Iterable[Any]]
    module: str


# -- ours ------------------------------------------------------------------------------------------------------------


def _ours(backend: str) -> Contender:
    def opens(n_jobs: int) -> AbstractContextManager[Any]:
        return Parallel(n_jobs=n_jobs, backend=backend)

    return Contender(opens, styles.delayed_tasks, _MODULES.get(backend, "parallel"))


def _ours_on(executor: Callable[[int], Any]) -> Contender:
    @contextmanager
    def opens(n_jobs: int) -> Iterator[Any]:
        with executor(n_jobs) as pool, Parallel(n_jobs=n_jobs, backend="futures", executor=pool) as parallel:
            yield parallel

    return Contender(opens, styles.delayed_tasks, _MODULES["futures"])


#: The distributions of this repository, each by the backend's name.
_MODULES = {
    "mp": "parallel_backend_mp",
    "loky": "parallel_backend_loky",
    "threads": "parallel_backend_threads",
    "futures": "parallel_backend_futures",
}

_ALIASES = {"multiprocessing", "threading", "sequential"}


def other_backends() -> list[str]:
    """Name the installed backends that are not of this repository."""
    names = {entry.name for entry in entry_points(group="parallel.backends")}
    return sorted(names - _MODULES.keys() - _ALIASES)


# -- peers -----------------------------------------------------------------------------------------------------------


def _joblib(backend: str) -> Contender:
    @contextmanager
    def opens(n_jobs: int) -> Iterator[Any]:
        import joblib

        with joblib.Parallel(n_jobs=n_jobs, backend=backend) as parallel:
            yield parallel
        if backend == "loky":  # it keeps its workers for another call, and would disturb the next row
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)

    return Contender(opens, styles.joblib_tasks, "joblib")


@contextmanager
def _loky_executor(n_jobs: int) -> Iterator[Any]:
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=n_jobs)
    yield executor
    executor.shutdown(wait=True)


def _mpire(n_jobs: int) -> AbstractContextManager[Any]:
    from mpire import WorkerPool

    pool: AbstractContextManager[Any] = WorkerPool(n_jobs=n_jobs, keep_alive=True)
    return pool


def _pebble(n_jobs: int) -> AbstractContextManager[Any]:
    from pebble import ProcessPool

    pool: AbstractContextManager[Any] = ProcessPool(max_workers=n_jobs)
    return pool


CONTENDERS: Mapping[str, Contender] = {
    "mp": _ours("mp"),
    "loky": _ours("loky"),
    "threads": _ours("threads"),
    "sequential": _ours("sequential"),
    "futures/processes": _ours_on(ProcessPoolExecutor),
    "futures/threads": _ours_on(ThreadPoolExecutor),
    **{name: _ours(name) for name in other_backends()},
    "joblib/loky": _joblib("loky"),
    "joblib/mp": _joblib("multiprocessing"),
    "joblib/threads": _joblib("threading"),
    "joblib/sequential": _joblib("sequential"),
    "ProcessPoolExecutor": Contender(ProcessPoolExecutor, styles.executor_map, "concurrent.futures"),
    "ThreadPoolExecutor": Contender(ThreadPoolExecutor, styles.executor_map, "concurrent.futures"),
    "Pool": Contender(Pool, styles.pool_imap, "multiprocessing"),
    "ThreadPool": Contender(ThreadPool, styles.pool_imap, "multiprocessing"),
    "loky executor": Contender(_loky_executor, styles.executor_map, "loky"),
    "mpire": Contender(_mpire, styles.mpire_map, "mpire"),
    "pebble": Contender(_pebble, styles.pebble_map, "pebble"),
}


def _warm_up(contender: Contender, pool: Any, n_jobs: int) -> None:
    """Run tasks until every worker has had one: some pools start theirs in the background, or on demand."""
    seen: set[tuple[int, int]] = set()
    give_up_at = time.monotonic() + _START_SECONDS
    while len(seen) < n_jobs:
        seen.update(contender.maps(pool, introduce, [_WARM_UP_SECONDS] * (2 * n_jobs)))
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"only {len(seen)} of {n_jobs} workers have started")


class OpenContenders:
    """Those that are open. They stay so from row to row as long as the next row has them, to save their starts.

    Not longer: some have threads that wake up now and then, and would disturb the others.
    """

    def __init__(self, contenders: Mapping[str, Contender] = CONTENDERS) -> None:
        self._contenders = contenders
        self._open: dict[tuple[str, int], tuple[ExitStack, Any]] = {}

    def missing(self, name: str) -> str | None:
        """Name the module that is not installed; None if all is there."""
        module = self._contenders[name].module
        return None if find_spec(module) else module

    def keep(self, wanted: set[tuple[str, int]]) -> None:
        """Close all but these (name, workers)."""
        for key in [key for key in self._open if key not in wanted]:
            self._open.pop(key)[0].close()

    def get(self, name: str, n_jobs: int) -> Any:
        """Give what an open contender is used by, with all its workers started."""
        key = name, n_jobs
        if key not in self._open:
            contender = self._contenders[name]
            stack = ExitStack()
            pool = stack.enter_context(contender.opens(n_jobs))
            self._open[key] = stack, pool
            _warm_up(contender, pool, n_jobs)
        return self._open[key][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.keep(set())
