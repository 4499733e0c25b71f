"""Workers over several calls and several threads, their environment, and what is left of them."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from parallel import Parallel, delayed
from parallel.backend import ParallelBackendBase
from parallel_testkit import _tasks
from parallel_testkit._bounded import run_bounded
from parallel_testkit._leaks import LeakCheck
from parallel_testkit._marks import capability
from parallel_testkit._signals import Gate, Mailbox
from parallel_testkit._suite import Make, Suite, join_new_threads

__all__ = ["LifecycleTests"]

#: Threads that use one object at the same time, and how often.
THREADS = 4
CALLS_PER_THREAD = 5


@capability("reuse")
class LifecycleTests(Suite):
    """Blocks, threads, environments, leaks."""

    # -- several calls -----------------------------------------------------------------------------------------------

    def test_a_block_serves_several_calls(self, make: Make) -> None:
        with make() as parallel:
            for count in (0, 1, 10, 100):
                assert parallel.map(_tasks.square, range(count)) == [i * i for i in range(count)]

    def test_an_object_serves_several_blocks_and_calls_between_them(self, make: Make) -> None:
        parallel = make()
        for _ in range(2):
            with parallel:
                assert parallel.map(_tasks.noop, range(5)) == list(range(5))
            assert parallel.map(_tasks.noop, range(5)) == list(range(5))

    def test_an_empty_block(self, make: Make) -> None:
        with make():
            pass

    @capability("reuse after errors")
    def test_a_block_that_ends_with_an_error(self, make: Make) -> None:
        parallel = make()
        with contextlib.suppress(ZeroDivisionError), parallel:
            parallel.map(_tasks.noop, range(5))
            raise ZeroDivisionError("the user's own error")
        assert parallel.map(_tasks.noop, range(5)) == list(range(5))

    def test_a_block_inside_a_block(self, make: Make) -> None:
        with make() as outer, make() as inner:
            assert outer.map(_tasks.noop, range(5)) == inner.map(_tasks.noop, range(5)) == list(range(5))

    def test_a_call_inside_the_input_of_a_call(self, make: Make) -> None:
        inner = make()
        assert make().map(_tasks.square, (inner.map(_tasks.square, [i])[0] for i in range(5))) == [
            i**4 for i in range(5)
        ]

    # -- several threads ---------------------------------------------------------------------------------------------

    def _in_threads(self, act: Callable[[int], None]) -> None:
        errors: list[BaseException] = []

        def run(number: int) -> None:
            try:
                for _ in range(CALLS_PER_THREAD):
                    act(number)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        if errors:
            raise errors[0]

    @pytest.mark.parametrize("in_block", [False, True], ids=["calls", "block"])
    def test_threads_may_use_one_object_at_the_same_time(self, make: Make, in_block: bool) -> None:
        parallel = make()

        def act(number: int) -> None:
            expected = [i + number for i in range(200)]
            assert parallel(delayed(_tasks.add)(i, number) for i in range(200)) == expected

        if in_block:
            with parallel:
                self._in_threads(act)
        else:
            self._in_threads(act)

    def test_threads_may_use_objects_of_their_own(self, make: Make) -> None:
        def act(number: int) -> None:
            assert make().map(_tasks.noop, range(number, 100)) == list(range(number, 100))

        self._in_threads(act)

    @capability("reuse after errors")
    def test_an_error_in_one_thread_is_not_the_others(self, make: Make) -> None:
        parallel = make()

        def act(number: int) -> None:
            if number == 0:
                with pytest.raises(LookupError):
                    parallel(delayed(_tasks.fail_at)(20, i) for i in range(50))
            else:
                assert parallel.map(_tasks.square, range(200)) == [i * i for i in range(200)]

        with parallel:
            self._in_threads(act)

    # -- workers -----------------------------------------------------------------------------------------------------

    @capability("inner threads")
    def test_libraries_in_workers_are_limited(self, make: Make, declared: ParallelBackendBase) -> None:
        if not declared.supports_inner_max_num_threads:
            self.skip("does not declare supports_inner_max_num_threads")
        if declared.uses_threads or not declared.owns_workers:
            pytest.skip(f"the workers of the backend {self.backend_name!r} are there before, or threads")
        names = declared.MAX_NUM_THREADS_VARS
        assert set(make(inner_max_num_threads=3).map(_tasks.environment, names)) == {"3"}
        assert set(make(inner_max_num_threads=5).map(_tasks.environment, names)) == {"5"}

    @capability("inner threads")
    def test_a_limit_that_has_no_effect_is_refused(self, make: Make, declared: ParallelBackendBase) -> None:
        if declared.supports_inner_max_num_threads:
            self.skip("declares supports_inner_max_num_threads")
        with pytest.raises(ValueError, match="inner_max_num_threads"):
            make(inner_max_num_threads=3)

    def test_no_workers_are_no_number_of_workers(self, make: Make) -> None:
        for wrong in (0, "x", float("inf")):
            with pytest.raises(ValueError, match="n_jobs"):
                make(n_jobs=wrong)

    def test_an_unknown_option_is_refused(self, make: Make) -> None:
        with pytest.raises(TypeError):
            make(no_such_option=1).map(_tasks.noop, range(3))

    # -- leaks -------------------------------------------------------------------------------------------------------

    @capability("leaks")
    @pytest.mark.parametrize(
        "use",
        [
            "calls",
            "blocks",
            "errors",
            "generators",
            "closed generators",
            "limits",
            "errors in the input",
            "unused objects",
        ],
    )
    def test_nothing_is_left_behind_by(
        self, make: Make, use: str, own_temp_folder: Path, gate: Gate, mailbox: Mailbox
    ) -> None:
        if not LeakCheck.is_available:
            pytest.skip("only on Linux can a process see what it holds")
        self.warm_up(make, gate, mailbox)
        check = LeakCheck(own_temp_folder)
        for _ in range(3):
            run_bounded(self._use, make, use, own_temp_folder.parent)
        check.assert_nothing_left()

    def _use(self, make: Make, use: str, folder: Path) -> None:
        if use == "calls":
            make().map(_tasks.noop, range(1000))
        elif use == "blocks":
            with make() as parallel:
                for _ in range(3):
                    parallel.map(_tasks.noop, range(100))
        elif use == "errors":
            with pytest.raises(LookupError):
                make()(delayed(_tasks.fail_at)(5, i) for i in range(10))
        elif use == "generators":
            assert len(list(make(return_as="generator").map(_tasks.noop, range(100)))) == 100
        elif use == "closed generators":
            self._close_early(make(return_as="generator", batch_size=1))
        elif use == "limits":
            with Gate(folder / "limit") as gate, pytest.raises(TimeoutError):
                make(timeout=0.05)([delayed(_tasks.noop)(), delayed(_tasks.wait_for)(gate)])
        elif use == "errors in the input":
            with pytest.raises(TypeError):
                make()([delayed(_tasks.noop)(), cast("Any", 5)])
        else:
            make()

    def _close_early(self, parallel: Parallel) -> None:
        before = set(threading.enumerate())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results: Any = parallel.map(_tasks.noop, range(100))
            next(results)
            results.close()
            join_new_threads(before)
