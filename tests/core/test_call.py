"""The driver of a call, in one thread: the world moves on when the driver waits for something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from parallel import _call as module
from parallel import delayed
from parallel._batching import FixedBatching
from parallel._call import Call
from parallel._carrier import CallCarrier
from parallel._limits import Limits
from parallel._results import OrderedResults
from parallel._retry import ONCE, Retry
from parallel._scheduler import Faults, Scheduler, Window
from parallel._sight import Sight
from parallel._source import Source
from parallel._task import Batch, Failure, Outcome
from parallel.backend import ParallelBackendBase, WorkerLostError
from parallel.errors import (
    BackendContractError,
    BackendError,
    RemoteTraceback,
    ResultPicklingError,
    TaskExit,
    TaskPicklingError,
)
from tests.core.fakes import Future, HereBackend, carrier_of


class ManualBackend(HereBackend):
    """Keeps what is submitted until the test completes it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Future] = []
        self.n_submitted = 0
        self.completed: list[tuple[int, float]] = []
        self.killed: list[Any] = []

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
        self.n_submitted += 1
        future = Future(func, callback)
        self.waiting.append(future)
        return future

    def retrieve_result_callback(self, future: Any) -> Any:
        return self.run(future.job)

    def batch_completed(self, batch_size: int, duration: float) -> None:
        self.completed.append((batch_size, duration))

    def kill(self, future: Any) -> None:
        self.killed.append(future)

    def complete(self, number: int = 0) -> Future:
        """Let a batch come back, the one that waits longest if nothing else is said."""
        future = self.waiting.pop(number)
        future.is_done = True
        future.callback(future)
        return future


class World:
    """A call, its backend, and what happens while the call waits: one of `moves` at a time."""

    def __init__(
        self,
        tasks: Any,
        backend: ManualBackend | None = None,
        *,
        moves: Callable[[], object] | None = None,
        n_jobs: int = 2,
        size: int = 1,
        listener: Any = None,
        window: Window | None = None,
        return_exceptions: bool = False,
        retry: Retry = ONCE,
        limits: Limits | None = None,
        faults: Faults | None = None,
        sight: Sight | None = None,
    ) -> None:
        self.backend = backend or ManualBackend()
        self.moves: Callable[[], object] = moves or self.backend.complete
        self.now = 0.0
        self.delivered: list[Any] = []
        self.aborts = 0
        self.is_shared = False
        source = Source.of_calls(tasks)
        self.call = Call(
            backend=self.backend,
            backend_name="manual",
            scheduler=Scheduler(
                n_jobs=n_jobs,
                batching=FixedBatching(size),
                results=OrderedResults(),
                pre_dispatch=2 * n_jobs,
                window=window,
                return_exceptions=return_exceptions,
                retry=retry,
                limits=limits,
                faults=faults,
            ),
            source=source,
            carrier=carrier_of(stop_on_failure=not return_exceptions),
            sight=sight or Sight(None, None, lambda: self.now),
            sink=self,
            listener=listener,
            abort_backend=self.abort,
            clock=lambda: self.now,
        )
        self.backend.attach(self.call)

    def deliver(self, start: int, values: list[Any]) -> None:
        assert start == len(self.delivered)
        self.delivered += values

    def abort(self) -> bool:
        self.aborts += 1
        return not self.is_shared

    def run(self) -> list[Any]:
        self.call.run()
        return self.delivered


