"""Time limits: whose they are, that they hold wherever the caller is busy, and what they leave alone."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel import Parallel, Retry, delayed
from parallel.backend import ParallelBackendBase
from parallel.errors import CallTimeoutError, TaskTimeoutError
from parallel_testkit import _fault_tasks, _tasks
from parallel_testkit._marks import capability
from parallel_testkit._processes import wait_until_gone
from parallel_testkit._signals import Gate, Mailbox
from parallel_testkit._suite import Make, Suite, every_mode, join_new_threads

__all__ = ["LimitTests"]

#: Where all tasks are endless: short, because the test waits for it.
LIMIT_SECONDS = 0.1
#: Where others have to stay below it, on a busy machine too.
ROOMY_LIMIT_SECONDS = 0.5

every_generator = pytest.mark.parametrize("mode", ["generator", "generator_unordered"])
every_limit = pytest.mark.parametrize("limit", ["timeout", "total_timeout"])


@capability("time limits")
class LimitTests(Suite):
    """``timeout`` and ``total_timeout``."""

    # -- what the error says -----------------------------------------------------------------------------------------

    @every_mode
    def test_the_error_of_a_limit_says_what_ran_where_and_how_long(self, make: Make, mode: str, gate: Gate) -> None:
        parallel = make(return_as=mode, timeout=LIMIT_SECONDS)
        with pytest.raises(TaskTimeoutError) as caught:
            list(parallel([delayed(_tasks.wait_for)(gate) for _ in range(self.n_jobs + 1)]))
        error = caught.value
        assert isinstance(error, multiprocessing.TimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.task_index in range(self.n_jobs)
        assert error.function == "wait_for"
        assert error.backend == parallel._chosen.name
        assert error.limit_seconds == LIMIT_SECONDS
        assert error.ran_seconds >= LIMIT_SECONDS
        assert error.attempts == 1

    @every_mode
    def test_the_error_of_a_limit_of_the_call_says_how_long_it_ran(self, make: Make, mode: str, gate: Gate) -> None:
        parallel = make(return_as=mode, total_timeout=LIMIT_SECONDS)
        with pytest.raises(CallTimeoutError) as caught:
            list(parallel([delayed(_tasks.wait_for)(gate) for _ in range(self.n_jobs + 1)]))
        error = caught.value
        assert isinstance(error, multiprocessing.TimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.backend == parallel._chosen.name
        assert error.limit_seconds == LIMIT_SECONDS
        assert error.ran_seconds >= LIMIT_SECONDS

    def test_the_slow_task_among_many_fast_ones_is_blamed(self, make: Make, gate: Gate) -> None:
        with pytest.raises(TaskTimeoutError) as caught:
            make(timeout=ROOMY_LIMIT_SECONDS)(delayed(_fault_tasks.wait_at)(gate, {321}, i) for i in range(400))
        assert caught.value.task_index == 321

    def test_a_list_call_past_its_limit_carries_what_had_arrived(self, make: Make) -> None:
        endless_input = (delayed(_tasks.square)(i) for i in itertools.count())
        with pytest.raises(CallTimeoutError) as caught:
            make(total_timeout=ROOMY_LIMIT_SECONDS)(endless_input)
        partial = caught.value.partial_results  # type: ignore[attr-defined]
        assert all(value == index * index for index, value in partial.items())

    # -- what a limit does not depend on -----------------------------------------------------------------------------

    def test_a_single_worker_keeps_a_limit(self, make: Make, gate: Gate) -> None:
        with pytest.raises(TaskTimeoutError) as caught:
            make(n_jobs=1, timeout=LIMIT_SECONDS)([delayed(_tasks.wait_for)(gate)])
        assert caught.value.task_index == 0

    @pytest.mark.parametrize("batch_size", ["auto", 8])
    def test_a_limit_counts_from_the_start_of_a_task(self, make: Make, batch_size: int | str) -> None:
        tasks = [delayed(_fault_tasks.occupy)(ROOMY_LIMIT_SECONDS / 6, i) for i in range(8 * self.n_jobs)]
        assert make(timeout=ROOMY_LIMIT_SECONDS, batch_size=batch_size)(tasks) == list(range(8 * self.n_jobs))

    @every_generator
    @every_limit
    def test_a_limit_holds_while_the_consumer_is_idle(
        self, make: Make, mode: str, limit: str, gate: Gate, pipes: Path, declared: ParallelBackendBase
    ) -> None:
        with make(return_as=mode, batch_size=1) as parallel:
            processes = self._processes(parallel, pipes)
            before = set(threading.enumerate())
            self._set(parallel, limit, LIMIT_SECONDS)
            results = parallel([delayed(_tasks.wait_for)(gate)])
            join_new_threads(before)  # the call ends, though nobody has asked for a result
            if declared.supports_kill:
                wait_until_gone(*processes)
            with pytest.raises(TimeoutError):
                next(results)

    @every_mode
    @every_limit
    def test_a_limit_holds_while_the_input_blocks(
        self, make: Make, mode: str, limit: str, gate: Gate, pipes: Path, declared: ParallelBackendBase
    ) -> None:
        if not declared.supports_kill:
            self.skip("does not declare supports_kill: nothing happens to the task")
        was_killed_meanwhile = False

        def tasks() -> Iterator[Any]:
            nonlocal was_killed_meanwhile
            yield delayed(_tasks.wait_for)(gate)
            wait_until_gone(*processes)
            was_killed_meanwhile = True
            yield delayed(_tasks.noop)()

        with make(return_as=mode, batch_size=1) as parallel:
            processes = self._processes(parallel, pipes)
            self._set(parallel, limit, LIMIT_SECONDS)
            with pytest.raises(TimeoutError):
                list(parallel(tasks()))
        assert was_killed_meanwhile

    def _processes(self, parallel: Parallel, folder: Path) -> list[int]:
        """Give the processes of all workers of a block, which must be one of batches of one task."""
        with Mailbox(folder / "processes") as mailbox, Gate(folder / "all-there") as gate:
            mode, parallel.return_as = parallel.return_as, "generator"
            results = parallel([delayed(_fault_tasks.tell_process_and_wait)(mailbox, gate)] * self.n_jobs)
            processes = [int(text) for text in mailbox.receive(self.n_jobs)]
            gate.open()
            list(results)
            parallel.return_as = mode
        return processes

    def _set(self, parallel: Parallel, limit: str, seconds: float) -> None:
        parallel.timeout = seconds if limit == "timeout" else None
        parallel.total_timeout = seconds if limit == "total_timeout" else None

    # -- what goes on ------------------------------------------------------------------------------------------------

    @every_mode
    @pytest.mark.parametrize("batch_size", ["auto", 5])
    def test_a_task_past_its_limit_costs_only_itself(
        self, make: Make, mode: str, batch_size: int | str, gate: Gate, declared: ParallelBackendBase
    ) -> None:
        parallel = make(return_as=mode, batch_size=batch_size, timeout=ROOMY_LIMIT_SECONDS, return_exceptions=True)
        results, texts = _with_warnings(
            lambda: list(parallel(delayed(_fault_tasks.wait_at)(gate, {7}, i) for i in range(20)))
        )
        (error,) = [result for result in results if not isinstance(result, int)]
        assert isinstance(error, TaskTimeoutError)
        assert error.task_index == 7
        if mode != "generator_unordered":
            assert results.index(error) == 7
        results.remove(error)
        assert sorted(results) == [i for i in range(20) if i != 7]
        assert len(texts) == (0 if declared.supports_kill else 1), texts

    def test_tasks_past_their_limit_do_not_use_up_the_workers(
        self, make: Make, gate: Gate, declared: ParallelBackendBase
    ) -> None:
        if not self._gets_workers_back(declared):
            self.skip("has no way to get a worker back from an endless task")
        slow = {2, 3, 4, 11, 19}
        parallel = make(timeout=ROOMY_LIMIT_SECONDS, return_exceptions=True)
        results, texts = _with_warnings(
            lambda: parallel(delayed(_fault_tasks.wait_at)(gate, slow, i) for i in range(20))
        )
        assert [i for i, result in enumerate(results) if isinstance(result, TaskTimeoutError)] == sorted(slow)
        assert [result for result in results if isinstance(result, int)] == [i for i in range(20) if i not in slow]
        assert len(texts) == (0 if declared.supports_kill else 1), texts

    def test_when_every_worker_is_held_the_call_ends(
        self, make: Make, gate: Gate, declared: ParallelBackendBase
    ) -> None:
        if self._gets_workers_back(declared):
            self.skip("gets workers back from endless tasks")
        parallel = make(timeout=LIMIT_SECONDS, return_exceptions=True)

        def call() -> Any:
            with pytest.raises(TaskTimeoutError) as caught:
                parallel([delayed(_tasks.wait_for)(gate) for _ in range(2 * self.n_jobs)])
            return caught.value

        error, texts = _with_warnings(call)
        assert any("every worker is held" in note for note in error.__notes__)
        assert len(texts) == 1

    def _gets_workers_back(self, declared: ParallelBackendBase) -> bool:
        return declared.supports_kill or type(declared).replace is not ParallelBackendBase.replace

    # -- another attempt ---------------------------------------------------------------------------------------------

    @every_mode
    def test_a_task_past_its_limit_is_tried_again(self, make: Make, mode: str, gate: Gate, tmp_path: Path) -> None:
        mark = str(tmp_path / "mark")
        parallel = make(return_as=mode, timeout=ROOMY_LIMIT_SECONDS, retries=Retry(2, on=(TaskTimeoutError,)))
        results, _ = _with_warnings(
            lambda: list(parallel(delayed(_fault_tasks.wait_at_first)(gate, mark, 3, i) for i in range(10)))
        )
        assert sorted(results) == list(range(10))

    def test_a_limit_that_stands_counts_the_attempts(self, make: Make, gate: Gate) -> None:
        parallel = make(timeout=LIMIT_SECONDS, retries=1)

        def call() -> Any:
            with pytest.raises(TaskTimeoutError) as caught:
                parallel([delayed(_tasks.wait_for)(gate)])
            return caught.value

        error, _ = _with_warnings(call)
        assert error.attempts == 2
        assert "this was attempt 2 of 2" in error.__notes__

    # -- afterwards --------------------------------------------------------------------------------------------------

    @capability("reuse after errors")
    @every_limit
    def test_a_block_goes_on_after_a_limit(
        self, make: Make, limit: str, gate: Gate, pipes: Path, declared: ParallelBackendBase
    ) -> None:
        with make(batch_size=1) as parallel:
            processes = self._processes(parallel, pipes)
            self._set(parallel, limit, LIMIT_SECONDS)
            with pytest.raises(TimeoutError):
                parallel([delayed(_tasks.wait_for)(gate)] * self.n_jobs)
            if declared.supports_kill:
                for process in processes:
                    wait_until_gone(process)
            else:
                gate.open()  # what cannot be killed holds its worker until here
            self._set(parallel, "none", 0.0)
            assert parallel.map(_tasks.square, range(20)) == [i * i for i in range(20)]


def _with_warnings(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Give what `act` gives, and the warnings about tasks that passed their limit."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = act()
    return result, [str(warning.message) for warning in seen if "passed the time limit" in str(warning.message)]
