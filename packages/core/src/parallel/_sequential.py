"""The built-in backend, registered like any other: no worker at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel.backend import ParallelBackendBase, resolve_n_jobs

__all__ = ["SequentialBackend"]


class SequentialBackend(ParallelBackendBase):
    """Runs tasks one after the other in the caller; what every call with one worker does."""

    uses_threads = True
    supports_sharedmem = True
    same_host = True
    supports_inner_max_num_threads = False

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Always 1; see `ParallelBackendBase`."""
        resolve_n_jobs(n_jobs)  # 0 is an error here too
        return 1

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        """Never called: a call with one worker runs in the caller."""
        raise RuntimeError("the sequential backend has no workers to submit to")
