"""Backends of other people: what joblib documents, what is older than that, and what is broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest

from parallel import Parallel, ParallelBackendBase, delayed, parallel_config, register_parallel_backend
from parallel.errors import BackendContractError, BackendError
from parallel_testkit import BackendConformance, run_bounded

every_mode = pytest.mark.parametrize("mode", ["list", "generator", "generator_unordered"])


class DocumentedBackend(ParallelBackendBase):
    """As joblib's documentation has it: a ThreadPoolExecutor, and nothing declared but the one flag."""

    supports_retrieve_callback = True

    def __init__(self, nesting_level: Any = None, inner_max_num_threads: Any = None, **backend_kwargs: Any) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.backend_kwargs = backend_kwargs
        self._executor: Any = None

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any) -> int:
        self.n_jobs = n_jobs
        backend_kwargs = {**self.backend_kwargs, **backend_kwargs}
        n_jobs = self.effective_n_jobs(n_jobs)
        self._executor = ThreadPoolExecutor(n_jobs)
        return n_jobs

    def terminate(self) -> None:
        self._executor.shutdown()
        self._executor = None

    def effective_n_jobs(self, n_jobs: Any) -> Any:
        return n_jobs

    def submit(self, func: Any, callback: Any) -> Any:
        future = self._executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: Any) -> Any:
        return future.result()


class OlderBackend(ParallelBackendBase):
    """From before `submit` and `retrieve_result_callback`: a pool's AsyncResult, fetched by `retrieve_result`."""

    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: Any) -> Any:
        return n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self._pool = ThreadPool(n_jobs)
        return n_jobs

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        return self._pool.apply_async(func, (), callback=callback, error_callback=callback)

    def retrieve_result(self, out: Any, timeout: Any = None) -> Any:
        return out.get(timeout=timeout)

    def terminate(self) -> None:
        self._pool.close()
        self._pool.terminate()
        self._pool.join()


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    register_parallel_backend("documented", DocumentedBackend)
    register_parallel_backend("older", OlderBackend)


every_backend = pytest.mark.parametrize("name", ["documented", "older"])


@every_backend
@every_mode
def test_it_runs_in_every_mode(name: str, mode: str) -> None:
    parallel = Parallel(n_jobs=2, backend=name, return_as=mode)
    assert sorted(run_bounded(lambda: list(parallel.map(abs, range(500))))) == list(range(500))


@every_backend
@every_mode
def test_tasks_are_the_original_objects(name: str, mode: str) -> None:
    out: list[int] = []
    run_bounded(
        lambda: list(Parallel(n_jobs=2, backend=name, return_as=mode)(delayed(out.append)(i) for i in range(50)))
    )
    assert sorted(out) == list(range(50))


@every_backend
@every_mode
def test_errors_of_tasks_arrive_as_themselves(name: str, mode: str) -> None:
    parallel = Parallel(n_jobs=2, backend=name, return_as=mode)
    with pytest.raises(ZeroDivisionError) as caught:
        run_bounded(lambda: list(parallel(delayed(divmod)(1, i) for i in (1, 2, 0, 3))))
    assert any("task 2" in note for note in caught.value.__notes__)


@every_backend
def test_it_can_be_chosen_by_the_context(name: str) -> None:
    with parallel_config(name):
        assert run_bounded(lambda: Parallel(2)(delayed(abs)(i) for i in range(10))) == list(range(10))


@every_backend
def test_a_block_and_several_calls(name: str) -> None:
    def use() -> None:
        with Parallel(n_jobs=2, backend=name) as parallel:
            for count in (10, 0, 100):
                assert parallel.map(abs, range(count)) == list(range(count))

    run_bounded(use)


def test_options_reach_the_constructor_and_configure() -> None:
    assert Parallel(n_jobs=2, backend="documented", color="red")._backend.backend_kwargs == {"color": "red"}
    backend = DocumentedBackend()
    assert Parallel(n_jobs=2, backend=backend, color="red").map(abs, range(3)) == [0, 1, 2]


