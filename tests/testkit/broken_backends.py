"""Backends with one fault each, and one without."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import cloudpickle

from parallel.backend import ParallelBackendBase, WorkerLostError, resolve_n_jobs
from parallel_backend_mp import MpBackend


class Good(ParallelBackendBase):
    """A ThreadPoolExecutor."""

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return resolve_n_jobs(n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        n_jobs = super().configure(n_jobs, parallel, **options)
        self.executor: Any = ThreadPoolExecutor(n_jobs)
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        future = self.executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: Any) -> Any:
        return future.result()

    def cancel(self, future: Any) -> None:
        future.cancel()

    def terminate(self) -> None:
        self.executor.shutdown()


class NeverCallsBack(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        return self.executor.submit(func)


class NeverCallsBackNorIsDone(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        self.executor.submit(func)
        return Future()


class CallsBackTwice(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        future = super().submit(func, callback)
        future.add_done_callback(callback)
        return future


class RaisesInSubmit(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        raise OSError("no route to host")


class WaitsInSubmit(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        future = super().submit(func, callback)
        future.result()
        return future


class NeverReturnsFromSubmit(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        threading.Event().wait()


class SlowInSubmit(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        threading.Event().wait(0.3)
        return super().submit(func, callback)


class RunsInSubmit(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(func())
        callback(future)
        return future


class LosesExceptions(Good):
    def retrieve_result_callback(self, future: Any) -> Any:
        outcome = future.result()
        outcome.failures.clear()
        return outcome


class LosesExceptionsOfWorkers(Good):
    supports_sharedmem = False
    uses_threads = False
    wire = "bytes"
    same_host = True

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        n_jobs = self.effective_n_jobs(n_jobs)
        self.executor = ProcessPoolExecutor(n_jobs)
        return n_jobs

    def retrieve_result_callback(self, future: Any) -> Any:
        try:
            return future.result()
        except Exception:
            return None


class GivesLists(Good):
    def retrieve_result_callback(self, future: Any) -> Any:
        return list(future.result().values)


class GivesNothing(Good):
    def retrieve_result_callback(self, future: Any) -> Any:
        return None


class GivesTooFew(Good):
    def retrieve_result_callback(self, future: Any) -> Any:
        outcome = future.result()
        del outcome.values[:]
        return outcome


class LeaksThreads(Good):
    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        threading.Thread(target=threading.Event().wait, daemon=True, name="leaked").start()
        return super().configure(n_jobs, parallel, **options)


class IgnoresAbort(MpBackend):
    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None) -> None:
        super().__init__(start_method="fork", nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        pass


class IgnoresAbortInThreads(Good):
    def abort_everything(self, ensure_ready: bool = True) -> None:
        pass


class PicklesTheFunctionEveryTime(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        for function, _, _ in map(func.batch.call_at, range(len(func.batch))):
            cloudpickle.dumps(function)
        return super().submit(func, callback)


class SaysMoreThanItHas(Good):
    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self.executor = ThreadPoolExecutor(1)
        return self.effective_n_jobs(n_jobs)


class SaysTwiceAsMany(Good):
    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return 2 * resolve_n_jobs(n_jobs)


class SaysMoreOfAllCpus(Good):
    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return 5 if n_jobs == -1 else resolve_n_jobs(n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        super().configure(2 if n_jobs == -1 else n_jobs)
        return self.effective_n_jobs(n_jobs)


class CallsBackAgainLater(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        def call_twice(future: Any) -> None:
            callback(future)
            threading.Timer(0.3, callback, [future]).start()

        future = self.executor.submit(func)
        future.add_done_callback(call_twice)
        return future


class SkipsCallbacksOfFailures(Good):
    def submit(self, func: Any, callback: Any) -> Any:
        def call_if_good(future: Any) -> None:
            if not future.result().failures:
                callback(future)

        future = self.executor.submit(func)
        future.add_done_callback(call_if_good)
        return future


class SkipsCallbacksOfLostWorkers(MpBackend):
    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None) -> None:
        super().__init__(start_method="fork", nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)

    def submit(self, func: Any, callback: Any) -> Any:
        def call_if_good(future: Any) -> None:
            with contextlib.suppress(WorkerLostError):
                MpBackend.retrieve_result_callback(self, future)
                callback(future)

        return super().submit(func, call_if_good)


class IgnoresKill(SkipsCallbacksOfLostWorkers):
    def submit(self, func: Any, callback: Any) -> Any:
        return MpBackend.submit(self, func, callback)

    def kill(self, future: Any) -> None:
        pass


class HasTwoAtMost(Good):
    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        n_jobs = super().configure(n_jobs, parallel, **options)
        self.executor.shutdown()
        self.executor = ThreadPoolExecutor(min(n_jobs, 2))
        return n_jobs


class LeaksThreadsUnknownToPython(Good):
    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        _thread.start_new_thread(threading.Event().wait, ())
        return super().configure(n_jobs, parallel, **options)
