"""What programs written for joblib rely on, second part: how a call runs, is watched, ends, and nests."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import Parallel, delayed, parallel_config
from parallel_testkit import Gate, Mailbox, Tally, _tasks
from parallel_testkit._suite import join_new_threads
from tests.integration import joblib_tasks as tasks
from tests.integration.local_backends import every_kind, every_kind_with_workers

Make = Callable[..., Parallel]

every_mode = pytest.mark.parametrize("mode", ["list", "generator", "generator_unordered"])
every_generator = pytest.mark.parametrize("mode", ["generator", "generator_unordered"])

#: For tests of a limit: short, because they wait for it.
LIMIT_SECONDS = 0.3


# -- the input ---------------------------------------------------------------------------------------------------------


@every_kind
@every_mode
def test_the_input_is_read_lazily(make: Make, mode: str, tally: Tally) -> None:
    ahead: list[int] = []

    def numbers() -> Iterator[Any]:
        for i in range(40):
            ahead.append(i + 1 - tally.count())
            yield delayed(_tasks.count_and_return)(tally, i)

    assert sorted(make(return_as=mode, batch_size=1)(numbers())) == list(range(40))
    assert max(ahead) <= 4  # 2 * n_jobs


@every_kind
@every_mode
def test_an_error_of_the_input_surfaces_to_the_consumer(make: Make, mode: str) -> None:
    def broken() -> Iterator[Any]:
        yield delayed(_tasks.square)(2)
        raise LookupError("in the input")

    with pytest.raises(LookupError, match="in the input"):
        list(make(return_as=mode)(broken()))


# -- the results -------------------------------------------------------------------------------------------------------


@every_kind
def test_results_are_a_list_in_the_order_of_the_input(make: Make) -> None:
    assert make(batch_size=1)(delayed(_tasks.square)(i) for i in range(20)) == [i * i for i in range(20)]


@every_kind_with_workers
def test_a_generator_gives_results_in_the_order_of_the_input(make: Make, mailbox: Mailbox, gate: Gate) -> None:
    first, second = delayed(_tasks.wait_for)(gate, 1), delayed(_tasks.announce_and_wait)(mailbox, gate, 2)
    results = make(return_as="generator", batch_size=1)([first, delayed(_tasks.noop)(0), second])
    mailbox.receive()  # what is in the middle is done
    gate.open()
    assert list(results) == [1, 0, 2]


@every_kind_with_workers
def test_an_unordered_generator_gives_results_as_they_come(make: Make, gate: Gate) -> None:
    slow, quick = delayed(_tasks.wait_for)(gate, "slow"), delayed(_tasks.noop)("quick")
    results = make(return_as="generator_unordered", batch_size=1)([slow, quick])
    assert next(results) == "quick"
    gate.open()
    assert list(results) == ["slow"]


@pytest.mark.parametrize("kind", ["sequential"])
@every_generator
def test_without_workers_a_generator_runs_a_task_when_its_result_is_asked_for(make: Make, mode: str) -> None:
    ran: list[int] = []
    results = make(return_as=mode)(delayed(ran.append)(i) for i in range(5))
    assert ran == []
    next(results)
    assert ran == [0]
    results.close()


# -- generators that are not consumed ----------------------------------------------------------------------------------


@every_kind_with_workers
@every_generator
def test_a_call_while_a_generator_is_running_is_a_runtime_error(make: Make, mode: str, gate: Gate) -> None:
    parallel = make(return_as=mode, batch_size=1)
    results = parallel([delayed(_tasks.noop)(1), delayed(_tasks.wait_for)(gate, 2)])
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="still running"):
        parallel([])
    gate.open()
    assert list(results) == [2]
    assert list(parallel([delayed(_tasks.noop)(1)])) == [1]


@pytest.mark.parametrize("kind", ["sequential"])
@every_generator
def test_without_workers_too_a_call_while_a_generator_is_running_is_a_runtime_error(make: Make, mode: str) -> None:
    parallel = make(return_as=mode)
    results = parallel(delayed(_tasks.noop)(i) for i in range(3))
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="still running"):
        parallel([])
    assert list(results) == [1, 2]
    assert list(parallel([delayed(_tasks.noop)(1)])) == [1]


def leave_early(make: Make, mode: str, how: str, mailbox: Mailbox, gate: Gate, tally: Tally) -> list[str]:
    """Take two of five results that are there, with tasks waiting for more, and leave; give the warnings."""
    before = set(threading.enumerate())
    quick = [delayed(_tasks.noop)(i) for i in range(5)]
    # One batch at a time, so when the sixth has begun there are five results, and there will not be more.
    slow = delayed(_tasks.announce_and_wait)(mailbox, gate, 5)
    rest = [delayed(_tasks.count_and_return)(tally, i) for i in range(6, 40)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        results = make(return_as=mode, batch_size=1, pre_dispatch=1)([*quick, slow, *rest])
        mailbox.receive()
        next(results), next(results)
        if how == "close":
            results.close()
        del results
        gate.open()
        join_new_threads(before)
    return [str(warning.message) for warning in seen if "multi-threaded" not in str(warning.message)]


@every_kind_with_workers
@every_generator
@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_a_generator_early_warns_once_of_the_results_that_were_not_used(
    make: Make, mode: str, how: str, mailbox: Mailbox, gate: Gate, tally: Tally
) -> None:
    (text,) = leave_early(make, mode, how, mailbox, gate, tally)
    assert "closed before its end: 3 results were computed and not used" in text


@every_kind_with_workers
@every_generator
@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_a_generator_early_cancels_what_is_left(
    make: Make, mode: str, how: str, mailbox: Mailbox, gate: Gate, tally: Tally
) -> None:
    leave_early(make, mode, how, mailbox, gate, tally)
    assert tally.count() == 0


# -- time limits -------------------------------------------------------------------------------------------------------


@every_kind_with_workers
@every_mode
def test_a_task_that_takes_too_long_raises_the_timeout_error_of_multiprocessing(
    make: Make, mode: str, gate: Gate
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where nobody can end it a warning says so
        with pytest.raises(multiprocessing.TimeoutError):
            list(make(return_as=mode, timeout=LIMIT_SECONDS)([delayed(_tasks.wait_for)(gate)]))


@every_kind_with_workers
def test_a_task_that_takes_too_long_aborts_the_call(make: Make, gate: Gate, tally: Tally) -> None:
    rest = [delayed(_tasks.count_and_return)(tally, i) for i in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(multiprocessing.TimeoutError):
            make(timeout=LIMIT_SECONDS, batch_size=1, pre_dispatch=1)([delayed(_tasks.wait_for)(gate), *rest])
    assert tally.count() == 0


# -- what a call prints ------------------------------------------------------------------------------------------------


@every_kind
def test_a_call_that_is_not_verbose_is_silent(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    make()(delayed(_tasks.noop)(i) for i in range(10))
    assert capfd.readouterr() == ("", "")


@every_kind
@pytest.mark.parametrize("verbose", [1, 10, 49])
def test_a_verbosity_below_fifty_goes_to_stderr(make: Make, verbose: int, capfd: pytest.CaptureFixture[str]) -> None:
    make(verbose=verbose)(delayed(_tasks.noop)(i) for i in range(10))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("[Parallel(n_jobs=2)]: ")


@every_kind
@pytest.mark.parametrize("verbose", [50, 100])
def test_a_verbosity_from_fifty_on_goes_to_stdout(make: Make, verbose: int, capfd: pytest.CaptureFixture[str]) -> None:
    make(verbose=verbose)(delayed(_tasks.noop)(i) for i in range(10))
    out, err = capfd.readouterr()
    assert out.startswith("[Parallel(n_jobs=2)]: ")
    assert err == ""


@every_kind
def test_a_verbosity_above_ten_tells_of_every_batch(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    make(verbose=11, batch_size=1)(delayed(_tasks.noop)(i) for i in range(30))
    lines = [line for line in capfd.readouterr().err.splitlines() if "Done" in line and "finished" not in line]
    assert [int(line.split("Done")[1].split()[0]) for line in lines][:29] == list(range(1, 30))


@every_kind
def test_a_low_verbosity_tells_of_some_batches(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    make(verbose=1, batch_size=1)(delayed(_tasks.noop)(i) for i in range(100))
    assert 2 < capfd.readouterr().err.count("Done") < 50


@every_kind
@every_mode
def test_a_verbose_call_ends_with_a_last_line(make: Make, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    list(make(verbose=1, return_as=mode)(delayed(_tasks.noop)(i) for i in range(10)))
    join_new_threads(before)
    last = capfd.readouterr().err.splitlines()[-1]
    assert "Done 10 out of 10 | elapsed:" in last
    assert last.endswith("finished")


# -- blocks ------------------------------------------------------------------------------------------------------------


@every_kind_with_workers
def test_a_block_keeps_its_workers_for_several_calls(make: Make, mailbox: Mailbox, gate: Gate) -> None:
    with make(batch_size=1, return_as="generator") as parallel:
        results = parallel(delayed(tasks.tell_place_and_wait)(mailbox, gate) for _ in range(2))
        mailbox.receive(2)  # both are there at the same time
        gate.open()
        workers = set(results)
        assert len(workers) == 2
        for _ in range(3):
            assert set(parallel(delayed(tasks.place)() for _ in range(20))) <= workers


# -- how a call is aborted ---------------------------------------------------------------------------------------------


def record_aborts(parallel: Parallel) -> list[bool]:
    """Note from now on with which `ensure_ready` the backend is told to abort."""
    aborts: list[bool] = []
    abort = parallel._backend.abort_everything

    def abort_everything(ensure_ready: bool = True) -> None:
        aborts.append(ensure_ready)
        abort(ensure_ready=ensure_ready)

    parallel._backend.abort_everything = abort_everything  # type: ignore[method-assign]
    return aborts


def interrupted() -> Iterator[Any]:
    yield delayed(_tasks.noop)(1)
    raise KeyboardInterrupt


def failing() -> Iterator[Any]:
    yield delayed(_tasks.fail)("in a task")


every_end = pytest.mark.parametrize(("work", "error"), [(failing, LookupError), (interrupted, KeyboardInterrupt)])


@every_kind_with_workers
@every_end
def test_an_error_aborts_and_nothing_has_to_be_ready_afterwards(make: Make, work: Any, error: Any) -> None:
    parallel = make()
    aborts = record_aborts(parallel)
    with pytest.raises(error):
        parallel(work())
    assert aborts == [False]


@every_kind_with_workers
@every_end
def test_an_error_in_a_block_aborts_and_leaves_the_workers_ready(make: Make, work: Any, error: Any) -> None:
    parallel = make()
    aborts = record_aborts(parallel)
    with parallel:
        with pytest.raises(error):
            parallel(work())
        assert aborts == [True]
        assert parallel(delayed(_tasks.square)(i) for i in range(5)) == [0, 1, 4, 9, 16]


# -- calls inside tasks ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
@every_kind_with_workers
def test_the_first_level_inside_a_task_gets_threads_and_deeper_ones_are_sequential(make: Make) -> None:
    for seen in make(batch_size=1)(delayed(tasks.backends_inside)(3) for _ in range(2)):
        assert seen == ["ThreadsBackend", "SequentialBackend", "SequentialBackend"]


@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
@every_kind_with_workers
def test_a_call_inside_a_task_never_makes_a_second_pool_of_processes(make: Make) -> None:
    for (pid, _), inner, _ in make(batch_size=1)(delayed(tasks.places_inside)() for _ in range(2)):
        assert {inner_pid for inner_pid, _ in inner} == {pid}


@pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")
@every_kind_with_workers
def test_a_call_inside_a_call_inside_a_task_runs_in_its_caller(make: Make) -> None:
    for _, _, elsewhere in make(batch_size=1)(delayed(tasks.places_inside)() for _ in range(2)):
        assert elsewhere == []


@every_kind_with_workers
def test_inside_a_task_the_default_is_one_job_whatever_is_set_outside(make: Make, options: dict[str, Any]) -> None:
    with parallel_config(n_jobs=2):
        assert make(batch_size=1)(delayed(tasks.default_n_jobs)() for _ in range(4)) == [(1, 1)] * 4


@pytest.mark.parametrize("backend", ["loky", "mp"])
def test_a_daemonic_process_runs_its_calls_sequentially_with_a_warning(backend: str) -> None:
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:  # whose workers are daemonic
        same_process, texts = pool.apply(tasks.call_and_collect_warnings, (backend,))
        pool.close()
        pool.join()
    assert same_process == [0, 0, 0]
    assert any("one after the other" in text and "daemonic" in text for text in texts)


# -- progress ----------------------------------------------------------------------------------------------------------


class Bar(Parallel):
    """A progress bar as people make it for joblib."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[int, int, int | None]] = []

    def print_progress(self) -> None:
        self.seen.append((self.n_completed_tasks, self.n_dispatched_tasks, self.n_tasks))