class PoolOfThreads(DocumentedBackend):
    """The documented backend, with an answer to every `n_jobs`, and cancelling what has not begun."""

    supports_sharedmem = True
    uses_threads = True

    def __init__(self) -> None:
        super().__init__()

    def effective_n_jobs(self, n_jobs: Any) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning")
        return 2 if n_jobs is None or n_jobs < 0 else n_jobs

    def cancel(self, future: Future[Any]) -> None:
        future.cancel()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = ThreadPoolExecutor(self.n_jobs) if ensure_ready else None

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        if options:
            raise TypeError(f"unknown options: {options}")
        return super().configure(n_jobs, parallel)

    def terminate(self) -> None:
        if self._executor is not None:
            super().terminate()


class TestPoolOfThreads(BackendConformance):
    backend = PoolOfThreads


# -- broken on purpose -------------------------------------------------------------------------------------------------


class Broken(DocumentedBackend):
    """Breaks the contract for the third job."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.count = 0

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        self.count += 1
        if self.count != 3:
            return super().submit(func, callback)
        if self.how == "raises in submit":
            raise OSError("no route to the cluster")
        if self.how == "gives garbage":
            return super().submit(lambda: "garbage", callback)
        if self.how == "gives nothing":
            return super().submit(lambda: None, callback)
        if self.how == "fails itself":
            return super().submit(_unplug, callback)
        future = self._executor.submit(func)
        if self.how == "calls back twice":
            future.add_done_callback(callback)
            future.add_done_callback(callback)
        elif self.how == "calls back in submit":
            future.result()
            callback(future)
        # else: never calls back, but the future is done
        return future


def _unplug() -> None:
    raise ConnectionError("the cable is unplugged")


def results_of(how: str, mode: str) -> list[int]:
    parallel = Parallel(n_jobs=2, backend=Broken(how), return_as=mode, batch_size=1)
    results: list[int] = run_bounded(lambda: list(parallel.map(abs, range(20))))
    return sorted(results)


@every_mode
@pytest.mark.parametrize("how", ["calls back twice", "calls back in submit", "never calls back"])
def test_a_fault_that_costs_nothing(how: str, mode: str) -> None:
    assert results_of(how, mode) == list(range(20))


@every_mode
def test_submit_that_raises(mode: str) -> None:
    with pytest.raises(BackendError, match="no route to the cluster") as caught:
        results_of("raises in submit", mode)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(caught.value.task_indices) == [2]


@every_mode
def test_a_future_that_raises(mode: str) -> None:
    with pytest.raises(BackendError, match="unplugged") as caught:
        results_of("fails itself", mode)
    assert isinstance(caught.value.__cause__, ConnectionError)


@every_mode
@pytest.mark.parametrize("how", ["gives garbage", "gives nothing"])
def test_an_outcome_that_is_none(how: str, mode: str) -> None:
    with pytest.raises(BackendContractError, match="unchanged") as caught:
        results_of(how, mode)
    assert list(caught.value.task_indices) == [2]


def test_calls_after_a_fault() -> None:
    def use() -> Iterator[Any]:
        with Parallel(n_jobs=2, backend=Broken("raises in submit"), batch_size=1) as parallel:
            with pytest.raises(BackendError):
                parallel.map(abs, range(20))
            yield parallel.map(abs, range(20))

    assert run_bounded(lambda: list(use())) == [list(range(20))]


def test_nothing_hangs_when_the_constructor_or_configure_raises() -> None:
    class NoConstructor(DocumentedBackend):
        def __init__(self) -> None:
            raise ConnectionError("no address")

    class NoConfigure(DocumentedBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            raise ConnectionError("no answer")

    register_parallel_backend("no-constructor", NoConstructor)
    with pytest.raises(ConnectionError, match="no address"):
        Parallel(n_jobs=2, backend="no-constructor")
    parallel = Parallel(n_jobs=2, backend=NoConfigure())
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no answer"):
            run_bounded(parallel.map, abs, range(3))
    before = threading.active_count()
    with pytest.raises(ConnectionError, match="no answer"):
        parallel.__enter__()
    assert threading.active_count() == before
