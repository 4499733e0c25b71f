from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from parallel import _quick
from parallel._board import new_slot
from parallel._quick import Alarm, is_worth_it
from parallel._running import NEVER, Run, remote_failure, run_args
from parallel._task import Outcome

EACH_COUNT = [1, 2, 32, 500]


class Signalling(list[Any]):
    """A list that tells when it was emptied."""

    def __init__(self, *values: Any) -> None:
        super().__init__(values)
        self.is_empty = threading.Event()

    def clear(self) -> None:
        super().clear()
        self.is_empty.set()


class HeldAlarm(Alarm):
    """The test says when it goes off."""

    goes_off_at_once = False
    can_be_set = True

    def set(self, values: list[Any], at: float) -> bool:
        self._list, self.at = values, at
        if self.goes_off_at_once:
            self.go_off()
        return self.can_be_set

    def cancel(self) -> None:
        pass


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> HeldAlarm:
    alarm = HeldAlarm()
    monkeypatch.setattr(_quick, "_alarm", alarm)
    return alarm


def make_run(
    *, budget: float | None = None, stop_on_failure: bool = True, slot: Any = None, context: Any = None
) -> Run:
    return Run(stop_on_failure, budget, NEVER, remote_failure, 0, slot, [], context)


def seen(outcome: Outcome) -> Any:
    failures = {at: (type(found.exception), str(found.exception)) for at, found in outcome.failures.items()}
    return outcome.values, failures


# -- the loop ----------------------------------------------------------------------------------------------------------


def add(a: int, b: int = 0, c: int = 0) -> int:
    return a + b * c


@pytest.mark.parametrize("count", EACH_COUNT)
@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_results_are_those_of_the_exact_loop(count: int, n_columns: int) -> None:
    columns = [range(count), tuple(range(count)), list(range(count))][:n_columns]
    expected = run_args(add, zip(*columns, strict=True), make_run())
    assert seen(_quick.run_columns(add, columns, make_run())) == seen(expected)


@pytest.mark.parametrize("stop_on_failure", [True, False])
@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("n_columns", [1, 2])
def test_failures_are_those_of_the_exact_loop(kind: type[BaseException], stop_on_failure: bool, n_columns: int) -> None:
    def fail(i: int, _: int = 0) -> int:
        if i % 7 == 3:
            raise kind(i)
        return i

    columns = [range(40)] * n_columns
    expected = run_args(fail, zip(*columns, strict=True), make_run(stop_on_failure=stop_on_failure))
    found = _quick.run_columns(fail, columns, make_run(stop_on_failure=stop_on_failure))
    assert seen(found) == seen(expected)
    assert len(found.values) == (4 if stop_on_failure else 40)


def test_the_traceback_of_a_failure_begins_with_the_task() -> None:
    def fail(i: int) -> None:
        raise ValueError(i)

    (failure,) = _quick.run_columns(fail, [range(1)], make_run()).failures.values()
    assert failure.traceback_text is not None
    assert "in fail" in failure.traceback_text.splitlines()[1]
    assert "run_columns" not in failure.traceback_text


@pytest.mark.parametrize("n_columns", [1, 2])
def test_when_the_alarm_goes_off_the_task_under_way_is_the_last(alarm: HeldAlarm, n_columns: int) -> None:
    def task(i: int, _: int = 0) -> int:
        if i == 3:
            alarm.go_off()
        return i

    outcome = _quick.run_columns(task, [list(range(100))] * n_columns, make_run(budget=1.0))
    assert seen(outcome) == ([0, 1, 2, 3], {})


@pytest.mark.parametrize("n_columns", [1, 2])
def test_one_task_runs_however_early_the_alarm_goes_off(alarm: HeldAlarm, n_columns: int) -> None:
    alarm.goes_off_at_once = True
    outcome = _quick.run_columns(add, [list(range(5, 100))] * n_columns, make_run(budget=0.0))
    assert seen(outcome) == ([5], {})


def test_a_failed_task_does_not_run_again_when_the_alarm_goes_off(alarm: HeldAlarm) -> None:
    ran = []

    def fail(i: int) -> None:
        ran.append(i)
        alarm.go_off()
        raise ValueError(i)

    outcome = _quick.run_columns(fail, [range(50)], make_run(budget=1.0, stop_on_failure=False))
    assert ran == [0]
    assert len(outcome.values) == len(outcome.failures) == 1


def test_the_alarm_is_set_to_the_end_of_the_budget(alarm: HeldAlarm) -> None:
    before = monotonic()
    _quick.run_columns(add, [range(50)], make_run(budget=100.0))
    assert before + 100 <= alarm.at <= monotonic() + 100.001


def test_without_a_budget_there_is_no_alarm(alarm: HeldAlarm) -> None:
    _quick.run_columns(add, [range(50)], make_run())
    assert not hasattr(alarm, "at")


