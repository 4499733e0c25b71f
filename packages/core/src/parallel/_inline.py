"""How a call runs that has one worker: in the caller, task by task, as results are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import Any, NamedTuple

from parallel import errors
from parallel._current import CURRENT, Place
from parallel._explain import keep_partial, name_task, raisable
from parallel._progress import Progress
from parallel._retry import Attempts, Retry
from parallel._shared import is_any_known, unwrapped
from parallel._source import Source
from parallel._task import describe_function

__all__ = ["InlineCalls", "InlinePolicy", "run_in_caller"]


class InlinePolicy(NamedTuple):
    """What of the settings of `Parallel` matters here; limits are seen to when a task returns, nobody can end it."""

    task_seconds: float | None
    call_seconds: float | None
    retry: Retry
    return_exceptions: bool
    seed: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether a task just runs, and its failure ends the call."""
        return (
            self.task_seconds is None
            and self.call_seconds is None
            and self.retry.attempts == 1
            and not self.return_exceptions
        )


class InlineCalls:
    """The calls of one `Parallel` that run in their caller: keeps its counters.

    Parameters
    ----------
    parallel
        Whose counters and `print_progress`.
    """

    def __init__(self, parallel: Progress) -> None:
        self._parallel = parallel
        #: Whether a generator is under way.
        self.is_generating = False

    def run_list(self, source: Source, policy: InlinePolicy, prints: bool) -> list[Any]:
        """Run all tasks and give their results."""
        values: list[Any] = []
        place = Place(-1, (), None, 0, "sequential", policy.seed)
        place.outer = CURRENT.get()
        token = CURRENT.set(place)
        try:
            values.extend(run_in_caller(source, self._count if prints else None, policy, place))
        except BaseException as error:
            keep_partial(error, dict(enumerate(values)))
            raise
        finally:
            CURRENT.reset(token)
        self._parallel.n_completed_tasks = self._parallel.n_dispatched_tasks = len(values)
        self._tell_end(prints)
        return values

    def generate(self, source: Source, policy: InlinePolicy, prints: bool) -> Generator[Any, None, None]:
        """Give a generator that runs each task when its result is asked for."""
        results = self._generate(run_in_caller(source, self._count, policy), prints)
        next(results)  # up to its first yield: from here on it is running, and dropping it ends that
        return results

    def _generate(self, results: Iterator[Any], prints: bool) -> Generator[Any, None, None]:
        self.is_generating = True
        try:
            yield None
            yield from results
            self._tell_end(prints)
        finally:
            self.is_generating = False

    def _tell_end(self, prints: bool) -> None:
        if self._parallel.n_tasks is None:
            self._parallel.n_tasks = self._parallel.n_completed_tasks  # only now known, for the last line
            if prints:
                self._parallel.print_progress()

    def _count(self) -> None:
        self._parallel.n_dispatched_tasks += 1
        self._parallel.n_completed_tasks += 1
        self._parallel.print_progress()


def run_in_caller(
    source: Source, each: Callable[[], None] | None, policy: InlinePolicy, place: Place | None = None
) -> Iterator[Any]:
    """Yield the results of all tasks, each run when it is asked for, in the thread that asks.

    Parameters
    ----------
    source
        The input.
    each
        Called after each task, or None.
    policy
        Limits and what to do about failures.
    place
        What `CURRENT` is set to already; None to set it for each task: who asks for results is not in this call.
    """
    if not policy.is_plain:
        yield from _run_by_policy(source, each, policy)
        return
    is_set = place is not None
    place = place or Place(-1, (), None, 0, "sequential", policy.seed)
    for index, task in enumerate(source):
        function, args, kwargs = unwrapped(task) if is_any_known() else task
        place.start = index
        token = None if is_set else CURRENT.set(place)
        try:
            value = function(*args, **kwargs)
        except KeyboardInterrupt:
            raise  # Ctrl-C: here it cannot be told from a task's own, and stopping is what it asks for
        except BaseException as error:
            name_task(error, index, function, "the caller")
            shown = raisable(error)
            if shown is error:
                raise
            raise shown from error
        finally:
            place.start = -1  # the input is not in this call either
            if token is not None:
                CURRENT.reset(token)
        if each is not None:
            each()
        yield value


def _run_by_policy(source: Source, each: Callable[[], None] | None, policy: InlinePolicy) -> Iterator[Any]:
    attempts = Attempts(policy.retry)
    begin = monotonic()
    for index, task in enumerate(source):
        function, args, kwargs = unwrapped(task) if is_any_known() else task
        value = _attempt(index, function, args, kwargs, attempts, policy, begin)
        _check_call(policy, begin)
        if each is not None:
            each()
        yield value


def _check_call(policy: InlinePolicy, call_began: float, wait_seconds: float = 0.0) -> None:
    """Raise if the call is late, or would be after waiting so long."""
    ran_seconds = monotonic() - call_began
    if policy.call_seconds is not None and ran_seconds + wait_seconds > policy.call_seconds:
        raise errors.CallTimeoutError(
            f"the call passed its limit of {policy.call_seconds:g} s: it had run for {ran_seconds:.3f} s",
            backend="the caller",
            limit_seconds=policy.call_seconds,
            ran_seconds=ran_seconds,
        )


def _attempt(
    index: int,
    function: Any,
    args: Any,
    kwargs: Any,
    attempts: Attempts,
    policy: InlinePolicy,
    call_began: float,
) -> Any:
    while True:
        begin = monotonic()
        token = CURRENT.set(Place(index, (), {index: attempts.attempts(index)}, 0, "sequential", policy.seed))
        try:
            value = function(*args, **kwargs)
            ran_seconds = monotonic() - begin
            if policy.task_seconds is None or ran_seconds <= policy.task_seconds:
                return value
            raise errors.TaskTimeoutError(
                f"task {index} ({describe_function(function)}) passed its limit of {policy.task_seconds:g} s: it ran "
                f"for {ran_seconds:.3f} s (in the caller, where it cannot be ended before it returns)",
                task_index=index,
                function=describe_function(function),
                backend="the caller",
                limit_seconds=policy.task_seconds,
                ran_seconds=ran_seconds,
            )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            name_task(error, index, function, "the caller")
            delay = attempts.fail(index, error)
            if delay is None:
                if policy.return_exceptions:
                    return error
                shown = raisable(error)
                if shown is error:
                    raise
                raise shown from error
        finally:
            CURRENT.reset(token)
        _check_call(policy, call_began, delay)
        if delay > 0:
            threading.Event().wait(delay)  # there is nothing else to do here; workers, if there were some, would go on
