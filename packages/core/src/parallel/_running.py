"""Runs the tasks of a batch, in a worker process or in a worker thread of the caller's own process.

Nothing here raises: whatever a task does ends up inside the outcome.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from time import monotonic
from typing import Any, NamedTuple, Protocol

from parallel._board import BATCH, POSITION, PROCESS, STARTED, Slot
from parallel._context import Captured, restored
from parallel._current import CURRENT, Place
from parallel._inner_threads import CallThreads
from parallel._settings import ACTIVE, BUSY, Settings
from parallel._shared import is_any_known, unwrapped
from parallel._task import Failure, Job, Kind, Outcome

__all__ = [
    "NEVER",
    "LocalCall",
    "Run",
    "format_traceback",
    "process_name",
    "remote_failure",
    "run_args",
    "run_calls",
    "run_job",
]


class _Cancellable(Protocol):
    @property
    def cancelled(self) -> bool: ...


class _NeverCancelled:
    cancelled = False


NEVER = _NeverCancelled()


class Run(NamedTuple):
    """How to run the tasks of one batch."""

    stop_on_failure: bool
    budget_seconds: float | None
    cancellable: _Cancellable
    fail: Callable[[BaseException], Failure]
    batch_id: int
    #: Where to note what runs, or None.
    slot: Slot | None
    #: Where the results go.
    values: list[Any]
    #: What each task gets a copy of, to run in; None to run all in the context that there is.
    context: Context | None = None
    #: Given each result, gives what to keep of it for the time of the batch; None to keep it as it is.
    keep: Callable[[Any], Any] | None = None

    def begin(self) -> float:
        """Note that the batch was begun, give the time."""
        slot = self.slot
        if slot is not None:
            slot[STARTED] = math.inf
            slot[POSITION] = 0
            slot[PROCESS] = os.getpid()
            slot[BATCH] = self.batch_id  # last: what is read with this number is whole
        return monotonic()

    def end_of_budget(self, began: float) -> float:
        """Give when to stop: after `began`, however small the budget is, so that one task runs at least."""
        if self.budget_seconds is None:
            return math.inf
        return math.nextafter(began + self.budget_seconds, math.inf)

    def end(self, began: float, failures: dict[int, Failure]) -> Outcome:
        """Note that no task runs any more, and give the outcome."""
        if self.slot is not None:
            self.slot[STARTED] = math.inf
        return Outcome(self.values, failures, monotonic() - began)


class LocalCall(NamedTuple):
    """What the batches of a call share that run in the caller's process."""

    stop_on_failure: bool
    #: What each task has a copy of.
    context: Context
    #: Functions of plugins, with what they have captured.
    plugins: Sequence[tuple[Callable[..., Any], Any]]
    threads: CallThreads
    backend: str
    seed: Any

    @classmethod
    def of(
        cls,
        captured: Captured,
        nested: Settings,
        busy: frozenset[tuple[int, int]],
        *,
        stop_on_failure: bool,
        threads: CallThreads,
        backend: str,
        seed: Any,
    ) -> LocalCall:
        """Make it, with the settings for calls inside the tasks."""
        context = captured.context.copy() if captured.context is not None else Context()
        context.run(ACTIVE.set, nested)
        context.run(BUSY.set, busy)
        return cls(stop_on_failure, context, captured.plugins, threads, backend, seed)


def run_job(job: Job, local: LocalCall) -> Outcome:
    """Run a job in this process, on the original objects of its tasks."""
    process = os.getpid()
    context = local.context.copy()
    before = local.threads.begin_batch()
    try:
        return context.run(_run_batch, job, local, context)
    finally:
        if os.getpid() != process:
            os._exit(0)  # a child that a task forked and let go on: it must not take the place of a worker
        local.threads.end_batch(before)


def _run_batch(job: Job, local: LocalCall, context: Context) -> Outcome:
    batch = job.batch
    CURRENT.set(Place(batch.start, job.values, batch.attempts, batch.lane, local.backend, local.seed))
    run = Run(
        local.stop_on_failure,
        batch.budget_seconds,
        job,
        _local_failure,
        batch.batch_id,
        job.note,
        job.values,
        context,
    )
    if not local.plugins:
        return _run_tasks(job, run)
    try:
        with restored(local.plugins):
            return _run_tasks(job, run)
    except BaseException as error:
        return Outcome([], {}, 0.0, unclear=_local_failure(error))


