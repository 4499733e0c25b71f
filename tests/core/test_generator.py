"""Generators of results, whose calls have an owner thread of their own. The backend runs tasks in that thread."""

from __future__ import annotations

import contextvars
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import Parallel, delayed
from parallel._plan import WINDOW_BATCHES_PER_WORKER, WINDOW_TASKS
from parallel.errors import BackendError
from tests.core.fakes import HereBackend

OWNER = "parallel-call"


def owners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == OWNER]


def join_owners() -> None:
    for thread in owners():
        thread.join()


@pytest.fixture(autouse=True)
def no_owner_is_left() -> Iterator[None]:
    yield
    join_owners()


@pytest.fixture(params=["generator", "generator_unordered"])
def return_as(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def start(tasks: Any, return_as: str = "generator", backend: Any = None, **options: Any) -> Any:
    options = {"n_jobs": 2, "batch_size": 1, **options}
    return Parallel(backend=backend or HereBackend(), return_as=return_as, **options)(tasks)


def tasks_of(count: int) -> list[Any]:
    return [delayed(abs)(-i) for i in range(count)]


def closed(close: Callable[[], object]) -> list[str]:
    """The warnings of the owner about a generator that `close` ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        close()
        join_owners()
    return [str(warning.message) for warning in caught]


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_all_results_come_out_and_the_owner_ends(return_as: str, count: int) -> None:
    assert sorted(start(tasks_of(count), return_as)) == list(range(count))
    join_owners()
    assert owners() == []


def test_ordered_results_come_in_the_order_of_the_input() -> None:
    assert list(start(tasks_of(50), batch_size=3)) == list(range(50))


def test_the_call_begins_before_the_first_result_is_asked_for(return_as: str) -> None:
    has_run = threading.Event()
    results = start([delayed(has_run.set)()], return_as)
    has_run.wait()
    assert list(results) == [None]


def test_the_input_is_read_by_the_owner_in_the_context_of_the_caller(return_as: str) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("by the caller")
    seen: list[tuple[str, str]] = []

    def tasks() -> Iterator[Any]:
        seen.append((threading.current_thread().name, variable.get()))
        yield delayed(abs)(-1)

    assert list(start(tasks(), return_as)) == [1]
    assert seen == [(OWNER, "by the caller")]


def test_the_workers_are_given_back_before_the_generator_ends(return_as: str) -> None:
    backend = HereBackend()
    assert len(list(start(tasks_of(5), return_as, backend))) == 5
    assert backend.log == ["configure 2", "start_call", "stop_call", "terminate"]


def test_several_generators_may_run_at_a_time() -> None:
    first, second = start(tasks_of(5)), start(tasks_of(5))
    assert list(zip(first, second, strict=True)) == [(i, i) for i in range(5)]


# -- backpressure ------------------------------------------------------------------------------------------------------


def run_until_it_stops(return_as: str, n_tasks: int, **options: Any) -> tuple[Any, list[int]]:
    """Start a call whose consumer takes nothing; give it when the owner has nothing to do any more."""
    ran: list[int] = []
    has_stopped = threading.Event()

    class Backend(HereBackend):
        def submit(self, func: Any, callback: Any) -> Any:
            ran.extend(range(func.batch.start, func.batch.stop))
            if len(ran) >= expected:
                has_stopped.set()
            return super().submit(func, callback)

    n_jobs = options.get("n_jobs", 2)
    expected = min(WINDOW_BATCHES_PER_WORKER * n_jobs * options.get("batch_size", 1), WINDOW_TASKS)
    results = start(tasks_of(n_tasks), return_as, Backend(), **options)
    has_stopped.wait()
    return results, ran


def test_a_consumer_that_takes_nothing_stops_the_workers_after_some_batches(return_as: str) -> None:
    results, ran = run_until_it_stops(return_as, 1000, n_jobs=2)
    for taken, _ in enumerate(results, 1):
        assert len(ran) <= taken + WINDOW_BATCHES_PER_WORKER * 2
    assert len(ran) == 1000


def test_a_consumer_that_takes_nothing_stops_the_workers_after_some_tasks(return_as: str) -> None:
    results, ran = run_until_it_stops(return_as, 30_000, n_jobs=2, batch_size=4000)
    assert len(ran) <= WINDOW_TASKS
    assert len(list(results)) == 30_000


# -- failures ----------------------------------------------------------------------------------------------------------


def test_ordered_results_before_a_failure_come_out_before_it() -> None:
    results = start([*tasks_of(3), delayed(divmod)(1, 0), *tasks_of(3)])
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert "raised by task 3" in caught.value.__notes__[0]
    assert list(results) == []


def test_an_error_of_the_input_comes_to_the_consumer(return_as: str) -> None:
    def broken() -> Iterator[Any]:
        yield from tasks_of(2)
        raise LookupError("in the input")

    with pytest.raises(LookupError, match="in the input"):
        list(start(broken(), return_as))


def test_an_error_of_the_backend_comes_to_the_consumer(return_as: str) -> None:
    class Failing(HereBackend):
        def submit(self, func: Any, callback: Any) -> Any:
            raise OSError("no more")

    with pytest.raises(BackendError, match="no more"):
        list(start(tasks_of(5), return_as, Failing()))


def test_what_giving_the_workers_back_raises_comes_to_the_consumer(return_as: str) -> None:
    class Failing(HereBackend):
        def stop_call(self) -> None:
            raise LookupError("at the end")

    with pytest.raises(LookupError, match="at the end"):
        list(start(tasks_of(5), return_as, Failing()))


def test_an_exception_may_take_the_place_of_a_result(return_as: str) -> None:
    results = list(start([delayed(divmod)(1, 0), delayed(abs)(-1)], return_as, return_exceptions=True))
    assert {type(value) for value in results} == {ZeroDivisionError, int}


# -- early ends --------------------------------------------------------------------------------------------------------


def after_the_first(return_as: str = "generator", **options: Any) -> Any:
    """A generator that has given one of many results, and whose window is full behind that."""
    results, _ = run_until_it_stops(return_as, 1000, **options)
    next(results)
    return results


def test_closing_warns_once_and_tells_how_many_results_were_not_used(return_as: str) -> None:
    results = after_the_first(return_as)
    (text,) = closed(results.close)
    assert "closed before its end" in text
    unused = int(text.split(": ")[1].split()[0])
    assert 1 <= unused <= WINDOW_BATCHES_PER_WORKER * 2


def test_dropping_does_what_closing_does(return_as: str) -> None:
    holder = [after_the_first(return_as)]
    (text,) = closed(holder.clear)
    assert "results were computed and not used" in text


def test_an_exception_in_the_loop_of_the_consumer_ends_the_call() -> None:
    def consume() -> None:
        for _ in after_the_first():
            raise LookupError

    def fail() -> None:
        with pytest.raises(LookupError):
            consume()

    assert len(closed(fail)) == 1


def test_the_warning_points_to_where_the_call_was_made() -> None:
    results = after_the_first()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results.close()
        join_owners()
    (warning,) = caught
    assert warning.filename == __file__


def test_a_generator_that_was_used_up_is_no_reason_to_warn(return_as: str) -> None:
    def consume() -> None:
        assert len(list(start(tasks_of(5), return_as))) == 5

    assert closed(consume) == []


def test_a_generator_whose_results_were_all_used_is_no_reason_to_warn(return_as: str) -> None:
    def consume() -> None:
        results = start(tasks_of(5), return_as)
        assert len([next(results) for _ in range(5)]) == 5
        join_owners()
        results.close()

    assert closed(consume) == []


def test_closing_gives_the_workers_back(return_as: str) -> None:
    backend = HereBackend()
    results = start(tasks_of(1000), return_as, backend)
    closed(results.close)
    assert backend.log == ["configure 2", "start_call", "abort_everything False", "stop_call", "terminate"]


def test_closing_twice_warns_once() -> None:
    results = after_the_first()

    def close_twice() -> None:
        results.close()
        results.close()

    assert len(closed(close_twice)) == 1


def test_a_failure_that_nobody_asked_for_is_part_of_the_warning() -> None:
    def consume() -> None:
        results = start([*tasks_of(2), delayed(divmod)(1, 0)])
        next(results)
        join_owners()
        results.close()

    (text,) = closed(consume)
    assert "ZeroDivisionError" in text


def test_a_generator_may_be_dropped_by_its_own_owner() -> None:
    holder: list[Any] = []
    is_held = threading.Event()

    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        is_held.wait()
        holder.clear()  # runs the finaliser in the owner
        yield from tasks_of(5)

    def drop() -> None:
        holder.append(start(tasks()))
        is_held.set()

    assert len(closed(drop)) == 1


# -- one object, several calls -----------------------------------------------------------------------------------------


def test_a_second_call_while_a_generator_runs_is_an_error(return_as: str) -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend(), return_as=return_as)
    results = parallel(tasks_of(1000))
    with pytest.raises(RuntimeError, match="still running the generator"):
        parallel(tasks_of(1))
    assert len(list(results)) == 1000


def test_a_second_call_waits_for_a_generator_that_is_being_closed(return_as: str) -> None:
    backend = HereBackend()
    parallel = Parallel(n_jobs=2, backend=backend, return_as=return_as)

    def close_and_go_on() -> None:
        parallel(tasks_of(1000)).close()
        assert sorted(parallel(tasks_of(3))) == [0, 1, 2]

    closed(close_and_go_on)
    assert backend.log[4:6] == ["terminate", "configure 2"]


def test_a_second_call_may_follow_when_the_results_were_used_up(return_as: str) -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend(), return_as=return_as)
    for _ in range(3):
        assert sorted(parallel(tasks_of(3))) == [0, 1, 2]


def test_in_a_block_the_workers_stay(return_as: str) -> None:
    backend = HereBackend()
    with Parallel(n_jobs=2, backend=backend, return_as=return_as) as parallel:
        for _ in range(2):
            assert sorted(parallel(tasks_of(3))) == [0, 1, 2]
    assert [entry for entry in backend.log if "call" not in entry] == ["configure 2", "terminate"]


def test_the_end_of_a_block_ends_its_generator(return_as: str) -> None:
    results: list[Any] = []

    def leave() -> None:
        with Parallel(n_jobs=2, backend=HereBackend(), return_as=return_as, batch_size=1) as parallel:
            results.append(parallel(tasks_of(1000)))

    closed(leave)
    with pytest.raises(RuntimeError, match="block"):
        list(results[0])


# -- an interrupt while the owner is started ---------------------------------------------------------------------------


@pytest.mark.parametrize("has_begun", [True, False])
def test_an_interrupt_while_the_owner_is_started_gives_the_workers_back_once(
    has_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_start = threading.Thread.start
    late: list[threading.Thread] = []

    def start_interrupted(thread: threading.Thread) -> None:
        if thread.name != OWNER:
            real_start(thread)
            return
        if has_begun:
            real_start(thread)
            thread.join()  # or it would be for chance to say how far it has come
        else:
            late.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start_interrupted)
    backend = HereBackend()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            start(tasks_of(3), backend=backend)
    monkeypatch.undo()
    for thread in late:  # it may begin after all
        thread.start()
        thread.join()
    assert backend.log.count("terminate") == 1
    assert backend.log.count("stop_call") == 1
