"""The results of calls in which nothing goes wrong."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from parallel import Parallel, delayed, parallel_config
from parallel.backend import ParallelBackendBase
from parallel_testkit import _tasks
from parallel_testkit._marks import capability
from parallel_testkit._signals import Gate, Mailbox, Tally
from parallel_testkit._suite import Make, Suite, every_mode

__all__ = ["ResultTests"]

#: More than any policy sends in one batch, and enough for batches to grow from one to that.
MANY = 50_000


def in_order(results: Any, mode: str) -> list[Any]:
    """Make results comparable: those of an unordered generator come in any order."""
    return sorted(results) if mode == "generator_unordered" else list(results)


@capability("results in order")
class ResultTests(Suite):
    """Right results, in the right order, for every form of input."""

    # -- ways to call and ways to return -----------------------------------------------------------------------------

    @every_mode
    def test_results_come_in_the_order_of_the_input(self, make: Make, mode: str) -> None:
        results = make(return_as=mode)(delayed(_tasks.square)(i) for i in range(100))
        assert in_order(results, mode) == [i * i for i in range(100)]

    @every_mode
    def test_an_empty_input_gives_no_results(self, make: Make, mode: str) -> None:
        assert list(make(return_as=mode)([])) == []
        assert list(make(return_as=mode)(iter(()))) == []

    @every_mode
    def test_one_task(self, make: Make, mode: str) -> None:
        assert list(make(return_as=mode)([delayed(_tasks.add)(1, right=2)])) == [3]

    @every_mode
    def test_more_workers_than_tasks(self, make: Make, mode: str) -> None:
        results = make(n_jobs=self.n_jobs + 2, return_as=mode)(delayed(_tasks.square)(i) for i in range(2))
        assert in_order(results, mode) == [0, 1]

    @every_mode
    def test_many_tasks_that_do_nothing(self, make: Make, mode: str) -> None:
        results = make(return_as=mode)(delayed(_tasks.noop)(i) for i in range(MANY))
        assert in_order(results, mode) == list(range(MANY))

    @every_mode
    def test_map_calls_with_an_item_of_each_iterable(self, make: Make, mode: str) -> None:
        assert in_order(make(return_as=mode).map(_tasks.square, range(10)), mode) == [i * i for i in range(10)]
        # As the builtin: the shortest ends it.
        assert in_order(make(return_as=mode).map(_tasks.add, iter(range(10)), range(5)), mode) == [0, 2, 4, 6, 8]

    @every_mode
    def test_starmap_calls_with_each_item_as_the_arguments(self, make: Make, mode: str) -> None:
        items = ([i, 2 * i, 3 * i] for i in range(10))
        assert in_order(make(return_as=mode).starmap(_tasks.add, items), mode) == [6 * i for i in range(10)]

    def test_positional_and_keyword_arguments_and_several_functions_in_one_call(self, make: Make) -> None:
        tasks = [
            delayed(_tasks.add)(1),
            delayed(_tasks.add)(1, 2, 3),
            delayed(_tasks.square)(5),
            delayed(_tasks.add)(1, right=5),
            delayed(_tasks.add)(left=2, right=5),
            delayed(len)("four"),
            (_tasks.add, (1, 1), {}),
        ]
        assert make(batch_size=4)(tasks) == [1, 6, 25, 6, 7, 4, 2]

    def test_results_of_every_kind_come_back_as_they_are(self, make: Make) -> None:
        values: list[Any] = [None, False, 0, "text", b"", b"bytes" * 100_000, [], {"a": [1, (2, 3)]}, 0.5, Exception]
        assert make().map(_tasks.noop, values) == values

    def test_an_exception_that_is_returned_is_a_result(self, make: Make) -> None:
        returned = make().map(_tasks.noop, [LookupError("just a value"), 2])
        assert isinstance(returned[0], LookupError)
        assert returned[1] == 2

    # -- batches -----------------------------------------------------------------------------------------------------

    @every_mode
    @pytest.mark.parametrize("batch_size", [1, 3, 1000])
    def test_batches_of_a_fixed_size(self, make: Make, mode: str, batch_size: int) -> None:
        results = make(return_as=mode, batch_size=batch_size).map(_tasks.square, range(100))
        assert in_order(results, mode) == [i * i for i in range(100)]

    @pytest.mark.parametrize("pre_dispatch", ["all", 1, 100, "n_jobs", "2*n_jobs", "3 * n_jobs + 1"])
    @pytest.mark.parametrize("batch_size", ["auto", 1, 7])
    def test_reading_ahead(self, make: Make, pre_dispatch: int | str, batch_size: int | str) -> None:
        parallel = make(pre_dispatch=pre_dispatch, batch_size=batch_size)
        assert parallel(delayed(_tasks.square)(i) for i in range(100)) == [i * i for i in range(100)]

    @every_mode
    def test_the_input_is_read_lazily(self, make: Make, mode: str, tally: Tally) -> None:
        ahead: list[int] = []

        def tasks() -> Iterator[Any]:
            for i in range(60):
                ahead.append(i - tally.count())
                yield delayed(_tasks.count_and_return)(tally, i)

        results = make(return_as=mode, batch_size=1, pre_dispatch=4)(tasks())
        assert in_order(results, mode) == list(range(60))
        assert max(ahead) <= 4, "more was read than pre_dispatch allows ahead of what was done"

    def test_tasks_of_different_lengths_in_adaptive_batches(self, make: Make, gate: Gate, mailbox: Mailbox) -> None:
        # The batches have grown when a task comes that waits: the others must not wait behind it, nor be lost.
        def tasks() -> Iterator[Any]:
            yield from (delayed(_tasks.noop)(i) for i in range(2000))
            yield delayed(_tasks.announce_and_wait)(mailbox, gate, 2000)
            yield from (delayed(_tasks.noop)(i) for i in range(2001, 4000))

        got: list[int] = []
        consumer = threading.Thread(target=lambda: got.extend(make(return_as="generator_unordered")(tasks())))
        consumer.start()
        mailbox.receive()
        gate.open()
        consumer.join()
        assert sorted(got) == list(range(4000))

    # -- workers -----------------------------------------------------------------------------------------------------

    def test_tasks_run_side_by_side(self, make: Make, gate: Gate, mailbox: Mailbox) -> None:
        results = make(return_as="generator", batch_size=1)(
            delayed(_tasks.announce_and_wait)(mailbox, gate, i) for i in range(self.n_jobs)
        )
        assert sorted(mailbox.receive(self.n_jobs)) == [
            str(i) for i in range(self.n_jobs)
        ]  # all have begun, none ended
        gate.open()
        assert list(results) == list(range(self.n_jobs))

    def test_an_unordered_generator_gives_first_what_is_done_first(self, make: Make, gate: Gate) -> None:
        results = make(return_as="generator_unordered", batch_size=1)(
            [delayed(_tasks.wait_for)(gate, "slow"), delayed(_tasks.noop)("quick")]
        )
        assert next(results) == "quick"
        gate.open()
        assert list(results) == ["slow"]

    def test_one_worker_means_the_caller(self, make: Make, crosses_processes: bool) -> None:
        out: list[int] = []
        make(n_jobs=1)(delayed(out.append)(i) for i in range(5))
        assert out == [0, 1, 2, 3, 4]

    def test_tasks_that_share_memory_change_the_objects_of_the_caller(
        self, make: Make, declared: ParallelBackendBase
    ) -> None:
        if not declared.supports_sharedmem:
            self.skip("does not declare supports_sharedmem")
        out: list[int] = []
        assert make()(delayed(out.append)(i) for i in range(100)) == [None] * 100
        assert sorted(out) == list(range(100))

    # -- functions ---------------------------------------------------------------------------------------------------

    def test_functions_that_cannot_be_imported(self, make: Make) -> None:
        offset = 10

        def closure(number: int) -> int:
            return number + offset

        class Local:
            def __init__(self, number: int) -> None:
                self.number = number

            def plus_one(self) -> int:
                return self.number + 1

        parallel = make()
        assert parallel.map(lambda number: number * 3, range(5)) == [0, 3, 6, 9, 12]
        assert parallel.map(closure, range(5)) == [10, 11, 12, 13, 14]
        assert parallel(delayed(functools.partial(closure))(i) for i in range(3)) == [10, 11, 12]
        assert parallel(delayed(Local(i).plus_one)() for i in range(3)) == [1, 2, 3]
        assert [value.number for value in parallel.map(Local, range(3))] == [0, 1, 2]

    def test_partials_methods_and_callable_objects(self, make: Make) -> None:
        parallel = make()
        assert parallel.map(functools.partial(_tasks.add, 100, 10), range(3)) == [110, 111, 112]
        adder = _tasks.Adder(5)
        assert parallel.map(adder.add, range(3)) == [5, 6, 7]
        assert parallel(delayed(_tasks.Adder(i).add)(1) for i in range(5)) == [1, 2, 3, 4, 5]
        assert parallel.map(adder, range(3)) == [5, 6, 7]
        assert parallel.map("{}!".format, ["a", "b"]) == ["a!", "b!"]

    def test_a_new_function_for_each_task(self, make: Make) -> None:
        results = make()(delayed(lambda number, i=i: number * i)(2) for i in range(200))
        assert results == [2 * i for i in range(200)]

    # -- calls inside tasks ------------------------------------------------------------------------------------------

    @capability("nesting")
    @pytest.mark.filterwarnings("ignore:tasks run one after the other:RuntimeWarning")  # at the second level
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_calls_inside_tasks(self, make: Make, depth: int) -> None:
        assert make()(delayed(_tasks.nested)(3, depth) for _ in range(4)) == [3**depth] * 4

    @capability("nesting")
    def test_calls_inside_tasks_have_one_worker_unless_they_ask_for_more(self, make: Make) -> None:
        assert make()(delayed(_tasks.default_workers)() for _ in range(4)) == [1] * 4

    @capability("nesting")
    def test_a_failure_inside_an_inner_call_names_both_tasks(self, make: Make) -> None:
        with pytest.raises(LookupError, match="bad number 1") as caught:
            make(batch_size=1)([delayed(_tasks.noop)(0), delayed(_tasks.noop)(0), delayed(_tasks.nested_failure)()])
        notes = "\n".join(caught.value.__notes__)
        assert "task 1" in notes
        assert "task 2" in notes

    def test_the_settings_of_the_caller_hold_again_after_a_call(self, make: Make) -> None:
        parallel = make()
        with parallel_config(n_jobs=3):
            assert parallel.map(_tasks.default_workers, range(4)) == [1] * 4
            assert Parallel().n_jobs == 3
