"""Runs the tasks of a batch in a worker process without a look at the clock after each.

A batch must end when its time budget is used up, and to read the clock takes longer than to call a no-op. Here the loop
goes over a list that an alarm, in a thread of its own, empties at that time: the task under way is the last.

That thread gets to it when the task under way lets go of the interpreter: after 5 ms (`sys.getswitchinterval`), or when
the next task begins at the latest, because functions written in Python ask then whether another thread waits. Those
written in C do not, so batches of them are run by the loops of `_running`.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from types import FunctionType
from typing import Any

from parallel._running import NEVER, Run, run_args
from parallel._task import Failure, Outcome

__all__ = ["Alarm", "is_worth_it", "run_columns"]

#: A batch of fewer tasks does not pay for the alarm.
MIN_TASKS = 32

#: If threads have to wait longer for the interpreter, because a task wanted it so, the alarm comes too late.
MAX_SWITCH_SECONDS = 0.05


class Alarm:
    """Empties a list at a given time, unless that is cancelled before. Serves one thread at a time.

    Its own thread starts with the first list, and sleeps until the time that it knew when it fell asleep: while batch
    follows batch, nothing has to wake it up for each.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._list: list[Any] | None = None
        self._at = math.inf
        #: Until when the thread sleeps.
        self._until = -math.inf
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._is_running = False
        # Held from `set` to `cancel`.
        self._user = threading.Lock()

    def set(self, values: list[Any], at: float) -> bool:
        """Empty a list at this time. False if that cannot be done: another thread has set it, or none can be started.

        Does not block. To be followed by `cancel` if it can.
        """
        if not self._user.acquire(blocking=False):
            return False
        self._at = at
        self._list = values
        if not self._is_running:
            try:
                threading.Thread(target=self._run, name="parallel-alarm", daemon=True).start()
            except RuntimeError:  # the system has no thread left
                self.cancel()
                return False
            self._is_running = True
        elif at < self._until:
            self._until = at
            self._calls.put(None)
        return True

    def cancel(self) -> None:
        """Leave the list as it is."""
        self._list = None
        self._user.release()

    def go_off(self) -> None:
        """Empty the list now, if there is one."""
        values = self._list
        if values is not None:
            values.clear()

    def _run(self) -> None:
        while True:
            values, at = self._list, self._at
            is_due = values is not None and at <= self._clock()
            if is_due and values:
                values.clear()
            self._until = until = math.inf if values is None or is_due else at
            # What is set from here on, by one who sees until when this sleeps, comes with a call if that is too long.
            is_asleep = self._list is values
            del values  # the owner may be done with it meanwhile
            if is_asleep:
                with contextlib.suppress(Empty):
                    self._calls.get(timeout=None if until == math.inf else max(until - self._clock(), 0.0))
            self._until = -math.inf


_alarm = Alarm()


def _forget() -> None:
    # In a forked child, which has not got the thread. It may be in the middle of a batch, which is its parent's.
    global _alarm
    _alarm.go_off()
    _alarm = Alarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def is_worth_it(function: object, n_tasks: int, run: Run) -> bool:
    """Tell whether `run_columns` is for a batch: nobody wants to know when each of its tasks begins."""
    is_free = run.slot is None and run.context is None and run.cancellable is NEVER
    is_heard = sys.getswitchinterval() <= MAX_SWITCH_SECONDS
    return is_free and is_heard and n_tasks >= MIN_TASKS and type(function) is FunctionType


def run_columns(function: Callable[..., Any], columns: Sequence[Sequence[Any]], run: Run) -> Outcome:
    """Call a function with an item of each column, as `run_args` does; there is one column at least."""
    values = run.values
    failures: dict[int, Failure] = {}
    first, *others = columns
    left = list(first)
    taken = iter(left)
    tasks: Iterator[Any] = zip(taken, *others, strict=False) if others else taken
    began = run.begin()
    stop_at = run.end_of_budget(began)
    alarm = _alarm if stop_at < math.inf else None
    if alarm is not None and not alarm.set(left, stop_at):
        return run_args(function, zip(*columns, strict=True), run)
    try:
        while True:
            try:
                if others:
                    for args in tasks:
                        values.append(function(*args))
                else:
                    for item in tasks:
                        values.append(function(item))
            except BaseException as error:
                # One that does not come from the task, but from a handler of a signal, may come after its result, or
                # before the first task was taken.
                n_taken = _count(taken, len(values))
                if not n_taken:
                    next(tasks, None)
                position = max(n_taken, 1) - 1
                failures[position] = run.fail(error)
                values[position:] = [None]
                if run.stop_on_failure:
                    break
            else:
                if values:
                    break
                # Emptied before the first began, which is to run however small the budget is.
                taken = iter(list(first[:1]))
                tasks = zip(taken, *(column[:1] for column in others), strict=True) if others else taken
        return run.end(began, failures)
    finally:
        if alarm is not None:
            alarm.cancel()
        left.clear()  # the alarm may have it for a while
        # Frames of tasks that failed lead here, for as long as the error lives.
        del failures, values, run, taken, tasks, left


def _count(taken: Iterator[Any], otherwise: int) -> int:
    """Tell how many items an iterator over a list has given, also if the list was emptied meanwhile."""
    state: Any = taken.__reduce__()  # as copy and pickle do
    return int(state[2]) if len(state) == 3 else otherwise
