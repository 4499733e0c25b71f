"""Turns what went wrong into the error that the caller gets: says which task, where, and how often it was tried."""

from __future__ import annotations

import contextlib
import warnings

from parallel._failures import safe_text
from parallel._task import Batch, Failure, Outcome, describe_function
from parallel.errors import (
    BackendError,
    RemoteTraceback,
    TaskExit,
    TaskPicklingError,
    WorkerLostError,
    annotate,
    set_cause,
)

__all__ = [
    "backend_error",
    "ended_error",
    "keep_partial",
    "lost_error",
    "name_task",
    "out_of_reach",
    "raisable",
    "task_error",
    "tasks_text",
    "unclear_error",
    "warn_given_up",
]


def tasks_text(indices: range) -> str:
    """Name tasks: ``task 3``, ``tasks 3 to 7``."""
    return f"task {indices.start}" if len(indices) == 1 else f"tasks {indices.start} to {indices.stop - 1}"


def name_task(error: BaseException, index: int, function: object, where: str) -> None:
    """Add a note that says which task raised the exception, and where it ran."""
    annotate(error, f"raised by task {index} ({describe_function(function)}) in {where}")


def task_error(batch: Batch, position: int, failure: Failure, backend_name: str) -> BaseException:
    """Give the exception of a task: its own, with the remote traceback as its cause, and a note."""
    error = failure.exception
    if failure.traceback_text is not None:
        set_cause(error, RemoteTraceback(failure.traceback_text))
    where = f"worker {failure.worker} of " if failure.worker else ""
    name_task(error, batch.start + position, batch.call_at(position)[0], f"{where}backend {backend_name!r}")
    return error


def unclear_error(batch: Batch, failure: Failure, backend_name: str) -> BaseException:
    """Give the error of a batch that failed because of one of its tasks, nobody knows which."""
    error = failure.exception
    if len(batch) == 1:
        if type(error) is TaskPicklingError:
            error.task_index = batch.start
        return task_error(batch, 0, failure, backend_name)
    if failure.traceback_text is not None:
        set_cause(error, RemoteTraceback(failure.traceback_text))
    where = f"worker {failure.worker} of " if failure.worker else ""
    annotate(error, f"one of the {tasks_text(batch.indices)}, in {where}backend {backend_name!r}")
    return error


def raisable(error: BaseException) -> BaseException:
    """Wrap what would mean something else if it were raised in the caller: ``sys.exit`` in a task is its failure."""
    if not issubclass(type(error), (SystemExit, KeyboardInterrupt, GeneratorExit)):
        return error
    wrapped = TaskExit(f"a task raised {type(error).__name__}: {safe_text(error)}")
    with contextlib.suppress(Exception):  # a class of the user's may do anything
        for note in error.__notes__ or ():
            wrapped.add_note(note)
    wrapped.__cause__ = error
    return wrapped


def backend_error(backend_name: str, verb: str, indices: range, error: BaseException) -> BackendError:
    """Make an error of what a backend raised, if that is not one of ours."""
    if isinstance(error, BackendError):
        return error
    failure = BackendError(
        f"the backend {backend_name!r} {verb} {tasks_text(indices)}: {type(error).__name__}: {error}",
        backend=backend_name,
        task_indices=indices,
    )
    failure.__cause__ = error
    return failure


def ended_error(backend_name: str, exit_code: int | None, signal: int | None) -> WorkerLostError:
    """Say how a worker ended."""
    how = f"signal {signal}" if signal is not None else f"exit code {exit_code}"
    text = f"a worker of the backend {backend_name!r} ended ({how})"
    return WorkerLostError(text, exit_code=exit_code, signal=signal)


def lost_error(backend_name: str, indices: range, error: WorkerLostError) -> WorkerLostError:
    """Say of a lost worker which tasks it had; one error of a backend may stand for several batches."""
    failure = WorkerLostError(
        f"{error.message} (it had {tasks_text(indices)})",
        backend=backend_name,
        task_indices=indices,
        exit_code=error.exit_code,
        signal=error.signal,
        is_culprit_unclear=error.is_culprit_unclear,
    )
    failure.__cause__ = error.__cause__
    return failure


def out_of_reach(batch: Batch) -> Outcome:
    """Make the outcome of a batch that a worker could not run, though all of it went through the pipe."""
    text = "an object that was shared cannot be had in the worker: was it closed meanwhile?"
    return Outcome([], {}, 0.0, unclear=Failure(TaskPicklingError(text, task_index=batch.start, path="")))


def keep_partial(error: BaseException, results: dict[int, object]) -> None:
    """Let the exception of a list call carry the results that had arrived, by index, as `partial_results`."""
    with contextlib.suppress(Exception):  # a class of the user's may refuse attributes
        error.partial_results = results  # type: ignore[attr-defined]


def warn_given_up(backend_name: str, count: int, n_stuck: int) -> None:
    """Warn of tasks that nobody could end, at the call that the owner has run."""
    warnings.warn(
        f"tasks that passed the time limit on the backend {backend_name!r}, which cannot end a task that "
        f"runs: {count}, of which {n_stuck} still hold their thread or worker",
        RuntimeWarning,
        stacklevel=3,
    )