@pytest.fixture(autouse=True)
def the_world_moves_while_the_call_waits(monkeypatch: pytest.MonkeyPatch) -> list[World]:
    """Nothing blocks: where the inbox is empty, the world makes a move; where it makes none, the time is up."""
    worlds: list[World] = []
    make = World.__init__

    def remember(self: World, *args: Any, **kwargs: Any) -> None:
        worlds.append(self)
        make(self, *args, **kwargs)

    class Inbox:
        def __init__(self) -> None:
            self._queue: SimpleQueue[Any] = SimpleQueue()
            self.put, self.empty, self.qsize = self._queue.put, self._queue.empty, self._queue.qsize

        def get(self, timeout: float | None = None) -> Any:
            if self._queue.empty():
                worlds[-1].moves()
            try:
                return self._queue.get_nowait()
            except Empty:
                worlds[-1].now += timeout or 0.0
                raise

    monkeypatch.setattr(World, "__init__", remember)

    class NobodyElse:
        """In the place of the thread that looks after deadlines while the owner is in the input."""

        def __init__(self, *_: Any) -> None: ...
        def enter(self, deadline: float | None, may_be_closed: bool = False) -> None: ...
        def leave(self) -> None: ...
        def stop(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(module, "SimpleQueue", Inbox)
    monkeypatch.setattr(module, "LateWatch", NobodyElse)
    return worlds


def tasks_of(count: int) -> list[Any]:
    return [delayed(abs)(-i) for i in range(count)]


def fail_with(error: BaseException) -> Any:
    raise error


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_come_in_order_whichever_batch_comes_back_first() -> None:
    world = World(tasks_of(7))
    world.moves = lambda: world.backend.complete(-1)
    assert world.run() == list(range(7))
    assert world.aborts == 0


def test_a_backend_may_call_back_before_submit_returns() -> None:
    class Eager(ManualBackend):
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
            future = super().submit(func, callback)
            self.complete()
            return future

    assert World(tasks_of(7), Eager()).run() == list(range(7))


def test_an_empty_input_submits_nothing() -> None:
    world = World([])
    assert world.run() == []
    assert world.backend.n_submitted == 0


def test_the_backend_hears_of_every_batch_that_came_back() -> None:
    world = World(tasks_of(5), size=3)
    world.run()
    assert [size for size, _ in world.backend.completed] == [3, 2]
    assert all(seconds >= 0 for _, seconds in world.backend.completed)


def test_where_jobs_leave_the_process_they_are_bytes_when_they_are_submitted() -> None:
    class Remote(ManualBackend):
        wire = "bytes"

    assert World(tasks_of(5), Remote(), size=2).run() == list(range(5))


def test_a_window_lets_no_more_run_until_results_are_consumed() -> None:
    world = World(tasks_of(9), window=Window(batches=3, tasks=100))

    def move() -> None:
        if world.backend.waiting:
            world.backend.complete()
        else:
            assert world.backend.n_submitted - consumed[0] == 3
            consumed[0] += 1
            world.call.consumed(1)

    consumed = [0]
    world.moves = move
    assert world.run() == list(range(9))


def test_a_backend_of_the_older_kind_is_asked_with_what_submit_returned() -> None:
    class Older(ManualBackend):
        supports_retrieve_callback = False

        def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
            assert isinstance(out, Future)
            return self.run(out.job)

        def complete(self, number: int = 0) -> Future:
            future = self.waiting.pop(number)
            future.callback("whatever")
            return future

    assert World(tasks_of(5), Older()).run() == list(range(5))


def test_a_backend_may_have_apply_async_instead_of_submit() -> None:
    class Oldest(ManualBackend):
        submit = ParallelBackendBase.submit

        def apply_async(self, func: Any, callback: Any = None) -> Future:
            return ManualBackend.submit(self, func, callback)

    assert World(tasks_of(5), Oldest()).run() == list(range(5))


# -- a backend that does what it should not ----------------------------------------------------------------------------


def test_a_batch_that_comes_back_twice_counts_once() -> None:
    world = World(tasks_of(5))

    def move() -> None:
        future = world.backend.complete()
        future.callback(future)

    world.moves = move
    assert world.run() == list(range(5))


def test_a_batch_whose_callback_is_forgotten_is_found_when_nothing_else_happens() -> None:
    world = World(tasks_of(5))

    def move() -> None:
        for future in world.backend.waiting:
            future.is_done = True
        world.backend.waiting.clear()

    world.moves = move
    assert world.run() == list(range(5))


def test_a_future_that_cannot_be_asked_is_left_alone() -> None:
    class Opaque(ManualBackend):
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            super().submit(func, callback)
            return object()

    world = World(tasks_of(1), Opaque())
    idle = iter([lambda: None, lambda: None, world.backend.complete])
    world.moves = lambda: next(idle)()
    assert world.run() == [0]


@pytest.mark.parametrize(
    "brought",
    [
        None,
        "text",
        [0],
        Outcome([0, 1], {}, 0.0),
        Outcome([0], {1: Failure(LookupError())}, 0.0),
        Outcome([0], {-1: Failure(LookupError())}, 0.0),
        Outcome([], {}, 0.0),
    ],
)
def test_what_is_no_outcome_for_the_batch_is_a_clear_error(brought: Any) -> None:
    class Odd(ManualBackend):
        def retrieve_result_callback(self, future: Any) -> Any:
            return brought

    world = World(tasks_of(3), Odd())
    with pytest.raises(BackendContractError) as caught:
        world.run()
    assert (caught.value.backend, caught.value.task_indices) == ("manual", range(1))
    assert world.aborts == 1


def test_bytes_that_cannot_be_unpickled_are_a_clear_error() -> None:
    class Odd(ManualBackend):
        def retrieve_result_callback(self, future: Any) -> Any:
            return b"garbage"

    with pytest.raises(ResultPicklingError, match="cannot be unpickled in the caller"):
        World(tasks_of(3), Odd()).run()


@pytest.mark.parametrize(("garbage", "is_clean"), [(True, False), (False, True)])
def test_memory_is_not_used_again_with_results_in_it_that_could_not_be_read(
    garbage: bool, is_clean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(ManualBackend):
        def retrieve_result_callback(self, future: Any) -> Any:
            return b"garbage" if garbage else super().retrieve_result_callback(future)

    def release(carrier: CallCarrier, batch_id: int, *, is_clean: bool = False) -> None:
        released.append(is_clean)

    released: list[bool] = []
    monkeypatch.setattr(CallCarrier, "release", release)
    World(tasks_of(1), Odd(), return_exceptions=True).run()
    assert released == [is_clean]


def test_a_submit_that_raises_ends_the_call_with_a_clear_error() -> None:
    error = OSError("no more processes")

    class Failing(ManualBackend):
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
            if self.n_submitted == 1:
                raise error
            return super().submit(func, callback)

    world = World(tasks_of(5), Failing())
    with pytest.raises(BackendError, match=r"'manual' did not take task 1: OSError: no more processes") as caught:
        world.run()
    assert caught.value.__cause__ is error
    assert (caught.value.backend, caught.value.task_indices) == ("manual", range(1, 2))
    assert world.aborts == 1
    assert all(future.is_cancelled for future in world.backend.waiting)


def test_a_submit_that_raises_after_it_has_called_back_ends_the_call_too() -> None:
    class Failing(ManualBackend):
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
            future = super().submit(func, callback)
            self.complete()
            raise OSError(future)

    with pytest.raises(BackendError):
        World(tasks_of(5), Failing()).run()


def test_an_error_of_our_own_kind_comes_as_it_is() -> None:
    error = BackendError("mine", backend="manual")

    class Failing(ManualBackend):
        def submit(self, func: Any, callback: Callable[[Any], None]) -> Future:
            raise error

    with pytest.raises(BackendError) as caught:
        World(tasks_of(5), Failing()).run()
    assert caught.value is error


@pytest.mark.parametrize("error", [OSError("pipe"), SystemExit(3)])
def test_a_result_that_cannot_be_fetched_is_the_infrastructures_failure(error: BaseException) -> None:
    class Failing(ManualBackend):
        def retrieve_result_callback(self, future: Any) -> Any:
            raise error

    world = World(tasks_of(5), Failing())
    with pytest.raises(BackendError, match="'manual' lost task 0") as caught:
        world.run()
    assert caught.value.__cause__ is error
    assert world.aborts == 1


def test_a_lost_worker_is_told_with_the_tasks_that_it_had() -> None:
    class Failing(ManualBackend):
        def retrieve_result_callback(self, future: Any) -> Any:
            raise WorkerLostError("it is gone", exit_code=3)

    with pytest.raises(WorkerLostError, match=r"it is gone \(it had tasks 0 to 1\)") as caught:
        World(tasks_of(5), Failing(), size=2).run()
    error = caught.value
    assert (error.backend, error.exit_code, error.signal) == ("manual", 3, None)
    assert error.task_indices == range(2)


# -- what a backend reports --------------------------------------------------------------------------------------------


def test_a_backend_may_report_a_lost_worker() -> None:
    world = World(tasks_of(5), size=2)
    world.moves = lambda: world.call.lost(world.backend.waiting[1], signal=9)
    with pytest.raises(WorkerLostError, match="signal 9") as caught:
        world.run()
    assert (caught.value.task_indices, caught.value.signal) == (range(2, 4), 9)


def test_a_report_about_something_unknown_is_ignored() -> None:
    world = World(tasks_of(2))

    def move() -> None:
        world.call.lost(object(), exit_code=1)
        world.call.started(object())
        world.backend.complete()

    world.moves = move
    assert world.run() == [0, 1]


def test_a_lost_batch_runs_again_where_losses_are_tolerated() -> None:
    world = World(tasks_of(3), retry=Retry(attempts=2), faults=Faults(replaces_workers=True))
    lost: list[int] = []

    def move() -> None:
        if not lost:
            lost.append(1)
            world.call.lost(world.backend.waiting.pop(0), exit_code=1)
        else:
            world.backend.complete()

    world.moves = move
    assert world.run() == [0, 1, 2]


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_tasks_exception_comes_through_as_itself_with_a_note() -> None:
    error = LookupError("mine")
    world = World([*tasks_of(1), delayed(fail_with)(error), *tasks_of(5)])
    with pytest.raises(LookupError) as caught:
        world.run()
    assert caught.value is error
    (note,) = error.__notes__
    assert note.startswith("raised by task 1 (fail_with) in worker ")
    assert note.endswith("of backend 'manual'")
    assert world.delivered == [0]


def test_an_exception_from_another_process_has_its_traceback_as_the_cause() -> None:
    class Remote(ManualBackend):
        wire = "bytes"

    with pytest.raises(ZeroDivisionError) as caught:
        World([delayed(divmod)(1, 0)], Remote()).run()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "ZeroDivisionError" in str(caught.value.__cause__)


def test_a_failure_stops_what_is_in_flight() -> None:
    world = World([delayed(fail_with)(LookupError()), *tasks_of(5)])
    with pytest.raises(LookupError):
        world.run()
    assert world.aborts == 1
    assert world.backend.waiting
    for future in world.backend.waiting:
        assert future.is_cancelled
        assert future.job.cancelled


def test_where_others_use_the_same_workers_only_those_of_this_call_are_ended() -> None:
    class Killing(ManualBackend):
        supports_kill = True

    world = World([delayed(fail_with)(LookupError()), *tasks_of(5)], Killing())
    world.is_shared = True
    with pytest.raises(LookupError):
        world.run()
    assert world.backend.killed == world.backend.waiting


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_task_that_exits_is_a_failure(error: BaseException) -> None:
    with pytest.raises(TaskExit, match=type(error).__name__) as caught:
        World([delayed(fail_with)(error)]).run()
    assert caught.value.__cause__ is error
    assert "raised by task 0" in caught.value.__notes__[0]


def test_an_exception_may_take_the_place_of_a_result() -> None:
    errors = [LookupError(), SystemExit()]
    world = World([*tasks_of(1), *[delayed(fail_with)(error) for error in errors]], return_exceptions=True)
    assert world.run() == [0, *errors]


def test_a_failed_task_may_run_again() -> None:
    left = [2]

    def flaky() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise LookupError
        return "done"

    assert World([delayed(flaky)()], retry=Retry(attempts=3)).run() == ["done"]


def test_a_task_that_cannot_be_sent_is_named() -> None:
    class Remote(ManualBackend):
        wire = "bytes"

    world = World([*tasks_of(4), delayed(abs)(threading.Lock())], Remote(), size=3)
    with pytest.raises(TaskPicklingError, match=r"args\[0\]: cannot pickle") as caught:
        world.run()
    assert caught.value.task_index == 4


def test_the_neighbours_of_a_task_that_cannot_be_sent_run() -> None:
    class Remote(ManualBackend):
        wire = "bytes"

    tasks = tasks_of(5)
    tasks[2] = delayed(abs)(threading.Lock())
    values = World(tasks, Remote(), size=5, return_exceptions=True).run()
    assert isinstance(values.pop(2), TaskPicklingError)
    assert values == [0, 1, 3, 4]


def test_any_number_of_tasks_that_cannot_be_sent_may_follow_each_other() -> None:
    class Remote(ManualBackend):
        wire = "bytes"

    lock = threading.Lock()
    values = World([delayed(abs)(lock) for _ in range(2000)], Remote(), return_exceptions=True).run()
    assert {type(value) for value in values} == {TaskPicklingError}
    assert [value.task_index for value in values] == list(range(2000))


# -- the input ---------------------------------------------------------------------------------------------------------


def test_an_error_of_the_input_comes_through_as_itself() -> None:
    error = LookupError("in the input")

    def broken() -> Iterator[Any]:
        yield from tasks_of(2)
        raise error

    world = World(broken())
    with pytest.raises(LookupError) as caught:
        world.run()
    assert caught.value is error
    assert world.aborts == 1


def test_what_is_no_task_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="task 2 of the input"):
        World([*tasks_of(2), abs]).run()


def test_ctrl_c_in_the_input_stops_everything_and_arrives_as_itself() -> None:
    def interrupted() -> Iterator[Any]:
        yield from tasks_of(2)
        raise KeyboardInterrupt

    world = World(interrupted())
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert world.aborts == 1


def test_ctrl_c_while_the_call_waits_stops_everything() -> None:
    world = World(tasks_of(5))
    world.moves = lambda: fail_with(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert world.aborts == 1
    assert all(future.is_cancelled for future in world.backend.waiting)


def test_the_input_is_read_lazily() -> None:
    n_read = [0]

    def counting() -> Iterator[Any]:
        for task in tasks_of(50):
            n_read[0] += 1
            yield task

    world = World(counting())

    def move() -> None:
        assert n_read[0] - world.backend.n_submitted <= 4
        world.backend.complete()

    world.moves = move
    assert world.run() == list(range(50))


# -- who listens -------------------------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def batch_submitted(self, batch: Batch) -> None:
        self.heard.append(("submitted", batch.start))

    def batch_done(self, batch: Batch, outcome: Outcome) -> None:
        self.heard.append(("done", batch.start, len(outcome.values)))

    def task_failed(self, index: int, exception: BaseException) -> None:
        self.heard.append(("failed", index, type(exception)))


def test_a_listener_hears_what_happens() -> None:
    log = Log()
    World([*tasks_of(1), delayed(fail_with)(LookupError())], listener=log, return_exceptions=True).run()
    assert [event for event in log.heard if event[1] == 0] == [("submitted", 0), ("done", 0, 1)]
    assert [event for event in log.heard if event[1] == 1] == [
        ("submitted", 1),
        ("failed", 1, LookupError),
        ("done", 1, 1),
    ]


@pytest.mark.parametrize("method", ["batch_submitted", "batch_done", "task_failed"])
def test_what_a_listener_raises_stops_everything(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("in the listener")

    log = Log()
    monkeypatch.setattr(log, method, broken)
    world = World([delayed(fail_with)(LookupError()), *tasks_of(5)], listener=log, return_exceptions=True)
    with pytest.raises(ValueError, match="in the listener"):
        world.run()
    assert world.aborts == 1


# -- the end -----------------------------------------------------------------------------------------------------------


def test_closing_ends_the_call_without_an_error() -> None:
    world = World(tasks_of(9))
    world.moves = lambda: world.call.close()
    world.run()
    assert world.aborts == 1
    assert all(future.is_cancelled for future in world.backend.waiting)


def test_what_comes_after_the_end_changes_nothing() -> None:
    world = World(tasks_of(9))
    world.moves = world.call.close
    world.run()
    while world.backend.waiting:
        world.backend.complete()
    world.call.consumed(1)
    world.call.close()
    assert world.delivered == []
    assert world.aborts == 1


# -- limits ------------------------------------------------------------------------------------------------------------


class LateError(Exception):
    pass


LIMITS = Limits(
    task_seconds=5.0,
    call_seconds=12.0,
    task_error=lambda batch, position, seconds: LateError("task", batch.start + position, seconds),
    call_error=lambda seconds: LateError("call", seconds),
)


def test_a_task_that_passes_its_limit_ends_the_call() -> None:
    world = World(tasks_of(1), limits=LIMITS)
    world.moves = lambda: None
    with pytest.raises(LateError) as caught:
        world.run()
    assert caught.value.args == ("task", 0, 5.0)
    assert world.aborts == 1


def test_the_limit_counts_from_the_start_that_was_reported() -> None:
    world = World(tasks_of(1), limits=LIMITS)

    start_at = [4.0]

    def move() -> None:
        if world.now in start_at:
            start_at.remove(world.now)
            world.call.started(world.backend.waiting[0])

    world.moves = move
    with pytest.raises(LateError) as caught:
        world.run()
    assert caught.value.args == ("task", 0, 5.0)
    assert world.now == 9.0


def test_a_reported_start_counts_at_once_for_who_ends_late_tasks_while_the_owner_is_in_the_input() -> None:
    class Killing(ManualBackend):
        supports_kill = True

    def tasks() -> Iterator[Any]:
        yield delayed(abs)(0)
        world.now = 4.0
        world.call.started(world.backend.waiting[0])
        world.now = 8.0
        world.call._look_for_late()
        ended.append((world.now, list(world.backend.killed)))
        world.now = 9.0
        world.call._look_for_late()
        ended.append((world.now, list(world.backend.killed)))

    ended: list[tuple[float, list[Any]]] = []
    world = World(tasks(), Killing(), limits=LIMITS, sight=Sight(5.0, None, lambda: world.now))
    with pytest.raises(LateError):
        world.run()
    assert [(at, len(killed)) for at, killed in ended] == [(8.0, 0), (9.0, 1)]


def test_a_call_that_passes_its_limit_ends() -> None:
    world = World(tasks_of(1), limits=LIMITS)

    start_at = [4.0, 8.0]

    def move() -> None:
        if world.now in start_at:
            start_at.remove(world.now)
            world.call.started(world.backend.waiting[0])

    world.moves = move
    with pytest.raises(LateError) as caught:
        world.run()
    assert caught.value.args == ("call", 12.0)


def test_what_has_arrived_before_a_deadline_counts_although_it_is_seen_after_it() -> None:
    world = World(tasks_of(1), limits=LIMITS)

    def move() -> None:
        world.backend.complete()
        world.now = 6.0

    world.moves = move
    assert world.run() == [0]


def test_a_worker_with_a_late_task_is_killed_where_that_can_be_done() -> None:
    class Killing(ManualBackend):
        supports_kill = True

    faults = Faults(can_kill=True, replaces_workers=True)
    world = World(tasks_of(2), Killing(), n_jobs=1, limits=LIMITS, faults=faults, return_exceptions=True)

    def move() -> None:
        if world.backend.killed:
            world.call.lost(world.backend.killed.pop(), signal=9)
            world.backend.waiting.clear()
        elif world.now >= 5.0:
            world.backend.complete()

    world.moves = move
    late, value = world.run()
    assert late.args[:2] == ("task", 0)
    assert value == 1


def test_a_worker_with_a_late_task_that_cannot_be_killed_is_replaced_or_given_up_with_a_warning() -> None:
    class Replacing(ManualBackend):
        def replace(self, future: Any) -> bool:
            self.waiting.remove(future)
            return True

    world = World(tasks_of(2), Replacing(), n_jobs=1, limits=LIMITS, return_exceptions=True)
    world.moves = lambda: world.now >= 5.0 and world.backend.complete()
    with pytest.warns(RuntimeWarning, match="cannot end a task"):
        late, value = world.run()
    assert late.args[:2] == ("task", 0)
    assert value == 1
    assert world.aborts == 1
