"""Large arguments and results, and how fast small ones go."""

from __future__ import annotations

import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from parallel import delayed
from parallel_testkit import _tasks
from parallel_testkit._leaks import LeakCheck
from parallel_testkit._marks import capability
from parallel_testkit._signals import Gate, Mailbox
from parallel_testkit._suite import Make, Suite, close_and_wait, every_mode

__all__ = ["DataTests"]

#: In bytes; more than what a pipe, a socket or a frame of a protocol takes at once.
SIZES = (70_000, 5_000_000)

#: How many tasks the throughput is looked at with.
MANY = 2000


@capability("large data")
class DataTests(Suite):
    """Bytes and arrays in both directions; throughput."""

    @every_mode
    @pytest.mark.parametrize("size", SIZES)
    def test_large_bytes_arrive_and_come_back(self, make: Make, mode: str, size: int) -> None:
        data = [bytes([i]) * size for i in range(6)]
        results = list(make(return_as=mode)(delayed(_tasks.noop)(piece) for piece in data))
        assert (sorted(results) if mode == "generator_unordered" else results) == data

    @pytest.mark.parametrize("max_nbytes", [None, 1000, "1M"])
    def test_arrays_arrive_and_come_back(self, make: Make, max_nbytes: int | str | None) -> None:
        np = pytest.importorskip("numpy", reason="numpy is not installed")
        data = [np.arange(200_000) * i for i in range(6)]
        results = make(max_nbytes=max_nbytes).map(_tasks.noop, data)
        assert all(np.array_equal(result, piece) for result, piece in zip(results, data, strict=True))

    def test_one_large_argument_of_many_tasks(self, make: Make) -> None:
        data = bytes(SIZES[-1])
        assert make().starmap(_tasks.count_from, [(data, i) for i in range(20)]) == [len(data) + i for i in range(20)]

    def test_a_large_result_between_failures(self, make: Make) -> None:
        tasks: list[Any] = [delayed(_tasks.fail)("no") if i % 2 else delayed(_tasks.zeros)(SIZES[0]) for i in range(10)]
        results = make(return_exceptions=True)(tasks)
        assert [isinstance(result, LookupError) for result in results] == [i % 2 == 1 for i in range(10)]
        assert all(len(result) == SIZES[0] for result in results[::2])

    @capability("leaks")
    def test_large_data_leave_nothing_behind(
        self, make: Make, own_temp_folder: Path, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not LeakCheck.is_available:
            pytest.skip("only on Linux can a process see what it holds")
        data = [bytes(SIZES[-1])] * 4

        def use() -> None:
            assert make(batch_size=1).map(_tasks.read_length, data) == [SIZES[-1]] * 4
            assert len(make(batch_size=1).map(_tasks.zeros, [SIZES[-1]] * 4)) == 4

        self.warm_up(make, gate, mailbox)
        use()
        check = LeakCheck(own_temp_folder)
        use()
        check.assert_nothing_left()

    @capability("leaks")
    def test_large_data_that_nobody_reads_any_more_leave_nothing_behind(
        self, make: Make, own_temp_folder: Path, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not LeakCheck.is_available:
            pytest.skip("only on Linux can a process see what it holds")
        self.warm_up(make, gate, mailbox)
        check = LeakCheck(own_temp_folder)
        self._leave_with_large_data(make, own_temp_folder.parent, mailbox)
        # After a kill there may be other workers.
        with Gate(own_temp_folder.parent / "again") as again:
            self.warm_up(make, again, mailbox)
        check.assert_nothing_left()

    def _leave_with_large_data(self, make: Make, folder: Path, mailbox: Mailbox) -> None:
        before = set(threading.enumerate())  # in a method of its own: a thread that is kept keeps all that it has
        with Gate(folder / "held") as held:
            # Short ones first, so that a second batch waits at each worker, and does not fit into what leads there.
            tasks = [delayed(_tasks.noop)(i) for i in range(self.n_jobs)]
            data = bytes(SIZES[-1])
            tasks += [delayed(_tasks.announce_and_wait)(mailbox, held, i, data) for i in range(2 * self.n_jobs)]
            results = make(batch_size=1, return_as="generator", max_nbytes=None)(tasks)
            assert [next(results) for _ in range(self.n_jobs)] == list(range(self.n_jobs))
            mailbox.receive(self.n_jobs)
            with pytest.warns(RuntimeWarning, match="closed before its end"):
                close_and_wait(results, before)

    @capability("throughput")
    def test_many_small_tasks_take_no_longer_than_they_may(self, make: Make) -> None:
        with make() as parallel:
            parallel.map(_tasks.noop, range(10))
            begin = monotonic()
            assert parallel.map(_tasks.noop, range(MANY)) == list(range(MANY))
            rate = MANY / (monotonic() - begin)
        assert rate >= self.least_tasks_per_second, (
            f"the backend {self.backend_name!r} runs {rate:.0f} tasks that do nothing in a second, and should run "
            f"{self.least_tasks_per_second:g} (least_tasks_per_second): is there something that waits, or polls, "
            "between submit() and the callback?"
        )
