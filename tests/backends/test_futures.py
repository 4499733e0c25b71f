from __future__ import annotations

import operator
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import loky
import pytest

from parallel import Parallel, delayed, parallel_config
from parallel.errors import WorkerLostError
from parallel_testkit import BackendConformance
from tests.backends.workers import kill


class TestThreadPoolExecutor(BackendConformance):
    backend = "futures"

    @pytest.fixture
    def backend_options(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(self.n_jobs) as executor:
            yield {"executor": executor}


class TestProcessPoolExecutor(BackendConformance):
    backend = "futures"

    @pytest.fixture
    def backend_options(self) -> Iterator[dict[str, Any]]:
        with ProcessPoolExecutor(self.n_jobs) as executor:
            yield {"executor": executor}


@pytest.fixture(scope="module")
def loky_executor() -> Iterator[Executor]:
    executor = loky.ProcessPoolExecutor(2)  # one for all tests: it takes half a second to start
    yield executor
    executor.shutdown(kill_workers=True)


class TestLokyExecutor(BackendConformance):
    backend = "futures"

    @pytest.fixture
    def backend_options(self, loky_executor: Executor) -> dict[str, Any]:
        return {"executor": loky_executor}


# -- the executor is the user's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_the_executor_is_never_shut_down(kind: type[Executor]) -> None:
    with kind() as executor:
        parallel = Parallel(backend="futures", executor=executor, n_jobs=2)
        parallel.map(abs, range(10))
        with parallel:
            parallel.map(abs, range(10))
        with pytest.raises(TypeError):
            parallel.map(len, [1, 2])
        assert executor.submit(abs, -1).result() == 1


def test_the_executor_says_how_many_workers_there_are() -> None:
    with ThreadPoolExecutor(3) as executor:
        assert Parallel(backend="futures", executor=executor).n_jobs == 3
        assert _workers(executor, None) == _workers(executor, -1) == _workers(executor, 8) == 3
        assert _workers(executor, -2) == _workers(executor, 2) == 2


def _workers(executor: Executor, n_jobs: int | None) -> int:
    from parallel_backend_futures import FuturesBackend

    return FuturesBackend(executor).effective_n_jobs(n_jobs)


def test_an_executor_from_the_context() -> None:
    with ThreadPoolExecutor(2) as executor, parallel_config("futures", executor=executor):
        assert Parallel(n_jobs=2).map(abs, range(10)) == list(range(10))


def test_a_single_worker_of_an_executor_is_used() -> None:
    import threading

    with ThreadPoolExecutor(1, thread_name_prefix="the-only") as executor:
        (name,) = Parallel(backend="futures", executor=executor)([delayed(operator.attrgetter("name"))(Current())])
        assert name.startswith("the-only")
        assert threading.current_thread().name not in name


class Current:
    """Its name is that of the thread that asks."""

    @property
    def name(self) -> str:
        import threading

        return threading.current_thread().name


def test_without_an_executor_it_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="executor=ex"):
        Parallel(n_jobs=2, backend="futures")
    with pytest.raises(TypeError, match="executor=ex"):
        Parallel(n_jobs=2, backend="futures", executor="threads")


class Foreign(Executor):
    """An executor of somebody else: knows nothing but to run what it is given, at once."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("mode", ["list", "generator", "generator_unordered"])
def test_an_executor_that_runs_everything_in_submit(mode: str) -> None:
    with Foreign() as executor:
        parallel = Parallel(n_jobs=2, backend="futures", executor=executor, return_as=mode)
        assert sorted(parallel.map(abs, range(500))) == list(range(500))


def test_an_executor_that_is_broken_is_an_error_at_once() -> None:
    import os

    with ProcessPoolExecutor(2) as executor:
        kill(executor.submit(os.getpid).result())
        for _ in range(2):
            with pytest.raises(WorkerLostError, match="ProcessPoolExecutor"):
                Parallel(n_jobs=2, backend="futures", executor=executor).map(abs, range(10))


def test_an_executor_that_was_shut_down_is_an_error_at_once() -> None:
    executor = ThreadPoolExecutor(2)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        Parallel(n_jobs=2, backend="futures", executor=executor).map(abs, range(10))
