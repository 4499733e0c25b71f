"""Calls with one worker: in the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import Parallel, Retry, _inline, delayed
from parallel._inline import InlinePolicy, run_in_caller
from parallel._retry import ONCE
from parallel._source import Source
from parallel.errors import CallTimeoutError, TaskExit, TaskTimeoutError


def run(
    tasks: Any,
    each: Callable[[], None] | None = None,
    *,
    task_seconds: float | None = None,
    call_seconds: float | None = None,
    retry: Retry = ONCE,
    return_exceptions: bool = False,
) -> Iterator[Any]:
    return run_in_caller(
        Source.of_calls(tasks), each, InlinePolicy(task_seconds, call_seconds, retry, return_exceptions)
    )


def fail_with(error: BaseException) -> Any:
    raise error


# Every behaviour holds whether or not there is a policy to look after.
PLAIN: dict[str, Any] = {}
POLICY: dict[str, Any] = {"retry": Retry(attempts=2, on=(LookupError,))}


@pytest.fixture(params=[PLAIN, POLICY], ids=["plain", "policy"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    given: dict[str, Any] = request.param
    return given


def test_tasks_run_one_after_the_other_in_the_calling_thread(options: dict[str, Any]) -> None:
    ran: list[int] = []

    def task(i: int) -> str:
        ran.append(i)
        return threading.current_thread().name

    names = list(run([delayed(task)(i) for i in range(3)], **options))
    assert names == [threading.current_thread().name] * 3
    assert ran == [0, 1, 2]


def test_a_task_runs_when_its_result_is_asked_for(options: dict[str, Any]) -> None:
    ran: list[int] = []
    results = run([delayed(ran.append)(i) for i in range(3)], **options)
    assert ran == []
    next(results)
    assert ran == [0]
    next(results)
    assert ran == [0, 1]


def test_the_input_is_read_one_task_at_a_time(options: dict[str, Any]) -> None:
    log: list[str] = []

    def tasks() -> Iterator[Any]:
        for i in range(2):
            log.append(f"read {i}")
            yield delayed(log.append)(f"run {i}")

    list(run(tasks(), **options))
    assert log == ["read 0", "run 0", "read 1", "run 1"]


def test_a_task_has_its_arguments(options: dict[str, Any]) -> None:
    def task(*args: int, **kwargs: int) -> Any:
        return args, kwargs

    assert list(run([delayed(task)(1, 2, x=3), delayed(task)()], **options)) == [((1, 2), {"x": 3}), ((), {})]


def test_each_task_is_counted_before_its_result_is_given(options: dict[str, Any]) -> None:
    counted: list[int] = []
    for i, _ in enumerate(run([delayed(abs)(1)] * 3, lambda: counted.append(1), **options)):
        assert len(counted) == i + 1


def test_a_failure_comes_through_as_itself_with_a_note(options: dict[str, Any]) -> None:
    error = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        list(run([delayed(abs)(1), delayed(fail_with)(error)], **options))
    assert caught.value is error
    (note,) = error.__notes__
    assert note == "raised by task 1 (fail_with) in the caller"


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_a_task_that_exits_is_a_failure(error: BaseException, options: dict[str, Any]) -> None:
    with pytest.raises(TaskExit, match=type(error).__name__) as caught:
        list(run([delayed(fail_with)(error)], **options))
    assert caught.value.__cause__ is error
    assert "raised by task 0" in caught.value.__notes__[0]


def test_ctrl_c_is_the_callers(options: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(run([delayed(fail_with)(KeyboardInterrupt())], **options))


def test_an_error_of_the_input_comes_through_without_a_note(options: dict[str, Any]) -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(1)
        raise LookupError("in the input")

    results = run(tasks(), **options)
    next(results)
    with pytest.raises(LookupError, match="in the input") as caught:
        next(results)
    assert not hasattr(caught.value, "__notes__")


def test_what_is_no_task_is_a_type_error_when_it_is_reached(options: dict[str, Any]) -> None:
    results = run([delayed(abs)(-1), abs], **options)
    assert next(results) == 1
    with pytest.raises(TypeError, match="task 1 of the input"):
        next(results)


# -- by a policy -------------------------------------------------------------------------------------------------------


class Flaky:
    """Fails so many times."""

    def __init__(self, failures: int, error: type[BaseException] = LookupError) -> None:
        self.left = failures
        self.error = error

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error("again")
        return "done"


def test_a_task_is_tried_again_as_often_as_it_may() -> None:
    assert list(run([delayed(Flaky(2))()], retry=Retry(attempts=3))) == ["done"]
    with pytest.raises(LookupError) as caught:
        list(run([delayed(Flaky(3))()], retry=Retry(attempts=3)))
    assert caught.value.__notes__[-1] == "this was attempt 3 of 3"


def test_only_what_the_policy_names_is_tried_again() -> None:
    task = Flaky(1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        list(run([delayed(task)()], retry=Retry(attempts=3, on=(LookupError,))))
    assert task.left == 0


def test_between_attempts_there_is_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    class Event:
        def wait(self, seconds: float) -> None:
            waited.append(seconds)

    class Threading:
        pass

    Threading.Event = Event  # type: ignore[attr-defined]
    monkeypatch.setattr(_inline, "threading", Threading)
    list(run([delayed(Flaky(2))()], retry=Retry(attempts=3, backoff_seconds=0.5)))
    assert waited == [0.5, 1.0]


def test_an_exception_may_take_the_place_of_a_result() -> None:
    error, exit_error = LookupError(), SystemExit(1)
    tasks = [delayed(abs)(-1), delayed(fail_with)(error), delayed(fail_with)(exit_error), delayed(abs)(-2)]
    assert list(run(tasks, return_exceptions=True)) == [1, error, exit_error, 2]


def at(times: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    remaining = iter(times)
    monkeypatch.setattr(_inline, "monotonic", lambda: next(remaining))


def test_a_task_that_took_too_long_is_late_once_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    at([0.0, 10.0, 13.5], monkeypatch)
    with pytest.raises(TaskTimeoutError) as caught:
        list(run([delayed(abs)(1)], task_seconds=3.0))
    error = caught.value
    assert (error.task_index, error.function, error.limit_seconds, error.ran_seconds) == (0, "abs", 3.0, 3.5)


def test_a_task_that_took_its_time_exactly_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    at([0.0, 10.0, 13.0, 13.0], monkeypatch)
    assert list(run([delayed(abs)(-1)], task_seconds=3.0)) == [1]


def test_a_call_that_took_too_long_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    at([0.0, 0.0, 1.0, 1.0, 1.0, 6.0, 6.0], monkeypatch)
    results = run([delayed(abs)(-1), delayed(abs)(-2)], call_seconds=5.0)
    assert next(results) == 1
    with pytest.raises(CallTimeoutError, match="limit of 5 s"):
        next(results)


class Failing:
    """Fails every time, one second after it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.attempts = 0
        self.waited: list[float] = []
        monkeypatch.setattr(_inline, "monotonic", lambda: self.now)
        monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: self.wait(seconds))

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    def __call__(self) -> None:
        self.attempts += 1
        self.now += 1.0
        raise LookupError(f"attempt {self.attempts}")


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_a_call_is_late_between_two_attempts(return_exceptions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Failing(monkeypatch)
    with pytest.raises(CallTimeoutError, match="limit of 5 s") as caught:
        list(run([delayed(task)()], call_seconds=5.0, retry=Retry(attempts=1000), return_exceptions=return_exceptions))
    assert task.attempts == 6
    assert caught.value.ran_seconds == 6.0


def test_a_call_does_not_wait_for_an_attempt_that_would_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Failing(monkeypatch)
    with pytest.raises(CallTimeoutError, match=r"limit of 4\.5 s"):
        list(run([delayed(task)()], call_seconds=4.5, retry=Retry(attempts=1000, backoff_seconds=1.0)))
    assert task.waited == [1.0]  # then it is three seconds, and the next delay is of two
    assert task.attempts == 2


# -- from the outside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_one_job_needs_no_worker(return_as: str) -> None:
    here = threading.current_thread().name
    results = Parallel(n_jobs=1, return_as=return_as)(delayed(lambda: threading.current_thread().name)() for _ in "ab")
    assert list(results) == [here] * 2


def test_a_generator_of_one_job_runs_a_task_in_each_next() -> None:
    ran: list[int] = []
    results = Parallel(n_jobs=1, return_as="generator").map(ran.append, range(3))
    assert ran == []
    next(results)
    assert ran == [0]


def test_dropping_a_generator_of_one_job_says_nothing_and_frees_the_object() -> None:
    parallel = Parallel(n_jobs=1, return_as="generator")
    results = parallel.map(abs, range(3))
    next(results)
    with pytest.raises(RuntimeError, match="still running"):
        parallel.map(abs, range(3))
    del results
    assert list(parallel.map(abs, [-1])) == [1]


def test_a_list_that_fails_carries_the_results_before() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(n_jobs=1).map(lambda i: 4 // i, [1, 2, 0, 4])
    assert caught.value.partial_results == {0: 4, 1: 2}  # type: ignore[attr-defined]


def test_progress_is_told_after_each_task() -> None:
    seen: list[int] = []

    class Bar(Parallel):
        def print_progress(self) -> None:
            seen.append(self.n_completed_tasks)

    Bar(n_jobs=1).map(abs, range(3))
    for _ in Bar(n_jobs=1, return_as="generator").map(abs, range(2)):
        pass
    assert seen == [1, 2, 3, 1, 2]


def test_an_empty_input_has_no_results() -> None:
    assert Parallel(n_jobs=1)([]) == []
    assert list(Parallel(n_jobs=1, return_as="generator")([])) == []