def _run_tasks(job: Job, run: Run) -> Outcome:
    batch = job.batch
    if is_any_known():
        return run_calls([unwrapped(batch.call_at(position)) for position in range(len(batch))], run)
    if batch.kind is Kind.CALLS:
        return run_calls(batch.tasks, run)
    args: Iterable[Sequence[Any]] = zip(batch.tasks, strict=True) if batch.kind is Kind.ITEMS else batch.tasks
    function = batch.function
    assert function is not None
    return run_args(function, args, run)


# The two loops are the same but for the call. Written out, because a call through one more function would double what
# a task of a microsecond costs.


def run_calls(calls: Iterable[tuple[Callable[..., Any], Iterable[Any], dict[str, Any]]], run: Run) -> Outcome:
    stop_on_failure, _, cancellable, fail, _, slot, values, context, keep = run
    failures: dict[int, Failure] = {}
    began = now = run.begin()
    stop_at = run.end_of_budget(began)
    for function, args, kwargs in calls:
        if now >= stop_at or cancellable.cancelled:
            break
        if slot is not None:
            slot[STARTED] = now
            slot[POSITION] = len(values)
        try:
            if context is None:
                values.append(function(*args, **kwargs) if keep is None else keep(function(*args, **kwargs)))
            else:
                values.append(context.copy().run(function, *args, **kwargs))
        except BaseException as error:
            failures[len(values)] = fail(error)
            values.append(None)
            if stop_on_failure:
                break
        now = monotonic()
    try:
        return run.end(began, failures)
    finally:
        # Frames of tasks that failed lead here, for as long as the error lives.
        del failures, values, run, slot


def run_args(function: Callable[..., Any], args_of_tasks: Iterable[Sequence[Any]], run: Run) -> Outcome:
    stop_on_failure, _, cancellable, fail, _, slot, values, context, keep = run
    failures: dict[int, Failure] = {}
    began = now = run.begin()
    stop_at = run.end_of_budget(began)
    for args in args_of_tasks:
        if now >= stop_at or cancellable.cancelled:
            break
        if slot is not None:
            slot[STARTED] = now
            slot[POSITION] = len(values)
        try:
            if context is None:
                values.append(function(*args) if keep is None else keep(function(*args)))
            else:
                values.append(context.copy().run(function, *args))
        except BaseException as error:
            failures[len(values)] = fail(error)
            values.append(None)
            if stop_on_failure:
                break
        now = monotonic()
    try:
        return run.end(began, failures)
    finally:
        # Frames of tasks that failed lead here, for as long as the error lives.
        del failures, values, run, slot


def _local_failure(error: BaseException) -> Failure:
    # Without the frame of the loop above, which tells the user nothing; and it has the failure, so neither would be
    # freed before the garbage collector comes by.
    if error.__traceback__ is not None:
        BaseException.with_traceback(error, error.__traceback__.tb_next)  # not by assignment, which classes may refuse
    return Failure(error, None, threading.current_thread().name)


def remote_failure(error: BaseException) -> Failure:
    failure = Failure(error, format_traceback(error), process_name())
    BaseException.with_traceback(error, None)  # it does not travel, and keeps the arguments of the task alive
    return failure


def process_name() -> str:
    process = sys.modules.get("multiprocessing.process")
    name = process.current_process().name if process is not None else "process"
    return f"{name} (pid {os.getpid()})"


def format_traceback(error: BaseException) -> str:
    import traceback

    try:
        # The first frame is the loop above, which tells the user nothing.
        below = error.__traceback__.tb_next if error.__traceback__ is not None else None
        return "".join(traceback.format_exception(type(error), error, below))
    except BaseException as second:  # __str__ of a user's exception may do anything
        return f"{type(error).__qualname__} (no traceback: {type(second).__qualname__} while formatting it)\n"
