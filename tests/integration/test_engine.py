"""The core as a whole, on a backend whose every step the test decides: no worker, no time passes."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import Parallel, delayed
from parallel.errors import BackendContractError, BackendError, ResultPicklingError, TaskExit, WorkerLostError
from parallel_testkit import ManualBackend, ManualBatch, run_bounded

every_mode = pytest.mark.parametrize("mode", ["list", "generator", "generator_unordered"])


def complete(batch: ManualBatch) -> None:
    batch.complete()


def run(backend: ManualBackend, items: Any, mode: str = "list", **arguments: Any) -> list[Any]:
    parallel = Parallel(n_jobs=2, backend=backend, return_as=mode, **arguments)
    results: list[Any] = run_bounded(lambda: list(parallel.map(abs, items)))
    return sorted(results) if mode == "generator_unordered" else results


# -- how batches come back ---------------------------------------------------------------------------------------------


@every_mode
def test_batches_that_end_as_they_are_submitted(mode: str) -> None:
    assert run(ManualBackend(complete), range(1000), mode) == list(range(1000))


@every_mode
def test_the_rest_of_a_batch_that_was_cut_short_runs_elsewhere(mode: str) -> None:
    backend = ManualBackend(lambda batch: batch.complete(max(batch.size // 2, 1)))
    assert run(backend, range(100), mode, batch_size=10) == list(range(100))
    assert sum(batch.size for batch in backend.submitted) > 100


def test_a_batch_cut_short_after_each_task() -> None:
    assert run(ManualBackend(lambda batch: batch.complete(1)), range(50), batch_size=50) == list(range(50))


def test_batches_that_come_back_in_another_order() -> None:
    backend = ManualBackend()
    ordered = Parallel(n_jobs=2, backend=backend, return_as="generator", batch_size=1).map(abs, range(2))
    first, second = backend.next_batch(), backend.next_batch()
    second.complete()
    first.complete()
    assert list(ordered) == [0, 1]
    unordered = Parallel(n_jobs=2, backend=backend, return_as="generator_unordered", batch_size=1).map(abs, range(2))
    first, second = backend.next_batch(), backend.next_batch()
    second.complete()
    assert next(unordered) == 1
    first.complete()
    assert list(unordered) == [0]


@every_mode
def test_callbacks_that_come_twice_count_once(mode: str) -> None:
    def twice(batch: ManualBatch) -> None:
        batch.complete()
        batch.call_back()

    assert run(ManualBackend(twice), range(100), mode, batch_size=3) == list(range(100))


def test_a_callback_after_the_end_of_the_call() -> None:
    backend = ManualBackend(complete)
    assert run(backend, range(4)) == list(range(4))
    backend.submitted[0].call_back()
    assert run(backend, range(4)) == list(range(4))


@every_mode
def test_a_future_that_is_done_though_nobody_called_back(mode: str) -> None:
    def forget_one(batch: ManualBatch) -> None:
        if batch.start == 3:
            batch.finish_silently()
        else:
            batch.complete()

    assert run(ManualBackend(forget_one), range(10), mode, batch_size=1) == list(range(10))


def test_a_future_that_is_done_though_nobody_called_back_is_found_with_a_limit_shorter_than_the_silence() -> None:
    # In threads a job that is over is seen to run nothing, so its limit never passes.
    backend = ManualBackend(ManualBatch.finish_silently)
    assert run(backend, range(3), batch_size=1, timeout=0.05) == list(range(3))


def test_an_older_backend_without_callbacks_that_bring_the_result() -> None:
    assert run(ManualBackend(complete, supports_retrieve_callback=False), range(50)) == list(range(50))


# -- what may be in flight ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_worker_never_has_more_batches_than_it_may(depth: int) -> None:
    backend = ManualBackend(max_in_flight_per_worker=depth)
    in_flight: dict[int, int] = {}
    results = Parallel(n_jobs=2, backend=backend, return_as="generator", batch_size=1, pre_dispatch="all").map(
        abs, range(30)
    )
    pending: list[ManualBatch] = []
    for _ in range(30):
        batch = backend.next_batch()
        pending.append(batch)
        in_flight[batch.worker] = in_flight.get(batch.worker, 0) + 1
        assert in_flight[batch.worker] <= depth
        if len(pending) == 2:  # keep one or two going
            done = pending.pop(0)
            in_flight[done.worker] -= 1
            done.complete(seconds=0.0)
            next(results)
    pending.pop().complete()
    assert list(results) == [29]


def test_no_more_batches_are_in_flight_than_pre_dispatch_says() -> None:
    backend = ManualBackend()
    results = Parallel(n_jobs=4, backend=backend, return_as="generator", batch_size=1, pre_dispatch=2).map(
        abs, range(6)
    )
    for number in range(3):
        pair = [backend.next_batch(), backend.next_batch()]
        assert len(backend.submitted) == 2 * number + 2
        for batch in pair:
            batch.complete()
        assert [next(results), next(results)] == [2 * number, 2 * number + 1]
    assert list(results) == []


# -- what goes wrong in a backend --------------------------------------------------------------------------------------


@every_mode
def test_submit_that_raises(mode: str) -> None:
    def refuse(batch: ManualBatch) -> None:
        if batch.start == 4:
            raise OSError("no room")
        batch.complete()

    backend = ManualBackend(refuse)
    with pytest.raises(BackendError, match="no room") as caught:
        run(backend, range(10), mode, batch_size=1)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.task_indices == range(4, 5)
    assert backend.calls.count("abort_everything(False)") == 1


@every_mode
def test_a_result_that_cannot_be_fetched(mode: str) -> None:
    backend = ManualBackend(lambda batch: batch.fail(ConnectionError("unplugged")))
    with pytest.raises(BackendError, match="unplugged") as caught:
        run(backend, range(10), mode, batch_size=2)
    assert isinstance(caught.value.__cause__, ConnectionError)


@every_mode
def test_a_worker_that_is_lost(mode: str) -> None:
    backend = ManualBackend()
    parallel = Parallel(n_jobs=2, backend=backend, return_as=mode, batch_size=3)
    caught: list[BaseException] = []

    def use() -> None:
        try:
            list(parallel.map(abs, range(3)))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    backend.next_batch().lose(signal=9)
    thread.join(30)
    (error,) = caught
    assert isinstance(error, WorkerLostError)
    assert error.signal == 9
    assert 0 in error.task_indices


@every_mode
@pytest.mark.parametrize("garbage", [None, 5, b"bytes", [1, 2], "text"])
def test_an_outcome_that_is_none(mode: str, garbage: object) -> None:
    # Bytes could be the outcome of a worker, and broken in the pickling of a user's class.
    with pytest.raises(ResultPicklingError if isinstance(garbage, bytes) else BackendContractError):
        run(ManualBackend(lambda batch: batch.bring(garbage)), range(3), mode)


def test_an_outcome_of_too_many_results() -> None:
    def too_many(batch: ManualBatch) -> None:
        outcome = batch.job()
        outcome.values.append(99)
        batch.bring(outcome)

    with pytest.raises(BackendContractError, match="results for a batch"):
        run(ManualBackend(too_many), range(4), batch_size=2)


def test_an_outcome_of_no_result() -> None:
    with pytest.raises(BackendContractError, match="without any result"):
        run(ManualBackend(lambda batch: batch.complete(0)), range(4), batch_size=2)


def test_a_start_of_a_call_that_raises_gives_the_workers_back() -> None:
    class NoStart(ManualBackend):
        def start_call(self) -> None:
            raise ConnectionError("not today")

    for mode in ("list", "generator"):
        backend = NoStart(complete)
        with pytest.raises(ConnectionError):
            run(backend, range(3), mode)
        assert backend.calls.count("configure") == backend.calls.count("terminate") == 1


# -- the order of things -----------------------------------------------------------------------------------------------


@every_mode
def test_a_call_from_its_beginning_to_its_end(mode: str) -> None:
    backend = ManualBackend(complete)
    run(backend, range(2), mode, batch_size=1)
    assert backend.calls == ["configure", "attach", "start_call", "submit", "submit", "stop_call", "terminate"]


@every_mode
def test_a_call_that_fails_aborts_before_it_gives_the_workers_back(mode: str) -> None:
    backend = ManualBackend(complete)
    with pytest.raises(TypeError):
        run(backend, ["not a number"], mode)
    assert backend.calls[-3:] == ["abort_everything(False)", "stop_call", "terminate"]


def test_a_block_keeps_the_backend_ready() -> None:
    backend = ManualBackend(complete)
    with Parallel(n_jobs=2, backend=backend) as parallel:
        with pytest.raises(TypeError):
            parallel.map(abs, ["not a number"])
        assert backend.calls[-2:] == ["abort_everything(True)", "stop_call"]
        assert parallel.map(abs, range(5)) == list(range(5))
    assert backend.calls.count("configure") == backend.calls.count("terminate") == 1


def test_nothing_is_submitted_after_a_failure() -> None:
    def fail(_: int) -> None:
        raise LookupError("at once")

    backend = ManualBackend(complete)
    with pytest.raises(LookupError):
        Parallel(n_jobs=2, backend=backend, batch_size=1).map(fail, range(100))
    assert len(backend.submitted) <= 4
    assert "submit" not in backend.calls[backend.calls.index("abort_everything(False)") :]


# -- calls that are ended from outside ---------------------------------------------------------------------------------


def warnings_of(act: Callable[[], None], backend: ManualBackend) -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        act()
        for thread in threading.enumerate():
            if thread.name.startswith("parallel-call"):
                thread.join(30)
    return [str(warning.message) for warning in seen]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_generator_that_is_left_cancels_what_is_in_flight(how: str) -> None:
    backend = ManualBackend()
    results: Any = Parallel(n_jobs=2, backend=backend, return_as="generator", batch_size=1).map(abs, range(100))
    batches = [backend.next_batch(), backend.next_batch()]

    def leave() -> None:
        nonlocal results
        if how == "close":
            results.close()
        results = None
        gc.collect()
        backend.wait_for_call("terminate")

    (text,) = warnings_of(leave, backend)
    assert "0 results were computed and not used" in text
    assert backend.cancelled == [batch.future for batch in batches]
    assert backend.calls[-3:] == ["abort_everything(False)", "stop_call", "terminate"]
    for batch in batches:  # too late, and harmless
        batch.complete()


def test_an_interrupt_in_the_owner_aborts_the_call() -> None:
    def interrupt(batch: ManualBatch) -> None:
        if batch.start == 2:
            raise KeyboardInterrupt
        batch.complete()

    backend = ManualBackend(interrupt)
    with pytest.raises(KeyboardInterrupt):
        Parallel(n_jobs=2, backend=backend, batch_size=1).map(abs, range(10))
    assert backend.calls[-3:] == ["abort_everything(False)", "stop_call", "terminate"]


def test_a_progress_method_that_raises_ends_the_call() -> None:
    class Progress(Parallel):
        def print_progress(self) -> None:
            raise LookupError("the bar broke")

    with pytest.raises(LookupError, match="the bar broke"):
        Progress(n_jobs=2, backend=ManualBackend(complete)).map(abs, range(10))


# -- one worker: the caller --------------------------------------------------------------------------------------------


@every_mode
def test_one_worker_runs_in_the_caller_and_nothing_is_submitted(mode: str) -> None:
    backend = ManualBackend()
    names: list[str] = []
    list(
        Parallel(n_jobs=1, backend=backend, return_as=mode)(
            delayed(lambda: names.append(threading.current_thread().name))() for _ in range(3)
        )
    )
    assert names == [threading.current_thread().name] * 3
    assert backend.calls == []


@pytest.mark.parametrize("mode", ["generator", "generator_unordered"])
def test_one_worker_runs_a_task_when_its_result_is_asked_for(mode: str) -> None:
    ran: list[int] = []
    results = Parallel(n_jobs=1, return_as=mode).map(ran.append, iter(range(3)))
    assert ran == []
    next(results)
    assert ran == [0]
    results.close()
    assert ran == [0]


@every_mode
@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_exits_in_the_caller_are_wrapped_too(mode: str, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("from a task")

    with pytest.raises(TaskExit) as caught:
        list(Parallel(n_jobs=1, return_as=mode)([delayed(leave)()]))
    assert isinstance(caught.value.__cause__, kind)


@every_mode
def test_errors_in_the_caller_are_the_same_as_elsewhere(mode: str) -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(1)
        raise LookupError("no more input")

    with pytest.raises(LookupError, match="no more input"):
        list(Parallel(n_jobs=1, return_as=mode)(tasks()))
    with pytest.raises(TypeError, match="task 1 "):
        list(Parallel(n_jobs=1, return_as=mode)([delayed(abs)(1), 5]))
    with pytest.raises(ZeroDivisionError) as caught:
        list(Parallel(n_jobs=1, return_as=mode)([delayed(abs)(1), delayed(divmod)(1, 0)]))
    assert any("task 1" in note for note in caught.value.__notes__)
