"""A backend without workers: the test decides when and how each batch ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from parallel.backend import Job, Outcome, ParallelBackendBase, Report, resolve_n_jobs

__all__ = ["ManualBackend", "ManualBatch", "ManualFuture"]

#: How long `ManualBackend.next_batch` waits: not a measurement, only what hangs should ever reach it.
WAIT_SECONDS = 30.0


class ManualFuture:
    """What `ManualBackend.submit` gives."""

    def __init__(self, batch: ManualBatch) -> None:
        self.batch = batch
        self.brought: Any = None
        self.error: BaseException | None = None
        self.is_done = False

    def done(self) -> bool:
        """Tell whether the batch has ended."""
        return self.is_done

    def result(self, timeout: float | None = None) -> Any:
        """Give what the batch brought, or raise what it was made to raise."""
        assert self.is_done, "result() of a batch that has not ended"
        if self.error is not None:
            raise self.error
        return self.brought

    def __repr__(self) -> str:
        return f"<ManualFuture of {self.batch!r} {'done' if self.is_done else 'pending'}>"


class ManualBatch:
    """A batch that was submitted, and the ways it can end.

    Attributes
    ----------
    job : parallel.backend.Job
        What was submitted.
    future : ManualFuture
        What `submit` returned.
    """

    def __init__(self, backend: ManualBackend, job: Job, callback: Callable[[Any], None]) -> None:
        self.job = job
        self.future = ManualFuture(self)
        self._backend = backend
        self._callback = callback

    @property
    def start(self) -> int:
        """Index in the input of the first task."""
        return self.job.batch.start

    @property
    def size(self) -> int:
        """Number of tasks."""
        return len(self.job.batch)

    @property
    def worker(self) -> int:
        """The worker, 0 to n_jobs-1, that the batch is for."""
        return self.job.worker

    # -- as it should be -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Report that a worker has begun."""
        assert self._backend.report is not None
        self._backend.report.started(self.future)

    def complete(self, count: int | None = None, seconds: float | None = None) -> None:
        """Run the tasks here and bring their outcome.

        Parameters
        ----------
        count : int, optional
            Run only the first `count` tasks, as a worker does whose batch is cut short; they must not raise.
        seconds : float, optional
            How long the worker is said to have been busy; None for as long as it took.
        """
        self.finish_silently(count, seconds)
        self.call_back()

    # -- as it should not be -------------------------------------------------------------------------------------------

    def finish_silently(self, count: int | None = None, seconds: float | None = None) -> None:
        """Run the tasks here; the future is done, but nobody is told."""
        outcome = self._run(count)
        if seconds is not None:
            outcome = Outcome(outcome.values, outcome.failures, seconds)
        self.future.brought = outcome
        self.future.is_done = True

    def call_back(self) -> None:
        """Call the callback (again)."""
        self._callback(self.future)

    def bring(self, anything: Any) -> None:
        """End with something that need not be an outcome."""
        self.future.brought = anything
        self.future.is_done = True
        self.call_back()

    def fail(self, error: BaseException) -> None:
        """End so that `retrieve_result_callback` raises `error`."""
        self.future.error = error
        self.future.is_done = True
        self.call_back()

    def lose(self, exit_code: int | None = None, signal: int | None = None) -> None:
        """Report that the worker has ended; no callback."""
        assert self._backend.report is not None
        self._backend.report.lost(self.future, exit_code, signal)

    def _run(self, count: int | None) -> Outcome:
        if count is None:
            return self.job()
        values = []
        for position in range(count):
            function, args, kwargs = self.job.batch.call_at(position)
            assert function is not None
            values.append(function(*args, **kwargs))
        return Outcome(values, {}, 0.0)

    def __repr__(self) -> str:
        return f"<ManualBatch tasks {self.start}..{self.start + self.size - 1} worker {self.worker}>"