@pytest.mark.parametrize("n_columns", [1, 2])
def test_where_the_alarm_cannot_be_set_the_clock_is_looked_at(alarm: HeldAlarm, n_columns: int) -> None:
    alarm.can_be_set = False
    outcome = _quick.run_columns(add, [range(5, 50)] * n_columns, make_run(budget=0.0))
    assert len(outcome.values) == 1


def kill_self(libc: Any) -> type[int]:
    """Make a number whose attribute sends a signal from C, so that the handler does not run before the task is over."""
    return type("Sender", (int,), {"now": property(functools.partial(libc.kill, os.getpid()))})


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal by way of the C library")
@pytest.mark.parametrize("stop_on_failure", [True, False])
@pytest.mark.parametrize("at", [0, 10, 39])
@pytest.mark.parametrize("n_columns", [1, 2])
def test_the_exception_of_a_signal_handler_moves_no_result(at: int, stop_on_failure: bool, n_columns: int) -> None:
    def handle(*_: Any) -> None:
        raise TimeoutError("late")

    before = signal.signal(signal.SIGUSR1, handle)
    number: Any = kill_self(ctypes.CDLL(None))(signal.SIGUSR1)
    try:

        def task(i: int, _: int = 0) -> Any:
            return number.now if i == at else i

        outcome = _quick.run_columns(task, [range(40)] * n_columns, make_run(stop_on_failure=stop_on_failure))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(outcome.failures) == [at]
    expected: list[Any] = list(range(at + 1 if stop_on_failure else 40))
    expected[at] = None
    assert outcome.values == expected


def test_arguments_are_not_kept() -> None:
    class Argument:
        pass

    argument = Argument()
    before = sys.getrefcount(argument)
    _quick.run_columns(lambda a: None, [[argument] * 50], make_run(budget=1000.0))
    assert sys.getrefcount(argument) == before


@pytest.mark.parametrize(
    ("function", "n_tasks", "more"),
    [
        (len, 100, {}),
        (str.upper, 100, {}),
        (Alarm, 100, {}),
        (add, 31, {}),
        (add, 100, {"slot": new_slot()}),
        (add, 100, {"context": object()}),
    ],
)
def test_other_batches_are_for_the_exact_loop(function: Callable[..., Any], n_tasks: int, more: dict[str, Any]) -> None:
    assert is_worth_it(add, 100, make_run())
    assert not is_worth_it(function, n_tasks, make_run(**more))


# -- the alarm ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Alarm:
    return Alarm()


def emptied(values: Signalling) -> bool:
    return values.is_empty.wait(60) and not values


def test_a_list_is_emptied_when_its_time_has_come(real: Alarm) -> None:
    for _ in range(3):
        values = Signalling(1, 2)
        assert real.set(values, monotonic() + 0.001)
        assert emptied(values)
        real.cancel()


def test_a_list_whose_time_is_sooner_than_that_of_the_last_is_not_late(real: Alarm) -> None:
    late, soon = Signalling(1), Signalling(2)
    assert real.set(late, monotonic() + 3600)
    real.cancel()
    assert real.set(soon, monotonic())
    assert emptied(soon)
    assert late == [1]


def test_a_list_that_was_cancelled_stays_as_it_is() -> None:
    now = 0.0
    alarm = Alarm(lambda: now)
    kept, other = Signalling(1), Signalling(2)
    assert alarm.set(kept, 3600.0)
    alarm.cancel()
    now = 4000.0
    assert alarm.set(other, 10.0)
    assert emptied(other)
    assert kept == [1]


def test_it_is_found_asleep_again_and_again(real: Alarm) -> None:
    for _ in range(200):
        values = Signalling(1)
        assert real.set(values, monotonic())
        assert emptied(values)
        real.cancel()


def test_two_threads_cannot_set_it_at_a_time(real: Alarm) -> None:
    first, second = Signalling(1), Signalling(2)
    assert real.set(first, monotonic() + 3600)
    assert not real.set(second, monotonic())
    real.cancel()
    assert real.set(second, monotonic())
    assert emptied(second)
    assert first == [1]


def test_where_no_thread_can_be_started_it_cannot_be_set(real: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    values = Signalling(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not real.set(values, monotonic())
    assert real.set(values, monotonic())
    assert emptied(values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_has_one_of_its_own_and_ends_what_its_parent_does() -> None:
    left = [1, 2, 3]
    assert _quick._alarm.set(left, monotonic() + 3600)
    child = os.fork()
    if child == 0:
        values = Signalling(1)
        is_set = _quick._alarm.set(values, monotonic())
        os._exit(0 if is_set and emptied(values) and not left else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert left == [1, 2, 3]
    _quick._alarm.cancel()


def test_where_threads_wait_long_for_the_interpreter_the_clock_is_looked_at() -> None:
    before = sys.getswitchinterval()
    assert is_worth_it(add, 100, make_run())
    sys.setswitchinterval(1.0)
    try:
        assert not is_worth_it(add, 100, make_run())
    finally:
        sys.setswitchinterval(before)
