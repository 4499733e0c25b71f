"""Failures that cost only what failed: in place, tried again, with the worker, and when a call is left."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel import Parallel, Retry, delayed
from parallel.backend import ParallelBackendBase
from parallel.errors import ResultPicklingError, WorkerLostError
from parallel_testkit import _fault_tasks, _tasks
from parallel_testkit._marks import capability
from parallel_testkit._processes import wait_until_gone
from parallel_testkit._signals import Gate, Mailbox, Tally
from parallel_testkit._suite import Make, Suite, close_and_wait, every_mode, join_new_threads

__all__ = ["FaultTests"]

every_size = pytest.mark.parametrize("batch_size", ["auto", 1, 4])
every_end = pytest.mark.parametrize("how", sorted(_fault_tasks.ENDS))


@capability("failures in place")
class FaultTests(Suite):
    """``return_exceptions``, ``retries``, lost workers, and calls that are left."""

    # -- in place of results -----------------------------------------------------------------------------------------

    @every_mode
    @every_size
    def test_failures_stand_in_place_of_results(self, make: Make, mode: str, batch_size: int | str) -> None:
        bad = {0, 5, 6, 19}
        parallel = make(return_as=mode, batch_size=batch_size, return_exceptions=True)
        results = list(parallel(delayed(_fault_tasks.fail_at_any)(bad, i) for i in range(20)))
        shown = [str(result) if isinstance(result, LookupError) else result for result in results]
        expected = [f"bad number {i}" if i in bad else i for i in range(20)]
        if mode == "generator_unordered":
            shown.sort(key=str)
            expected.sort(key=str)
        assert shown == expected

    def test_every_task_fails(self, make: Make) -> None:
        results = make(return_exceptions=True)(delayed(_tasks.fail)(str(i)) for i in range(100))
        assert [str(result) for result in results] == [str(i) for i in range(100)]

    def test_a_failure_in_place_says_which_task_it_was(self, make: Make) -> None:
        results = make(return_exceptions=True)(delayed(_tasks.fail_at)(3, i) for i in range(5))
        (note,) = results[3].__notes__
        assert "task 3 (fail_at)" in note

    @every_mode
    @pytest.mark.parametrize("name", sorted(_tasks.EXITS))
    def test_an_exit_stands_in_place_as_itself(self, make: Make, mode: str, name: str) -> None:
        kind = _tasks.EXITS[name]
        parallel = make(return_as=mode, return_exceptions=True)
        results = list(parallel(delayed(_fault_tasks.exit_at)(kind, 3, i) for i in range(10)))
        (error,) = [result for result in results if not isinstance(result, int)]
        assert type(error) is kind
        assert error.args == ("from a task",)
        assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    def test_an_input_that_raises_ends_the_call_all_the_same(self, make: Make) -> None:
        def tasks() -> Iterator[Any]:
            yield delayed(_tasks.fail)("in place")
            raise ZeroDivisionError("the input")

        with pytest.raises(ZeroDivisionError, match="the input"):
            make(return_exceptions=True)(tasks())

    # -- what had arrived before the failure -------------------------------------------------------------------------

    def test_the_exception_of_a_list_call_carries_what_had_arrived(self, make: Make) -> None:
        with pytest.raises(LookupError) as caught:
            make(batch_size=1, pre_dispatch=1)(delayed(_tasks.fail_at)(3, i) for i in range(10))
        assert caught.value.partial_results == {0: 0, 1: 1, 2: 2}  # type: ignore[attr-defined]

    @every_size
    def test_what_it_carries_is_right_and_under_its_index(self, make: Make, batch_size: int | str) -> None:
        with pytest.raises(LookupError) as caught:
            make(batch_size=batch_size)(delayed(_tasks.fail_at)(50, i) for i in range(100))
        partial = caught.value.partial_results  # type: ignore[attr-defined]
        assert all(index == value != 50 for index, value in partial.items())

    def test_an_input_that_raises_carries_what_had_arrived(self, make: Make, mailbox: Mailbox) -> None:
        def tasks() -> Iterator[Any]:
            yield delayed(_tasks.noop)("first")
            yield delayed(_tasks.noop)("second")
            raise ZeroDivisionError("the input")

        with pytest.raises(ZeroDivisionError) as caught:
            make(batch_size=1, pre_dispatch=1)(tasks())
        assert caught.value.partial_results == {0: "first", 1: "second"}  # type: ignore[attr-defined]

    def test_an_ordered_generator_does_not_wait_for_what_comes_before_a_failure(self, make: Make, gate: Gate) -> None:
        tasks = [delayed(_tasks.wait_for)(gate, 0), delayed(_tasks.fail)("at once")]
        results = make(return_as="generator", batch_size=1)(tasks)
        with pytest.raises(LookupError, match="at once"):
            next(results)

    # -- another attempt ---------------------------------------------------------------------------------------------

    @capability("retries")
    @every_mode
    @every_size
    def test_a_task_that_fails_at_first_is_tried_again(
        self, make: Make, mode: str, batch_size: int | str, tmp_path: Path
    ) -> None:
        parallel = make(return_as=mode, batch_size=batch_size, retries=2)
        results = list(parallel(delayed(_fault_tasks.fail_until)(str(tmp_path), 1 + i % 3, i) for i in range(12)))
        assert (sorted(results) if mode == "generator_unordered" else results) == list(range(12))
        assert [_attempts(tmp_path, i) for i in range(12)] == [1, 2, 3] * 4

    @capability("retries")
    def test_the_last_failure_counts_the_attempts(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(LookupError, match="number 1, attempt 3") as caught:
            make(retries=2)([delayed(_tasks.noop)(), delayed(_fault_tasks.fail_until)(str(tmp_path), 9, 1)])
        assert _attempts(tmp_path, 1) == 3
        assert "this was attempt 3 of 3" in caught.value.__notes__
        assert any("task 1 (fail_until)" in note for note in caught.value.__notes__)

    @capability("retries")
    @every_mode
    def test_the_last_failure_stands_in_place(self, make: Make, mode: str, tmp_path: Path) -> None:
        parallel = make(return_as=mode, retries=1, return_exceptions=True)
        results = list(parallel(delayed(_fault_tasks.fail_until)(str(tmp_path), 1 + i % 3, i) for i in range(6)))
        failed = [result for result in results if isinstance(result, LookupError)]
        assert sorted(map(str, failed)) == ["number 2, attempt 2", "number 5, attempt 2"]
        assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 3, 4]
        assert all("this was attempt 2 of 2" in error.__notes__ for error in failed)

    @capability("retries")
    def test_only_what_the_policy_names_is_tried_again(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(LookupError, match="attempt 1"):
            make(retries=Retry(5, on=(KeyError, OSError)))([delayed(_fault_tasks.fail_until)(str(tmp_path), 3, 0)] * 1)
        assert _attempts(tmp_path, 0) == 1
        retry = Retry(5, on=(OSError, LookupError))
        assert make(retries=retry)([delayed(_fault_tasks.fail_until)(str(tmp_path), 3, 0)]) == [0]
        assert _attempts(tmp_path, 0) == 3

    @capability("retries")
    def test_an_exit_is_tried_again_like_any_failure(self, make: Make, tally: Tally) -> None:
        def leave() -> None:
            tally.add()
            raise SystemExit(1)

        (error,) = make(retries=2, return_exceptions=True)([delayed(leave)()])
        assert isinstance(error, SystemExit)
        assert tally.count() == 3
        (error,) = make(retries=Retry(3, on=(Exception,)), return_exceptions=True)([delayed(leave)()])
        assert isinstance(error, SystemExit)
        assert tally.count() == 4

    @capability("retries")
    @every_mode
    def test_an_attempt_may_wait(self, make: Make, mode: str, tmp_path: Path) -> None:
        retry = Retry(3, backoff_seconds=0.01, jitter=0.5)
        parallel = make(return_as=mode, retries=retry)
        results = list(parallel(delayed(_fault_tasks.fail_until)(str(tmp_path), 1 + i % 3, i) for i in range(9)))
        assert sorted(results) == list(range(9))

    @capability("retries")
    def test_others_run_while_an_attempt_waits(self, make: Make, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        parallel = make(return_as="generator_unordered", retries=Retry(2, backoff_seconds=1e6))
        tasks = [delayed(_fault_tasks.fail_until)(str(tmp_path), 2 if i == 0 else 1, i) for i in range(20)]
        results = parallel(tasks)
        assert sorted(next(results) for _ in range(19)) == list(range(1, 20))
        with pytest.warns(RuntimeWarning, match="closed before its end: 0 results"):
            close_and_wait(results, before)

    # -- results that cannot travel ----------------------------------------------------------------------------------

    @capability("unpicklable things")
    @pytest.mark.usefixtures("only_across_processes")
    @every_mode
    @every_size
    def test_a_result_that_cannot_be_pickled_costs_only_itself(
        self, make: Make, mode: str, batch_size: int | str
    ) -> None:
        parallel = make(return_as=mode, batch_size=batch_size, return_exceptions=True)
        self._check_lost_results(list(parallel(delayed(_fault_tasks.give_lock_at)({3, 9}, i) for i in range(20))))

    @capability("unpicklable things")
    @pytest.mark.usefixtures("only_across_processes")
    @every_mode
    @every_size
    def test_a_result_that_cannot_be_unpickled_costs_only_itself(
        self, make: Make, mode: str, batch_size: int | str
    ) -> None:
        parallel = make(return_as=mode, batch_size=batch_size, return_exceptions=True)
        self._check_lost_results(list(parallel(delayed(_fault_tasks.give_unreadable_at)({3, 9}, i) for i in range(20))))

    def _check_lost_results(self, results: list[Any]) -> None:
        errors = [result for result in results if isinstance(result, ResultPicklingError)]
        notes = [note for error in errors for note in [str(error), *error.__notes__]]
        assert len(errors) == 2
        assert all(any(f"task {i} (give_" in note for note in notes) for i in (3, 9)), notes
        assert sorted(result for result in results if isinstance(result, int)) == [
            i for i in range(20) if i not in (3, 9)
        ]

    # -- lost workers ------------------------------------------------------------------------------------------------

    @pytest.fixture
    def only_if_workers_are_replaced(self, declared: ParallelBackendBase) -> None:
        """Skip the test where the loss of a worker ends more than a call."""
        if not declared.replaces_workers:
            self.skip("does not declare replaces_workers")

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    @every_end
    def test_a_lost_worker_is_an_error_that_says_how_it_ended(self, make: Make, how: str) -> None:
        with pytest.raises(WorkerLostError) as caught:
            make(batch_size=1)(delayed(_fault_tasks.end_worker_at)(how, 3, i) for i in range(10))
        error = caught.value
        expected = {"exit": (3, None), "kill": (None, signal.SIGKILL), "segfault": (None, signal.SIGSEGV)}[how]
        if (error.exit_code, error.signal) == (None, None):
            self.skip("does not say how a worker ended, by exit_code and signal of WorkerLostError")
        assert (error.exit_code, error.signal) == expected
        assert error.task_indices
        assert error.backend == make()._chosen.name
        assert error.partial_results.items() <= {(i, i) for i in range(10)}  # type: ignore[attr-defined]

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    @every_mode
    def test_a_lost_worker_ends_the_call_in_every_mode(self, make: Make, mode: str) -> None:
        with pytest.raises(WorkerLostError):
            list(make(return_as=mode)(delayed(_fault_tasks.end_worker_at)("kill", 3, i) for i in range(10)))

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    def test_a_lost_worker_names_what_it_had(self, make: Make) -> None:
        with pytest.raises(WorkerLostError) as caught:
            make()([delayed(_fault_tasks.end_worker)("exit")])
        assert caught.value.task_indices == range(1)
        assert "task 0" in str(caught.value)

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    @every_end
    def test_a_task_that_ends_its_worker_costs_only_itself(self, make: Make, how: str) -> None:
        tasks = [delayed(_fault_tasks.end_worker_at)(how, 13, i) for i in range(100)]
        results = make(return_exceptions=True)(tasks)
        assert isinstance(results[13], WorkerLostError)
        assert results[13].task_indices == range(13, 14)
        assert results[:13] + results[14:] == [i for i in range(100) if i != 13]

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    @pytest.mark.parametrize(
        ("mode", "batch_size"),
        [("list", "auto"), ("list", 1), ("list", 4), ("generator", "auto"), ("generator_unordered", 4)],
    )
    def test_the_loss_of_a_worker_stands_in_place(self, make: Make, mode: str, batch_size: int | str) -> None:
        parallel = make(return_as=mode, batch_size=batch_size, return_exceptions=True)
        results = list(parallel(delayed(_fault_tasks.end_worker_at)("exit", 5, i) for i in range(20)))
        (error,) = [result for result in results if not isinstance(result, int)]
        assert isinstance(error, WorkerLostError)
        assert error.exit_code in (3, None)  # not every backend can tell
        if mode != "generator_unordered":
            assert results.index(error) == 5
        assert sorted(result for result in results if isinstance(result, int)) == [i for i in range(20) if i != 5]

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    @every_mode
    def test_a_task_that_lost_its_worker_is_tried_again(self, make: Make, mode: str, tmp_path: Path) -> None:
        mark = str(tmp_path / "mark")
        parallel = make(return_as=mode, retries=1)
        results = list(parallel(delayed(_fault_tasks.end_worker_at_first)("kill", mark, 5, i) for i in range(50)))
        assert (sorted(results) if mode == "generator_unordered" else results) == list(range(50))

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    def test_a_task_that_always_ends_its_worker_counts_its_attempts(self, make: Make) -> None:
        with pytest.raises(WorkerLostError) as caught:
            make(retries=2)(delayed(_fault_tasks.end_worker_at)("exit", 5, i) for i in range(10))
        assert caught.value.attempts == 3
        assert caught.value.task_indices == range(5, 6)
        assert "this was attempt 3 of 3" in caught.value.__notes__

    @capability("worker loss")
    @pytest.mark.usefixtures("only_if_workers_are_replaced")
    def test_calls_after_the_loss_of_a_worker(self, make: Make) -> None:
        parallel = make()
        for block in (contextlib.nullcontext(), parallel):
            with block:
                for _ in range(2):
                    with pytest.raises(WorkerLostError):
                        parallel(delayed(_fault_tasks.end_worker_at)("kill", 3, i) for i in range(10))
                    assert parallel.map(_tasks.noop, range(10)) == list(range(10))

    # -- calls that are left -----------------------------------------------------------------------------------------

    @capability("early close")
    @pytest.mark.parametrize("how", ["close", "del", "raise", "gc in another thread"])
    def test_a_generator_that_is_left_ends_what_runs(
        self, make: Make, how: str, gate: Gate, mailbox: Mailbox, declared: ParallelBackendBase
    ) -> None:
        before = set(threading.enumerate())
        with make(return_as="generator_unordered", batch_size=1) as parallel:
            processes: list[str] = []
            with pytest.warns(RuntimeWarning, match="closed before its end"):
                self._leave(parallel, how, gate, mailbox, processes, before)
            self._check_ended(declared, processes, gate)
            assert sorted(parallel.map(_tasks.noop, range(10))) == list(range(10))

    def _leave(
        self,
        parallel: Parallel,
        how: str,
        gate: Gate,
        mailbox: Mailbox,
        processes: list[str],
        before: set[threading.Thread],
    ) -> None:
        """Start a call, leave it when every worker is in an endless task, and wait until it is over."""
        with contextlib.suppress(ZeroDivisionError):
            self._consume(parallel, how, gate, mailbox, processes)
        join_new_threads(before)

    def _consume(self, parallel: Parallel, how: str, gate: Gate, mailbox: Mailbox, processes: list[str]) -> None:
        endless = [delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)] * self.n_jobs
        results: Any = parallel([delayed(_tasks.noop)("first"), *endless])
        for result in results:
            assert result == "first"
            processes.extend(mailbox.receive(self.n_jobs))
            if how == "raise":
                raise ZeroDivisionError("the consumer's own error")
            break
        if how == "close":
            results.close()
        elif how == "gc in another thread":
            gc.disable()  # so that it is that thread
            try:
                cycle: list[Any] = [results]
                cycle.append(cycle)
                del cycle, results
                thread = threading.Thread(target=gc.collect)
                thread.start()
                thread.join()
            finally:
                gc.enable()

    @capability("abort")
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
    def test_a_list_call_that_is_interrupted_ends_what_runs(
        self, make: Make, kind: type[BaseException], gate: Gate, mailbox: Mailbox, declared: ParallelBackendBase
    ) -> None:
        processes: list[str] = []

        def tasks() -> Iterator[Any]:
            for _ in range(self.n_jobs):
                yield delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)
            processes.extend(mailbox.receive(self.n_jobs))
            raise kind("as if by the user")

        with make(batch_size=1) as parallel:
            with pytest.raises(kind, match="as if by the user"):
                parallel(tasks())
            self._check_ended(declared, processes, gate)
            assert parallel.map(_tasks.noop, range(10)) == list(range(10))

    @capability("abort")
    @every_mode
    def test_the_first_failure_ends_what_runs(
        self, make: Make, mode: str, gate: Gate, mailbox: Mailbox, declared: ParallelBackendBase
    ) -> None:
        processes: list[str] = []

        def tasks() -> Iterator[Any]:
            yield delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)
            processes.extend(mailbox.receive())
            yield delayed(_tasks.fail)("at once")

        with make(return_as=mode, batch_size=1) as parallel:
            with pytest.raises(LookupError, match="at once"):
                list(parallel(tasks()))
            self._check_ended(declared, processes, gate)
            assert sorted(parallel.map(_tasks.noop, range(10))) == list(range(10))

    def _check_ended(self, declared: ParallelBackendBase, processes: list[str], gate: Gate) -> None:
        if declared.supports_kill:
            for process in processes:
                wait_until_gone(int(process))
        else:
            gate.open()  # what cannot be killed holds its worker until here


def _attempts(folder: Path, number: int) -> int:
    return Tally(folder / f"attempts-{number}").count()
