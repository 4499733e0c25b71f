"""What is done with the jobs of a call at their backend, besides submitting them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from parallel._carrier import CallCarrier
from parallel._task import Job, Outcome
from parallel.backend import ParallelBackendBase

__all__ = ["end_jobs", "fetch"]


def fetch(
    backend: ParallelBackendBase, backend_name: str, carrier: CallCarrier, job: Job, future: Any, brought: Any
) -> Outcome:
    """Give the outcome of a job that has come back; only once.

    Parameters
    ----------
    future
        What `submit` gave for the job.
    brought
        What its callback got.

    Raises
    ------
    BaseException
        Whatever the backend raises: that is no failure of a task.
    """
    if backend.supports_retrieve_callback:
        raw = backend.retrieve_result_callback(brought)
    else:
        raw = backend.retrieve_result(future)
    return carrier.decode(raw, job.batch, backend_name)


def end_jobs(backend: ParallelBackendBase, jobs: Iterable[tuple[Job, Any]], abort_backend: Callable[[], bool]) -> None:
    """Cancel jobs, and end them where they run; by `abort_backend`, or one by one if that gives False."""
    futures = []
    for job, future in jobs:
        job.cancelled = True
        if future is not None:
            futures.append(future)
    for future in futures:
        backend.cancel(future)
    if not abort_backend():
        # Another call uses the same workers: end only those that are busy for this one.
        end = backend.kill if backend.supports_kill else backend.replace
        for future in futures:
            end(future)
