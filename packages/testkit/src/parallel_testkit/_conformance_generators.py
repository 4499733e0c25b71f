"""Results handed out one by one: how far the workers go ahead, and what happens to a generator that is left."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Generator
from typing import Any

import pytest

from parallel import delayed
from parallel_testkit import _tasks
from parallel_testkit._marks import capability
from parallel_testkit._signals import Gate, Mailbox, Tally
from parallel_testkit._suite import Make, Suite, join_new_threads

__all__ = ["GeneratorTests"]

#: What a generator may run beyond what was consumed.
BATCHES_PER_WORKER_AHEAD = 4
TASKS_AHEAD = 10_000

every_generator = pytest.mark.parametrize("mode", ["generator", "generator_unordered"])


def leave(results: Generator[Any, None, None], how: str) -> None:
    """Stop using a generator before its end."""
    if how == "close":
        results.close()
    elif how == "break":
        for _ in results:
            break
    elif how == "raise":
        with contextlib.suppress(ZeroDivisionError):
            for _ in results:
                raise ZeroDivisionError("the consumer's own error")


@capability("generators")
class GeneratorTests(Suite):
    """``return_as="generator"`` and ``"generator_unordered"``."""

    @every_generator
    def test_the_workers_start_before_the_consumer_does(
        self, make: Make, mode: str, mailbox: Mailbox, gate: Gate
    ) -> None:
        results = make(return_as=mode)([delayed(_tasks.announce_and_wait)(mailbox, gate, 1)])
        mailbox.receive()  # nobody has asked for a result
        gate.open()
        assert list(results) == [1]

    # -- how far ahead -----------------------------------------------------------------------------------------------

    @every_generator
    def test_few_batches_run_beyond_what_was_consumed(
        self, make: Make, mode: str, mailbox: Mailbox, tally: Tally
    ) -> None:
        def count_and_tell(number: int) -> int:
            mailbox.send(number)
            return int(_tasks.count_and_return(tally, number))

        workers = self.n_jobs
        ahead = BATCHES_PER_WORKER_AHEAD * workers
        total = 200
        results = make(return_as=mode, batch_size=1)(delayed(count_and_tell)(i) for i in range(total))
        told = 0
        for consumed in range(1, total + 1):
            next(results)
            # Workers do go ahead, so wait until they have; then look how far.
            while told < min(consumed + workers, total):
                mailbox.receive()
                told += 1
            assert tally.count() <= consumed + ahead
        assert list(results) == []

    @every_generator
    def test_few_tasks_run_beyond_what_was_consumed(self, make: Make, mode: str, tally: Tally) -> None:
        total = 4 * TASKS_AHEAD
        results = make(return_as=mode, batch_size=1000)(
            delayed(_tasks.count_and_return)(tally, i) for i in range(total)
        )
        for consumed in range(1, total + 1):
            next(results)
            if consumed % 250 == 1:
                assert tally.count() <= consumed + TASKS_AHEAD
        assert list(results) == []

    @every_generator
    def test_the_input_is_not_read_far_ahead_of_the_consumer(self, make: Make, mode: str) -> None:
        read = 0

        def tasks() -> Any:
            nonlocal read
            for i in range(1000):
                read += 1
                yield delayed(_tasks.noop)(i)

        results = make(return_as=mode, batch_size=1)(tasks())
        for consumed in range(1, 1001):
            next(results)
            assert read <= consumed + BATCHES_PER_WORKER_AHEAD * self.n_jobs + 1
        assert list(results) == []

    # -- one generator at a time -------------------------------------------------------------------------------------

    @every_generator
    def test_a_call_while_a_generator_is_running_is_refused(self, make: Make, mode: str, gate: Gate) -> None:
        parallel = make(return_as=mode, batch_size=1)
        results = parallel([delayed(_tasks.wait_for)(gate, 1), delayed(_tasks.noop)(2)])
        with pytest.raises(RuntimeError, match="generator"):
            parallel([delayed(_tasks.noop)(3)])
        gate.open()
        assert sorted(results) == [1, 2]
        assert list(parallel([delayed(_tasks.noop)(3)])) == [3]

    def test_generators_of_two_objects_at_a_time(self, make: Make) -> None:
        first = make(return_as="generator").map(_tasks.square, range(50))
        second = make(return_as="generator").map(_tasks.square, range(50, 100))
        assert list(zip(first, second, strict=True)) == [(i * i, (i + 50) ** 2) for i in range(50)]

    def test_a_generator_can_be_consumed_in_another_thread(self, make: Make) -> None:
        results = make(return_as="generator").map(_tasks.square, range(100))
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.extend(results))
        thread.start()
        thread.join(60)
        assert got == [i * i for i in range(100)]

    # -- left before the end -----------------------------------------------------------------------------------------

    @capability("early close")
    @every_generator
    @pytest.mark.parametrize("how", ["close", "break", "raise", "dropped", "never started"])
    def test_a_generator_that_is_left_stops_the_call_with_one_warning(
        self, make: Make, mode: str, how: str, gate: Gate, mailbox: Mailbox
    ) -> None:
        # One batch at a time: when the sixth task has begun, the results of five are there, and no more will come.
        parallel = make(return_as=mode, batch_size=1, pre_dispatch=1)
        quick = [delayed(_tasks.noop)(i) for i in range(5)]
        slow = [delayed(_tasks.announce_and_wait)(mailbox, gate, i) for i in range(5, 50)]

        def start_and_leave() -> None:
            results = parallel([*quick, *slow])
            mailbox.receive()
            if how != "never started":
                next(results)
            leave(results, how)
            del results
            gc.collect()
            gate.open()

        (text,) = self._warnings_of(start_and_leave)
        assert "closed before its end" in text
        unused = 5 - {"close": 1, "break": 2, "raise": 2, "dropped": 1, "never started": 0}[how]
        assert f"{unused} results were computed and not used" in text
        assert sorted(parallel.map(_tasks.noop, range(10))) == list(range(10))

    def _warnings_of(self, act: Callable[[], None]) -> list[str]:
        before = set(threading.enumerate())
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            act()
            join_new_threads(before)
        # Not those of Python 3.12+ about forks in processes with threads, which are the test process's own affair.
        return [str(warning.message) for warning in seen if warning.category is RuntimeWarning]

    @capability("early close")
    @every_generator
    def test_a_generator_left_in_a_block_leaves_the_workers_usable(self, make: Make, mode: str) -> None:
        with make(return_as=mode, batch_size=1) as parallel:
            for _ in range(3):
                seen = self._warnings_of(lambda: self._take_one(parallel.map(_tasks.noop, range(100))))
                assert len(seen) == 1
                assert sorted(parallel.map(_tasks.noop, range(10))) == list(range(10))

    def _take_one(self, results: Any) -> None:
        next(results)
        results.close()

    def test_a_generator_that_was_consumed_warns_of_nothing(self, make: Make) -> None:
        def consume() -> None:
            results = make(return_as="generator").map(_tasks.noop, range(10))
            assert list(results) == list(range(10))
            results.close()

        assert self._warnings_of(consume) == []

    def test_a_generator_that_has_failed_warns_of_nothing(self, make: Make) -> None:
        def consume() -> None:
            results = make(return_as="generator")(delayed(_tasks.fail_at)(3, i) for i in range(10))
            with pytest.raises(LookupError):
                list(results)
            results.close()

        assert self._warnings_of(consume) == []

    @capability("early close")
    def test_the_end_of_a_block_closes_its_generator(self, make: Make, gate: Gate) -> None:
        results: Any = None

        def leave_block() -> None:
            nonlocal results
            with make(return_as="generator", batch_size=1, pre_dispatch=1) as parallel:
                results = parallel([delayed(_tasks.noop)(0), delayed(_tasks.wait_for)(gate)])
                assert next(results) == 0

        (text,) = self._warnings_of(leave_block)
        assert "0 results were computed and not used" in text
        with pytest.raises(RuntimeError, match="block"):  # and no end, as if that had been all
            next(results)