class ManualBackend(ParallelBackendBase):
    """Keeps what is submitted until the test ends it.

    Driven from the test's thread, while the call runs on another one or hands out a generator::

        backend = ManualBackend()
        results = Parallel(n_jobs=2, backend=backend, return_as="generator", batch_size=1)(tasks)
        backend.next_batch().complete()
        next(results)

    or by a function that gets every batch as it is submitted, for calls that give a list::

        Parallel(n_jobs=2, backend=ManualBackend(lambda batch: batch.complete()))(tasks)

    Parameters
    ----------
    on_submit : callable, optional
        Called with each `ManualBatch` inside `submit`; what it raises, `submit` raises.
    **capabilities
        Values for the capability attributes of `ParallelBackendBase`, such as ``wire="bytes"``.

    Attributes
    ----------
    submitted : list of ManualBatch
        All that were submitted, in order.
    calls : list of str
        The names of the contract's methods, as they were called.
    cancelled : list of ManualFuture
        What was given to `cancel`.
    report : Report or None
        What `attach` got.
    """

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True
    same_host = True

    def __init__(self, on_submit: Callable[[ManualBatch], None] | None = None, **capabilities: Any) -> None:
        super().__init__()
        for name, value in capabilities.items():
            if not hasattr(ParallelBackendBase, name):
                raise TypeError(f"{name!r} is no capability of ParallelBackendBase")
            setattr(self, name, value)
        self._on_submit = on_submit
        self.submitted: list[ManualBatch] = []
        self.calls: list[str] = []
        self.cancelled: list[ManualFuture] = []
        self.report: Report | None = None
        self._changed = threading.Condition()
        self._taken = 0

    # -- the test's side -----------------------------------------------------------------------------------------------

    def next_batch(self, seconds: float = WAIT_SECONDS) -> ManualBatch:
        """Block until there is a batch that was not given before, and give it.

        Raises
        ------
        AssertionError
            If there is none within `seconds`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.submitted) > self._taken, seconds):
                raise AssertionError(f"no batch within {seconds:g} s, after {self._taken}")
            self._taken += 1
            return self.submitted[self._taken - 1]

    def wait_for_call(self, name: str, count: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Block until the contract's method `name` was called `count` times.

        Raises
        ------
        AssertionError
            If it was not within `seconds`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.calls.count(name) >= count, seconds):
                raise AssertionError(f"{name} was not called {count} times within {seconds:g} s, but {self.calls}")

    def _note(self, name: str) -> None:
        with self._changed:
            self.calls.append(name)
            self._changed.notify_all()

    # -- the contract --------------------------------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts."""
        return resolve_n_jobs(n_jobs, self.default_n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Note it."""
        self._note("configure")
        return super().configure(n_jobs, parallel, **options)

    def attach(self, report: Report) -> None:
        """Keep the report."""
        self._note("attach")
        self.report = report

    def start_call(self) -> None:
        """Note it."""
        self._note("start_call")

    def stop_call(self) -> None:
        """Note it."""
        self._note("stop_call")

    def submit(self, func: Job, callback: Callable[[Any], None]) -> ManualFuture:
        """Keep the batch, or give it to `on_submit`."""
        batch = ManualBatch(self, func, callback)
        with self._changed:
            self.calls.append("submit")
            self.submitted.append(batch)
            self._changed.notify_all()
        if self._on_submit is not None:
            self._on_submit(batch)
        return batch.future

    def retrieve_result_callback(self, future: ManualFuture) -> Any:
        """Give what the test brought."""
        return future.result()

    def retrieve_result(self, out: ManualFuture, timeout: float | None = None) -> Any:
        """Give what the test brought, where `supports_retrieve_callback` was set to False."""
        return out.result(timeout)

    def cancel(self, future: ManualFuture) -> None:
        """Note it."""
        self.cancelled.append(future)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Note it, and whether the backend is to be left ready."""
        self._note(f"abort_everything({ensure_ready})")

    def terminate(self) -> None:
        """Note it."""
        self._note("terminate")

    def __repr__(self) -> str:
        pending = sum(not batch.future.is_done for batch in self.submitted)
        return f"<ManualBackend {len(self.submitted)} submitted, {pending} pending>"
