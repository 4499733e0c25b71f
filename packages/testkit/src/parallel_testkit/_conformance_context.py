"""What tasks find on their workers of the caller's context, and what of theirs comes back."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import warnings
from collections.abc import Iterator

import pytest

from parallel import Parallel, cpu_count, delayed, register_plugin, unregister_plugin
from parallel.backend import ParallelBackendBase
from parallel_testkit import _context_tasks as tasks
from parallel_testkit._context_tasks import COLOUR, MOOD, Moody, OddWarning
from parallel_testkit._marks import capability
from parallel_testkit._suite import Make, Suite

__all__ = ["ContextTests"]

LOGGER = "parallel_testkit.conformance"


class Records(logging.Handler):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@capability("context")
class ContextTests(Suite):
    """Context variables, warnings, logging, plugins, the task's own place, shares of the CPUs."""

    @pytest.fixture
    def records(self) -> Iterator[list[logging.LogRecord]]:
        """What arrives at a logger of the caller."""
        logger, handler = logging.getLogger(LOGGER), Records()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        yield handler.records
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True

    @pytest.fixture(autouse=True)
    def _colours(self) -> Iterator[None]:
        tokens = [(variable, variable.set("")) for variable in (COLOUR, MOOD)]
        yield
        for variable, token in tokens:
            variable.reset(token)

    # -- context variables -------------------------------------------------------------------------------------------

    def test_context_variables_are_those_of_the_caller(self, make: Make) -> None:
        with make() as parallel:
            for value in ("red", "blue"):
                COLOUR.set(value)
                assert set(parallel.map(tasks.colour, range(50))) == {value}

    def test_context_variables_of_a_generator_are_those_of_its_call(self, make: Make) -> None:
        COLOUR.set("red")
        results = make(return_as="generator").map(tasks.colour, range(50))
        COLOUR.set("blue")
        assert set(results) == {"red"}

    def test_what_a_task_sets_is_not_seen_by_the_caller(self, make: Make) -> None:
        COLOUR.set("red")
        found = make().map(tasks.recolour, range(50))
        assert COLOUR.get() == "red"
        assert found[0] == "red"

    def test_in_threads_what_a_task_sets_is_not_seen_by_other_tasks(
        self, make: Make, declared: ParallelBackendBase
    ) -> None:
        if not declared.uses_threads:
            self.skip("does not declare uses_threads")
        COLOUR.set("red")
        assert set(make(batch_size=10).map(tasks.recolour, range(50))) == {"red"}

    def test_a_function_that_travels_may_refer_to_a_context_variable(self, make: Make) -> None:
        COLOUR.set("red")
        colour = COLOUR  # in the closure, as a script that imports it has it in its globals
        assert set(make().map(lambda _: colour.get(), range(10))) == {"red"}

    def test_context_variables_can_be_left_behind(self, make: Make) -> None:
        for propagate in (False, ("warnings", "logging")):
            with make(propagate=propagate) as parallel:
                parallel.map(tasks.colour, range(10))  # a worker that is forked has what there was before
                COLOUR.set("red")
                assert "red" not in parallel.map(tasks.colour, range(10))
            COLOUR.set("")

    # -- warnings ----------------------------------------------------------------------------------------------------

    def test_a_warning_comes_back_as_it_was_made(self, make: Make) -> None:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            make().map(tasks.warn_of, range(20))
        odd = [warning for warning in shown if warning.category is OddWarning]
        assert sorted(str(warning.message) for warning in odd) == sorted(f"odd number {i}" for i in range(20))
        _, first_line = inspect.getsourcelines(tasks.warn_of)
        assert {(warning.filename, warning.lineno) for warning in odd} == {(tasks.__file__, first_line + 1)}

    def test_a_warning_is_shown_once_per_place(self, make: Make) -> None:
        with make() as parallel:
            for _ in range(2):
                with warnings.catch_warnings(record=True) as shown:
                    warnings.simplefilter("default")
                    for _ in range(2):
                        parallel.map(tasks.warn, range(20))
                # From Python 3.12 on a fork beside threads has one of its own.
                assert [warning.category for warning in shown if warning.category is OddWarning] == [OddWarning]

    def test_a_warning_that_is_an_error_in_the_caller_is_one_in_tasks(self, make: Make) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(OddWarning):
                make().map(tasks.warn, range(5))

    def test_a_warning_that_is_ignored_in_the_caller_is_in_tasks(self, make: Make) -> None:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", OddWarning)
            make().map(tasks.warn, range(20))
        assert [warning for warning in shown if warning.category is OddWarning] == []

    # -- logging -----------------------------------------------------------------------------------------------------

    def test_log_records_come_back_in_order(self, make: Make, records: list[logging.LogRecord]) -> None:
        make()(delayed(tasks.log)(LOGGER, i) for i in range(20))
        for number in range(20):
            own = [record for record in records if record.getMessage().endswith(f" {number}")]
            assert [record.getMessage() for record in own] == [f"middle {number}", f"end {number}"]
            assert [record.levelname for record in own] == ["INFO", "ERROR"]
            assert own[0].__dict__["shape"] == (number, 2)
            text = logging.Formatter().format(own[1])
            assert f"LookupError: {number}" in text
            assert {record.funcName for record in own} == {"log"}

    def test_log_records_of_processes_say_which_task_and_process(
        self, make: Make, declared: ParallelBackendBase, records: list[logging.LogRecord]
    ) -> None:
        if declared.uses_threads or not declared.same_host:
            self.skip("does not declare that its workers are processes of this host")
        make()(delayed(tasks.log)(LOGGER, i) for i in range(20))
        for record in records:
            assert record.getMessage().split()[-1] == str(record.__dict__["task_index"])
        assert os.getpid() not in {record.process for record in records}

    def test_levels_of_loggers_are_those_of_the_caller(self, make: Make, records: list[logging.LogRecord]) -> None:
        logger = logging.getLogger(LOGGER)
        with make() as parallel:
            counts = []
            for level in (logging.DEBUG, logging.ERROR, logging.INFO):
                logger.setLevel(level)
                records.clear()
                parallel(delayed(tasks.log)(LOGGER, i) for i in range(10))
                counts.append(len(records))
        assert counts == [30, 10, 20]

    # -- plugins -----------------------------------------------------------------------------------------------------

    def test_what_a_plugin_captures_is_restored_around_batches(self, make: Make) -> None:
        plugin = Moody()
        register_plugin(plugin)
        try:
            MOOD.set("hey")
            assert set(make().map(tasks.mood, range(20))) == {"heyhey"}
            assert set(make(propagate="contextvars").map(tasks.mood, range(20))) == {"hey"}
        finally:
            unregister_plugin(plugin)

    # -- the task's own place ----------------------------------------------------------------------------------------

    def test_a_task_knows_its_place(self, make: Make) -> None:
        found = make().map(tasks.place, range(100))
        assert [(index, attempt) for index, attempt, _ in found] == [(i, 1) for i in range(100)]
        assert {worker for _, _, worker in found} <= set(range(self.n_jobs))

    def test_a_task_knows_which_attempt_it_is(self, make: Make) -> None:
        assert make(retries=3)(delayed(tasks.attempt)(i % 3, i) for i in range(12)) == [i % 3 + 1 for i in range(12)]

    def test_random_numbers_of_tasks_are_those_of_a_sequential_call(self, make: Make) -> None:
        if importlib.util.find_spec("numpy") is None:
            pytest.skip("numpy is not installed")
        expected = Parallel(n_jobs=1, seed=3).map(tasks.draw, range(30))
        assert make(seed=3).map(tasks.draw, range(30)) == expected
        assert make(seed=3, batch_size=4).map(tasks.draw, range(30)) == expected

    # -- shares of the CPUs ------------------------------------------------------------------------------------------

    @capability("inner threads")
    def test_a_task_has_a_share_of_the_cpus(self, make: Make, declared: ParallelBackendBase) -> None:
        if not declared.same_host:
            self.skip("does not declare same_host")
        own = max(cpu_count() // self.n_jobs, 1)
        assert set(make().map(tasks.share, range(10))) == {own}
        assert make().map(tasks.inner_share, range(2)) == [[own, own]] * 2

    @capability("inner threads")
    def test_libraries_have_the_share_of_their_worker(self, make: Make, declared: ParallelBackendBase) -> None:
        if not declared.same_host:
            self.skip("does not declare same_host")
        if importlib.util.find_spec("numpy") is None:
            pytest.skip("numpy is not installed")
        before = tasks.threads_of_libraries()
        with make() as parallel:
            parallel.map(tasks.threads_of_libraries, range(4))  # what is imported in a thread is limited from then on
            found = parallel.map(tasks.threads_of_libraries, range(20))
        assert {threads for of_worker in found for threads in of_worker} == {max(cpu_count() // self.n_jobs, 1)}
        assert tasks.threads_of_libraries() == before
        if declared.supports_inner_max_num_threads:
            found = make(inner_max_num_threads=2).map(tasks.threads_of_libraries, range(20))
            assert {threads for of_worker in found for threads in of_worker} == {2}