every_n_jobs = pytest.mark.parametrize("n_jobs", [1, 2])


@every_kind
@every_n_jobs
def test_an_overridden_print_progress_is_called_after_every_batch(options: dict[str, Any], n_jobs: int) -> None:
    bar = Bar(n_jobs, **options, batch_size=1)
    bar([delayed(_tasks.noop)(i) for i in range(10)])
    assert [completed for completed, _, _ in bar.seen] == list(range(1, 11))


@every_kind
@every_n_jobs
@every_mode
def test_print_progress_may_read_how_many_tasks_are_done_sent_and_there_in_all(
    options: dict[str, Any], n_jobs: int, mode: str
) -> None:
    bar = Bar(n_jobs, **options, return_as=mode, batch_size=2)
    list(bar([delayed(_tasks.noop)(i) for i in range(9)]))
    assert all(completed <= dispatched <= total == 9 for completed, dispatched, total in bar.seen)  # type: ignore[operator]
    assert bar.seen[-1] == (9, 9, 9)


@every_kind
@every_n_jobs
def test_the_number_of_tasks_is_none_while_the_input_does_not_tell_it(options: dict[str, Any], n_jobs: int) -> None:
    bar = Bar(n_jobs, **options, batch_size=1, pre_dispatch=1)
    bar(delayed(_tasks.noop)(i) for i in range(5))
    assert [total for _, _, total in bar.seen[:4]] == [None] * 4


@every_kind
def test_the_counters_can_be_read_after_a_call(make: Make) -> None:
    parallel = make()
    parallel([delayed(_tasks.noop)(i) for i in range(7)])
    assert (parallel.n_completed_tasks, parallel.n_dispatched_tasks, parallel.n_tasks) == (7, 7, 7)
