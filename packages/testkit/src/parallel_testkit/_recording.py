"""Notes what is asked of a backend object, what it answers, and says in words what of that breaks the contract."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import pytest

from parallel.backend import Job, Outcome, ParallelBackendBase, Report
from parallel.errors import BackendContractError
from parallel_testkit._bounded import run_bounded

__all__ = ["PROBE_SECONDS", "Recording", "Submitted"]

T = TypeVar("T")

#: How long a probe waits for a backend: not a measurement, only one that is broken should ever reach it. Four of
#: them and what hangs while a test is cleaned up are still less than a minute.
PROBE_SECONDS = 10.0


#: How long a callback may be late, or one too many is waited for: once for a backend that has no such fault.
LATE_SECONDS = 1.0


@dataclass(eq=False)
class Submitted:
    """A job that went to the backend.

    Attributes
    ----------
    worker : int
        The worker that it was for.
    size : int
        How many tasks it had.
    future
        What `submit` returned.
    callbacks : int
        How often its callback was called.
    seconds : float or None
        How long `submit` took; None while it is inside.
    error : BaseException or None
        What `submit` raised.
    """

    worker: int
    size: int
    began_at: float
    future: Any = None
    callbacks: int = 0
    seconds: float | None = None
    error: BaseException | None = None


@dataclass(eq=False)
class Recording:
    """What was asked of a backend object since this was made for it, and what it did.

    Parameters
    ----------
    backend
        The object; its methods are replaced by ones that take notes.
    name
        What messages call it.

    Attributes
    ----------
    calls : list of str
        Names of the contract's methods, as they were called.
    jobs : list of Submitted
        What was submitted.
    brought : list
        What `retrieve_result_callback` or `retrieve_result` gave that is no outcome.
    configured : list
        What `configure` returned.
    lost : list
        The futures that `Report.lost` was called with: these are not called back.
    """

    backend: ParallelBackendBase
    name: str
    calls: list[str] = field(default_factory=list)
    jobs: list[Submitted] = field(default_factory=list)
    brought: list[Any] = field(default_factory=list)
    short: list[tuple[int, int]] = field(default_factory=list)
    configured: list[Any] = field(default_factory=list)
    lost: list[Any] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _by_future: dict[int, Submitted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        backend = self.backend
        self._submit = backend.submit
        backend.submit = self._note_submit  # type: ignore[method-assign]
        for name in ("configure", "terminate", "abort_everything", "start_call", "stop_call"):
            self._note_calls_of(name)
        for name in ("retrieve_result_callback", "retrieve_result"):
            self._note_results_of(name)
        attach = backend.attach
        backend.attach = lambda report: attach(_NotingReport(report, self.lost))  # type: ignore[method-assign]

    # -- the test's side -----------------------------------------------------------------------------------------------

    def call(self, act: Callable[[], T], seconds: float = PROBE_SECONDS) -> T:
        """Do what uses the backend, for a bounded time; fail with what it did wrong, if that is why it goes wrong.

        Raises
        ------
        AssertionError
            If it breaks the contract, or has not returned by then.
        BaseException
            What `act` raises, where the backend is not to blame.
        """
        try:
            result = run_bounded(act, seconds=seconds)
        except BaseException as error:
            faults = self.faults()
            if isinstance(error, BackendContractError):
                faults.append(f"the core said: {error}")
            _fail_for(faults)
            raise
        self.wait_for_all_callbacks()
        return result

    def wait_for_more_callbacks(self) -> None:
        """Give callbacks that are one too many the time to come, and fail if they do."""
        self.wait_for(lambda: any(job.callbacks > 1 for job in self.jobs), LATE_SECONDS)
        _fail_for(self.faults())

    def wait_for_all_callbacks(self) -> None:
        """Give callbacks of jobs that are done the time to come, and fail if they do not."""
        self.wait_for(lambda: not self._silent(), LATE_SECONDS)
        _fail_for(self.faults())

    def start(self, act: Callable[[], T]) -> T:
        """Do what only begins a call, for a bounded time; see `call`."""
        try:
            return run_bounded(act, seconds=PROBE_SECONDS)
        except AssertionError:
            self.check_submit()
            raise

    def check_submit(self) -> None:
        """Fail if a `submit` has raised, or has not returned, by now."""
        _fail_for(self._faults_of_submit())

    def wait_for(self, is_so: Callable[[], bool], seconds: float = PROBE_SECONDS) -> bool:
        """Block until something holds of what was noted; tell whether it does within `seconds`."""
        with self._changed:
            return self._changed.wait_for(is_so, seconds)

    def is_inside_submit(self) -> bool:
        """Tell whether a `submit` has not returned yet."""
        return any(job.seconds is None for job in self.jobs)

    def faults(self) -> list[str]:
        """Say what breaks the contract."""
        name = f"the backend {self.name}"
        found = self._faults_of_submit()
        silent = self._silent()
        if silent and not found:
            found.append(
                f"{name} never calls back: for {len(silent)} of {len(self.jobs)} jobs that submit() took, "
                "callback(...) was not called. It must be called exactly once for each, when the outcome is there "
                "or will never be, also when the job has failed"
            )
        often = [job.callbacks for job in self.jobs if job.callbacks > 1]
        if often:
            found.append(
                f"{name} calls back more than once: {max(often)} times for one job, for {len(often)} of "
                f"{len(self.jobs)} jobs. callback(...) must be called exactly once for each"
            )
        if self.brought:
            found.append(
                f"{name} returns outcomes in a wrong shape: retrieving gave {_short(self.brought[0])}, a "
                f"{type(self.brought[0]).__name__}, which is no outcome. What the job returns when it is called "
                "(or run_payload(job.payload) where only bytes travel) is to be handed on unchanged"
            )
        if self.short:
            got, size = self.short[0]
            found.append(
                f"{name} returns outcomes in a wrong shape: one for a job of {size} tasks has {got} results. "
                "What the job returns when it is called is to be handed on unchanged"
            )
        return found

    def _silent(self) -> list[Submitted]:
        """Give the jobs that were taken and not called back; after an abort only those that are done all the same."""
        taken = [job for job in self.jobs if job.seconds is not None and job.error is None and not job.callbacks]
        if "abort_everything" in self.calls:
            taken = [job for job in taken if _is_done(job.future)]
        return [job for job in taken if not any(job.future is lost for lost in self.lost)]

    def _faults_of_submit(self) -> list[str]:
        name = f"the backend {self.name}"
        found = []
        inside = [monotonic() - job.began_at for job in self.jobs if job.seconds is None]
        if inside:
            found.append(
                f"{name} blocks in submit(): it has not returned after {max(inside):.1f} s. submit(func, callback) "
                "must hand the job over and return; what no worker can take yet waits in a queue of the backend's own"
            )
        errors = [job.error for job in self.jobs if job.error is not None]
        if errors:
            found.append(f"{name} raises in submit(): {errors[0]!r}, for {len(errors)} of {len(self.jobs)} jobs")
        return found

    # -- the backend's side --------------------------------------------------------------------------------------------

    def _note_submit(self, func: Job, callback: Callable[..., None]) -> Any:
        job = Submitted(func.worker, len(func.batch), monotonic())
        with self._changed:
            self.jobs.append(job)
            self.calls.append("submit")
            self._changed.notify_all()

        def noting_callback(*args: Any) -> None:
            with self._changed:
                job.callbacks += 1
                self._changed.notify_all()
            callback(*args)

        try:
            job.future = self._submit(func, noting_callback)
        except BaseException as error:
            job.error = error
            raise
        finally:
            with self._changed:
                job.seconds = monotonic() - job.began_at
                self._changed.notify_all()
        self._by_future[id(job.future)] = job
        return job.future

    def _note_calls_of(self, name: str) -> None:
        method = getattr(self.backend, name)

        def noting(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            result = method(*args, **kwargs)
            if name == "configure":
                self.configured.append(result)
            return result

        setattr(self.backend, name, noting)

    def _note_results_of(self, name: str) -> None:
        method = getattr(self.backend, name)

        def noting(future: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(future, *args, **kwargs)
            job = self._by_future.get(id(future))
            if not isinstance(result, (Outcome, bytes, bytearray, memoryview)):
                self.brought.append(result)
            elif isinstance(result, Outcome) and job is not None:
                is_whole = len(result.values) == job.size or result.failures or result.is_blind
                if not is_whole and result.unclear is None:
                    self.short.append((len(result.values), job.size))
            return result

        setattr(self.backend, name, noting)


class _NotingReport:
    """Passes on what a backend reports."""

    def __init__(self, report: Report, lost: list[Any]) -> None:
        self._report = report
        self._lost = lost

    def started(self, future: Any) -> None:
        """See `parallel.backend.Report`."""
        self._report.started(future)

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        """See `parallel.backend.Report`."""
        self._lost.append(future)
        self._report.lost(future, exit_code, signal)


def _is_done(future: Any) -> bool:
    done, cancelled = getattr(future, "done", None), getattr(future, "cancelled", None)
    return callable(done) and bool(done()) and not (callable(cancelled) and cancelled())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _fail_for(faults: list[str]) -> None:
    if faults:
        pytest.fail("\n".join(faults))
