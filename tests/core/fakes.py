"""Backends without workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel._carrier import CallCarrier
from parallel._context import Captured
from parallel._inner_threads import CallThreads
from parallel._running import LocalCall
from parallel._serialize import Encoder
from parallel._settings import Settings
from parallel._worker import CallHeader, run_payload
from parallel.backend import ParallelBackendBase, resolve_n_jobs


def carrier_of(settings: Settings | None = None, *, stop_on_failure: bool = True) -> CallCarrier:
    """Give what the jobs of a call share, without anything that a real call would put there."""
    nested = settings or Settings()
    local = LocalCall.of(
        Captured(None, None, None, []),
        nested,
        frozenset(),
        stop_on_failure=stop_on_failure,
        threads=CallThreads(None),
        backend="fake",
        seed=None,
    )
    return CallCarrier(local, Encoder(CallHeader(nested, stop_on_failure)))


class Future:
    """What `submit` gives for a job; done when the test says so."""

    def __init__(self, job: Any, callback: Callable[[Any], None]) -> None:
        self.job = job
        self.callback = callback
        self.is_done = False
        self.is_cancelled = False

    def done(self) -> bool:
        return self.is_done


class HereBackend(ParallelBackendBase):
    """Runs every job at once, in the thread that submits it. Keeps a log of what the core has called."""

    supports_retrieve_callback = True
    supports_sharedmem = True
    supports_inner_max_num_threads = True
    uses_threads = True

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.options = options
        self.configure_options: dict[str, Any] = {}
        self.log: list[str] = []

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return resolve_n_jobs(n_jobs, self.default_n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self.log.append(f"configure {n_jobs}")
        self.parallel = parallel
        self.configure_options = options
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        self.log.append("start_call")

    def stop_call(self) -> None:
        self.log.append("stop_call")

    def terminate(self) -> None:
        self.log.append("terminate")

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.log.append(f"abort_everything {ensure_ready}")

    def cancel(self, future: Any) -> None:
        future.is_cancelled = True

    def run(self, job: Any) -> Any:
        """What a worker would bring back."""
        return run_payload(job.payload) if self.wire == "bytes" else job()

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        callback(self.run(func))
        return Future(func, callback)

    def retrieve_result_callback(self, future: Any) -> Any:
        return future


class SeparateBackend(HereBackend):
    """Like one whose workers are processes: tasks travel as bytes and share nothing with the caller."""

    wire = "bytes"
    uses_threads = False
    supports_sharedmem = False


class PlainThreadsBackend(HereBackend):
    """Like one of threads: knows no limit for the threads of libraries."""

    supports_inner_max_num_threads = False


class SizesBackend(HereBackend):
    """Notes the sizes of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        self.sizes.append(len(func.batch))
        return super().submit(func, callback)
