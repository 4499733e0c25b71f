"""What is told about a call while it runs: to the user's terminal, to `print_progress`, to plugins."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any, Protocol

from parallel._scheduler import Scheduler
from parallel._task import Batch, Outcome

__all__ = ["BatchListener", "Meter", "Progress", "format_seconds"]


class Progress(Protocol):
    """Names of joblib's that overridden `print_progress` methods read; kept up to date per batch."""

    n_completed_tasks: int
    n_dispatched_tasks: int
    n_dispatched_batches: int
    n_tasks: int | None

    def print_progress(self) -> None: ...


class BatchListener:
    """Keeps the counters of a `Parallel`, calls its `print_progress` and the hooks of plugins, after every batch.

    Parameters
    ----------
    parallel
        Whose counters.
    scheduler
        Where the numbers are.
    prints
        Whether `print_progress` does anything.
    hook
        The relay of the plugin manager, or None; with what to tell it about the call.
    """

    def __init__(self, parallel: Progress, scheduler: Scheduler, prints: bool, hook: Any, info: Any) -> None:
        self._parallel = parallel
        self._scheduler = scheduler
        self._prints = prints
        self._hook = hook
        self._info = info

    def batch_submitted(self, batch: Batch) -> None:
        """Count a batch that was submitted."""
        self._parallel.n_dispatched_batches += 1
        self._parallel.n_dispatched_tasks = self._scheduler.n_dispatched
        if self._hook is not None:
            self._hook.parallel_batch_submitted(call=self._info, start=batch.start, size=len(batch), worker=batch.lane)

    def batch_done(self, batch: Batch, outcome: Outcome) -> None:
        """Count a batch that came back."""
        self._parallel.n_completed_tasks = self._scheduler.n_completed
        self._parallel.n_dispatched_tasks = self._scheduler.n_dispatched
        if self._prints:
            self._parallel.print_progress()
        if self._hook is not None:
            self._hook.parallel_batch_done(
                call=self._info, start=batch.start, size=len(outcome.values), seconds=outcome.seconds
            )

    def task_failed(self, index: int, exception: BaseException) -> None:
        """Tell plugins about a failure."""
        if self._hook is not None:
            self._hook.parallel_task_failed(call=self._info, index=index, exception=exception)


def format_seconds(seconds: float) -> str:
    """Write a duration shortly: ``0.3s``, ``12.0s``, ``4.5min``, ``2.0h``."""
    if seconds < 100:
        return f"{seconds:.1f}s"
    if seconds < 6000:
        return f"{seconds / 60:.1f}min"
    return f"{seconds / 3600:.1f}h"


class Meter:
    """Decides when a progress line is due, and writes it.

    `verbose` is joblib's: 0 is silent; up to 10 the lines get rarer as the call goes on, above 10 there is one for
    every batch; from 50 on they go to stdout instead of stderr.
    """

    def __init__(self, verbose: int, label: str) -> None:
        self._verbose = verbose
        self._label = label
        self._began_at = monotonic()
        self._n_lines = 0
        self._next_at = 0

    def begin(self, backend_name: str, n_workers: int) -> None:
        """Say where the tasks run."""
        if self._verbose:
            workers = "worker" if n_workers == 1 else "workers"
            self.print(f"Using backend {backend_name} with {n_workers} concurrent {workers}.")

    def update(self, n_completed: int, n_total: int | None, is_over: bool) -> None:
        """Print a line if one is due.

        Parameters
        ----------
        n_completed, n_total
            Tasks done, of how many; None where that is not known yet.
        is_over
            Whether this is the last word.
        """
        if not self._verbose:
            return
        elapsed = monotonic() - self._began_at
        if is_over:
            self.print(f"Done {n_completed} out of {n_completed} | elapsed: {format_seconds(elapsed)} finished")
            return
        if self._verbose <= 10 and n_completed < self._next_at:
            return
        # joblib's rhythm, roughly: distances that grow with the square root of what is done.
        self._next_at = n_completed + max(int(n_completed**0.5 * 2 * (11 - min(self._verbose, 10)) / 10), 1)
        self._n_lines += 1
        if n_total is None:
            self.print(f"Done {n_completed} tasks | elapsed: {format_seconds(elapsed)}")
            return
        remaining = elapsed / max(n_completed, 1) * (n_total - n_completed)
        self.print(
            f"Done {n_completed:{len(str(n_total))}d} out of {n_total} | elapsed: {format_seconds(elapsed)} "
            f"remaining: {format_seconds(remaining)}"
        )

    def print(self, text: str) -> None:
        """Write a line of this call."""
        stream = sys.stderr if self._verbose < 50 else sys.stdout
        if stream is not None:  # pythonw has none
            stream.write(f"[{self._label}]: {text}\n")
            stream.flush()
