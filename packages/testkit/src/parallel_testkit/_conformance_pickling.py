"""What cannot travel between processes: a clear error, and workers that stay usable."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from pickle import PicklingError
from typing import Any

import pytest

from parallel import delayed
from parallel.errors import ResultPicklingError, TaskPicklingError
from parallel_testkit import _tasks
from parallel_testkit._marks import capability
from parallel_testkit._suite import Make, Suite, every_mode

__all__ = ["PicklingTests"]

#: On each test and not on the class, whose marks `BackendConformance` would inherit for all of its tests.
only_across_processes = pytest.mark.usefixtures("only_across_processes")


class _Service:
    """Holds a lock two attributes down."""

    def __init__(self) -> None:
        self.cache = {"lock": threading.Lock()}


@capability("unpicklable things")
class PicklingTests(Suite):
    """Only for backends whose workers are other processes; skipped for the rest."""

    # -- on the way there --------------------------------------------------------------------------------------------

    @only_across_processes
    @every_mode
    def test_an_argument_that_cannot_be_pickled(self, make: Make, mode: str) -> None:
        def tasks() -> Iterator[Any]:
            yield delayed(_tasks.noop)(0)
            yield delayed(_tasks.noop)(0)
            yield delayed(_tasks.add)(1, _Service())

        with pytest.raises(TaskPicklingError, match="lock") as caught:
            list(make(return_as=mode)(tasks()))
        assert isinstance(caught.value, PicklingError)
        assert caught.value.task_index == 2
        assert caught.value.path == "args[1].cache['lock']"
        assert "task 2 (add)" in str(caught.value)

    @only_across_processes
    @pytest.mark.parametrize("batch_size", ["auto", 1, 10])
    def test_an_argument_that_cannot_be_pickled_in_the_middle_of_a_batch(
        self, make: Make, batch_size: int | str
    ) -> None:
        items = [*range(5), threading.Lock(), *range(5)]
        with pytest.raises(TaskPicklingError) as caught:
            make(batch_size=batch_size).map(_tasks.noop, items)
        assert caught.value.task_index == 5
        assert caught.value.path == "args[0]"

    @only_across_processes
    def test_a_keyword_argument_that_cannot_be_pickled(self, make: Make) -> None:
        with pytest.raises(TaskPicklingError) as caught:
            make()([delayed(_tasks.noop)(0), delayed(_tasks.noop)(value=[1, threading.Lock()])])
        assert caught.value.path == "kwargs['value'][1]"

    @only_across_processes
    def test_a_function_that_cannot_be_pickled(self, make: Make) -> None:
        lock = threading.Lock()

        def locked() -> None:
            with lock:
                pass

        with pytest.raises(TaskPicklingError) as caught:
            make()([delayed(_tasks.noop)(0), delayed(locked)()])
        assert caught.value.path == "function.<closure lock>"
        with pytest.raises(TaskPicklingError) as caught:
            make()([delayed(_tasks.noop)(0), delayed(functools.partial(_tasks.noop, lock))()])
        assert caught.value.path == "function.args[0]"

    @only_across_processes
    def test_every_task_cannot_be_pickled(self, make: Make) -> None:
        with pytest.raises(TaskPicklingError):
            make(batch_size=1).map(_tasks.noop, [threading.Lock() for _ in range(2000)])

    @only_across_processes
    def test_an_argument_that_cannot_be_unpickled(self, make: Make) -> None:
        with pytest.raises(TaskPicklingError, match="refuses to be unpickled"):
            make(batch_size=1).map(_tasks.noop, [0, _tasks.Refuses()])

    @only_across_processes
    def test_an_argument_that_is_nested_too_deeply(self, make: Make) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(TaskPicklingError, match="task 1 "):
            make(batch_size=1).map(_tasks.noop, [0, deep])
        while deep:  # taken apart from outside: dropped as a whole it would need a deep stack as well
            deep = deep.pop()

    # -- on the way back ---------------------------------------------------------------------------------------------

    @only_across_processes
    @every_mode
    def test_a_result_that_cannot_be_pickled(self, make: Make, mode: str) -> None:
        with pytest.raises(ResultPicklingError, match="lock") as caught:
            list(make(return_as=mode)([delayed(_tasks.noop)(0), delayed(_tasks.give_lock)()]))
        assert isinstance(caught.value, PicklingError)
        assert caught.value.path == "result['model'][1]"
        assert "task 1 (give_lock)" in str(caught.value)

    @only_across_processes
    def test_a_result_that_cannot_be_unpickled(self, make: Make) -> None:
        with pytest.raises(ResultPicklingError, match="refuses to be unpickled"):
            make(batch_size=1)([delayed(_tasks.noop)(0), delayed(_tasks.Refuses)()])

    @only_across_processes
    @every_mode
    def test_an_exception_that_cannot_be_pickled(self, make: Make, mode: str) -> None:
        with pytest.raises(_tasks.HoldsLock, match="with a lock") as caught:
            list(make(return_as=mode)([delayed(_tasks.noop)(0), delayed(_tasks.fail_with_lock)("with a lock")]))
        assert "lock" in str(caught.value.lock)  # a text in the place of what could not come along
        assert any("task 1" in note for note in caught.value.__notes__)

    # -- and then ----------------------------------------------------------------------------------------------------

    @capability("reuse after errors")
    @only_across_processes
    def test_the_workers_stay_usable(self, make: Make) -> None:
        hostile = [
            delayed(_tasks.noop)(threading.Lock()),
            delayed(_tasks.noop)(_tasks.Refuses()),
            delayed(_tasks.give_lock)(),
            delayed(_tasks.Refuses)(),
            delayed(_tasks.fail_with_lock)("with a lock"),
        ]
        with make() as parallel:
            for task in hostile:
                with pytest.raises((PicklingError, _tasks.HoldsLock)):
                    parallel([delayed(_tasks.noop)(0), task])
                assert parallel.map(_tasks.noop, range(10)) == list(range(10))
        assert parallel.map(_tasks.noop, range(10)) == list(range(10))
