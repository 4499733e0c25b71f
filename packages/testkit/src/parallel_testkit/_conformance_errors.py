"""What goes wrong in tasks and in their input: who hears of it, and how."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from parallel import delayed
from parallel.backend import ParallelBackendBase
from parallel.errors import RemoteTraceback, TaskExit
from parallel_testkit import _tasks
from parallel_testkit._bounded import run_bounded
from parallel_testkit._marks import capability
from parallel_testkit._signals import Gate
from parallel_testkit._suite import Make, Suite, every_mode

__all__ = ["ErrorTests"]

#: For tests of a limit: short, because they wait for it; nothing is asserted about how exactly it is kept.
LIMIT_SECONDS = 0.3


@capability("exceptions")
class ErrorTests(Suite):
    """Errors of tasks, of the input, and limits of time."""

    # -- tasks -------------------------------------------------------------------------------------------------------

    @every_mode
    @pytest.mark.parametrize("batch_size", ["auto", 1, 4])
    def test_the_exception_of_a_task_arrives_as_itself(self, make: Make, mode: str, batch_size: int | str) -> None:
        with pytest.raises(LookupError) as caught:
            list(make(return_as=mode, batch_size=batch_size)(delayed(_tasks.fail_at)(5, i) for i in range(10)))
        assert type(caught.value) is LookupError
        assert caught.value.args == ("bad number 5",)

    @every_mode
    def test_a_note_names_the_task(self, make: Make, mode: str) -> None:
        with pytest.raises(LookupError) as caught:
            list(make(return_as=mode)(delayed(_tasks.fail_at)(5, i) for i in range(10)))
        (note,) = caught.value.__notes__
        assert "task 5" in note
        assert "fail_at" in note

    def test_the_traceback_of_the_task_can_be_seen(self, make: Make, crosses_processes: bool) -> None:
        with pytest.raises(LookupError) as caught:
            make()([delayed(_tasks.noop)(), delayed(_tasks.fail)("where?")])
        if crosses_processes:
            assert isinstance(caught.value.__cause__, RemoteTraceback)
            assert "in fail\n" in str(caught.value.__cause__)
            assert "LookupError: where?" in str(caught.value.__cause__)
        else:
            assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    @every_mode
    def test_an_exception_whose_class_wants_three_arguments(self, make: Make, mode: str) -> None:
        with pytest.raises(_tasks.ThreeArguments) as caught:
            list(make(return_as=mode)([delayed(_tasks.noop)(), delayed(_tasks.fail_with_three_arguments)()]))
        assert str(caught.value) == "smoke in the kitchen"
        assert (caught.value.what, caught.value.where, caught.value.code) == ("smoke", "the kitchen", 7)

    def test_an_exception_of_a_class_that_cannot_be_imported(self, make: Make) -> None:
        class LocalError(Exception):
            pass

        def fail() -> None:
            raise LocalError("from here")

        with pytest.raises(Exception, match="from here") as caught:
            make()([delayed(_tasks.noop)(), delayed(fail)()])
        assert type(caught.value).__name__ == "LocalError"

    def test_an_exception_with_a_cause_keeps_its_story(self, make: Make) -> None:
        def fail() -> None:
            try:
                _tasks.fail("the first")
            except LookupError as error:
                raise ValueError("the second") from error

        with pytest.raises(ValueError, match="the second") as caught:
            make()([delayed(_tasks.noop)(), delayed(fail)()])
        assert "the first" in "".join(traceback.format_exception(caught.value))

    @every_mode
    @pytest.mark.parametrize("name", sorted(_tasks.EXITS))
    def test_an_exit_raised_by_a_task_does_not_end_the_caller(self, make: Make, mode: str, name: str) -> None:
        with pytest.raises(TaskExit, match=f"{name}: from a task") as caught:
            list(make(return_as=mode)([delayed(_tasks.noop)(), delayed(_tasks.raise_exit)(name)]))
        assert type(caught.value.__cause__) is _tasks.EXITS[name]
        assert any("task 1" in note for note in caught.value.__notes__)

    def test_stop_iteration_raised_by_a_task(self, make: Make) -> None:
        def stop() -> None:
            raise StopIteration("a value")

        with pytest.raises(StopIteration):
            make()([delayed(_tasks.noop)(), delayed(stop)()])
        # Out of a generator it cannot come: Python turns it into this.
        with pytest.raises(RuntimeError):
            list(make(return_as="generator")([delayed(_tasks.noop)(), delayed(stop)()]))

    @every_mode
    def test_the_first_failure_ends_the_call_while_others_run(self, make: Make, mode: str, gate: Gate) -> None:
        tasks = [delayed(_tasks.wait_for)(gate), delayed(_tasks.fail)("at once")]
        with pytest.raises(LookupError, match="at once"):
            list(make(return_as=mode, batch_size=1)(tasks))

    def test_an_ordered_generator_gives_what_is_before_the_failure(self, make: Make) -> None:
        results = make(return_as="generator", batch_size=1, pre_dispatch=1)(
            delayed(_tasks.fail_at)(3, i) for i in range(10)
        )
        assert [next(results), next(results), next(results)] == [0, 1, 2]
        with pytest.raises(LookupError, match="bad number 3"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    @capability("reuse after errors")
    def test_calls_after_an_error(self, make: Make) -> None:
        parallel = make()
        for _ in range(3):
            with pytest.raises(LookupError):
                parallel(delayed(_tasks.fail_at)(2, i) for i in range(5))
            assert parallel.map(_tasks.square, range(10)) == [i * i for i in range(10)]

    @capability("reuse after errors")
    @every_mode
    def test_calls_after_an_error_in_a_block(self, make: Make, mode: str) -> None:
        with make(return_as=mode) as parallel:
            for _ in range(3):
                with pytest.raises(LookupError):
                    list(parallel(delayed(_tasks.fail_at)(2, i) for i in range(5)))
                assert sorted(parallel.map(_tasks.square, range(10))) == [i * i for i in range(10)]

    # -- the input ---------------------------------------------------------------------------------------------------

    @every_mode
    @pytest.mark.parametrize("batch_size", ["auto", 1, 4])
    def test_an_input_that_raises(self, make: Make, mode: str, batch_size: int | str) -> None:
        error = _tasks.ThreeArguments("the input", "the middle", 1)

        def tasks() -> Iterator[Any]:
            for i in range(10):
                yield delayed(_tasks.noop)(i)
            raise error

        with pytest.raises(_tasks.ThreeArguments) as caught:
            list(make(return_as=mode, batch_size=batch_size)(tasks()))
        assert caught.value is error

    def test_an_ordered_generator_gives_what_is_before_an_input_that_raises(self, make: Make) -> None:
        def tasks() -> Iterator[Any]:
            for i in range(3):
                yield delayed(_tasks.noop)(i)
            raise LookupError("no more input")

        results = make(return_as="generator", batch_size=1, pre_dispatch=1)(tasks())
        assert [next(results), next(results), next(results)] == [0, 1, 2]
        with pytest.raises(LookupError, match="no more input"):
            next(results)

    def test_an_input_that_raises_at_once(self, make: Make) -> None:
        def tasks() -> Iterator[Any]:
            yield from ()
            raise LookupError("no input")

        for mode in ("list", "generator"):
            with pytest.raises(LookupError, match="no input"):
                list(make(return_as=mode)(tasks()))

    @every_mode
    @pytest.mark.parametrize("wrong", [5, "abc", (_tasks.noop,), [_tasks.noop, (), {}], _tasks.noop])
    def test_input_that_is_no_task(self, make: Make, mode: str, wrong: Any) -> None:
        with pytest.raises(TypeError, match="task 1 "):
            list(make(return_as=mode)([delayed(_tasks.noop)(0), wrong]))

    def test_an_input_that_is_not_iterable(self, make: Make) -> None:
        with pytest.raises(TypeError):
            make()(5)  # type: ignore[arg-type]

    @capability("reuse after errors")
    def test_calls_after_an_input_that_raised(self, make: Make) -> None:
        def tasks() -> Iterator[Any]:
            yield delayed(_tasks.noop)(0)
            raise LookupError("no more input")

        with make() as parallel:
            for _ in range(2):
                with pytest.raises(LookupError):
                    parallel(tasks())
                assert parallel.map(_tasks.noop, range(10)) == list(range(10))

    # -- limits ------------------------------------------------------------------------------------------------------

    @capability("time limits")
    @every_mode
    def test_a_task_that_passes_its_limit(self, make: Make, mode: str, gate: Gate) -> None:
        tasks = [delayed(_tasks.wait_for)(gate) for _ in range(self.n_jobs + 1)]
        with pytest.raises(multiprocessing.TimeoutError, match=r"task \d") as caught:
            list(make(return_as=mode, timeout=LIMIT_SECONDS)(tasks))
        assert isinstance(caught.value, TimeoutError)

    @capability("reuse after errors")
    def test_calls_after_a_limit_in_a_block(self, make: Make, gate: Gate, crosses_processes: bool) -> None:
        with make(timeout=LIMIT_SECONDS) as parallel:
            with pytest.raises(TimeoutError):
                parallel([delayed(_tasks.noop)(), delayed(_tasks.wait_for)(gate)])
            gate.open()  # what cannot be killed goes on until here
            parallel.timeout = None
            assert parallel.map(_tasks.noop, range(10)) == list(range(10))

    @capability("time limits")
    def test_tasks_within_their_limit(self, make: Make) -> None:
        assert make(timeout=1000).map(_tasks.square, range(50)) == [i * i for i in range(50)]

    # -- what is left of it ------------------------------------------------------------------------------------------

    @capability("leaks")
    @pytest.mark.parametrize("mode", ["list", "generator"])
    def test_results_of_a_call_that_failed_are_freed_with_its_error(self, make: Make, mode: str) -> None:
        parallel = make(return_as=mode, batch_size=1)
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(LookupError):
                list(parallel(delayed(_tasks.track)(30, i) for i in range(40)))
            del parallel
            run_bounded(self._wait_for_the_end_of_tracked)  # a thread may have yet to go on to its next job
        finally:
            gc.enable()

    def _wait_for_the_end_of_tracked(self) -> None:
        while _tasks.Tracked.n_alive():
            threading.Event().wait(0.01)

    @capability("leaks")
    def test_arguments_of_a_task_that_failed_are_freed(self, make: Make, declared: ParallelBackendBase) -> None:
        if declared.uses_threads:
            pytest.skip(f"the tasks of the backend {self.backend_name!r} have the caller's own objects")
        with make(return_exceptions=True, batch_size=1) as parallel:
            parallel(delayed(_tasks.fail_with)(_tasks.Tracked(i)) for i in range(20))
            alive = parallel.map(_tasks.Tracked.n_alive, range(20))
            parallel.map(_tasks.collect_again, range(20))
        # A worker that the caller has forked may have those that were on their way just then.
        assert max(alive) <= 2
