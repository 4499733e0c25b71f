"""The facade: arguments, the three ways to call, blocks. Nothing here has a worker."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import parallel as package
from parallel import Parallel, Retry, delayed, register_parallel_backend
from parallel._sequential import SequentialBackend
from parallel.errors import BackendNotFoundError, TaskPicklingError
from tests.core.fakes import HereBackend, SeparateBackend


@pytest.fixture(autouse=True)
def backends() -> None:
    register_parallel_backend("here", HereBackend)
    register_parallel_backend("separate", SeparateBackend)


def square(i: int) -> int:
    return i * i


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_the_arguments_are_joblibs_in_joblibs_order() -> None:
    positional = [
        name
        for name, parameter in inspect.signature(Parallel).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == [
        "n_jobs",
        "backend",
        "return_as",
        "verbose",
        "timeout",
        "pre_dispatch",
        "batch_size",
        "temp_folder",
        "max_nbytes",
        "mmap_mode",
        "prefer",
        "require",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("return_as", "list"),
        ("verbose", 0),
        ("timeout", None),
        ("pre_dispatch", "2 * n_jobs"),
        ("batch_size", "auto"),
        ("temp_folder", None),
        ("max_nbytes", "1M"),
        ("mmap_mode", "r"),
        ("prefer", None),
        ("require", None),
        ("total_timeout", None),
        ("return_exceptions", False),
    ],
)
def test_the_defaults_are_joblibs(name: str, value: object) -> None:
    assert getattr(Parallel(n_jobs=2), name) == value


def test_arguments_may_be_given_by_position() -> None:
    parallel = Parallel(2, "here", "list", 0, 60.0, "all", 5, "/tmp", "2M", "c", "threads", "sharedmem")
    assert parallel.n_jobs == 2
    assert type(parallel._backend) is HereBackend
    assert (parallel.return_as, parallel.verbose, parallel.timeout) == ("list", 0, 60.0)
    assert (parallel.pre_dispatch, parallel.batch_size) == ("all", 5)
    assert (parallel.temp_folder, parallel.max_nbytes, parallel.mmap_mode) == ("/tmp", "2M", "c")
    assert (parallel.prefer, parallel.require) == ("threads", "sharedmem")


WRONG: list[dict[str, Any]] = [
    *[{"n_jobs": n_jobs} for n_jobs in (0, 0.5, "x", "", math.nan, math.inf, [], {}, "0")],
    *[{"batch_size": size} for size in (0, -1, "x", 1.5, None, [], math.nan)],
    *[{"return_as": form} for form in ("generators", "", None, 1, [])],
    *[
        {"pre_dispatch": text}
        for text in ("__import__('os')", "n_jobs/0", "", "-1", "9**9**9", "n_jobs - 100", 0, -1, None, [], math.nan)
    ],
    *[{"timeout": timeout} for timeout in (0, -1, "x", math.nan, [])],
    *[{"total_timeout": timeout} for timeout in (0, -1, "x", math.nan)],
    *[{"retries": retries} for retries in (-1, 1.5, "x", [])],
    {"prefer": "x"},
    {"require": "x"},
    {"prefer": "processes", "require": "sharedmem"},
    {"backend": "no such backend"},
    {"backend": 5},
    {"backend": "separate", "require": "sharedmem"},
]


@pytest.mark.parametrize("arguments", WRONG, ids=repr)
def test_a_wrong_argument_is_a_value_error_where_it_is_given(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Parallel(**{"n_jobs": 2, **arguments})


@pytest.mark.parametrize("arguments", [{"n_jobs": 1}, {"backend": "sequential"}])
def test_a_wrong_argument_is_an_error_also_where_there_is_no_worker(arguments: dict[str, Any]) -> None:
    for wrong in ({"batch_size": 0}, {"pre_dispatch": "n_jobs/0"}, {"timeout": 0}, {"return_as": "x"}):
        with pytest.raises(ValueError, match=r"."):
            Parallel(**arguments, **wrong)


def test_an_unknown_backend_is_told_with_what_there_is() -> None:
    with pytest.raises(BackendNotFoundError, match="here, separate, sequential"):
        Parallel(backend="no such backend")


def test_an_option_that_the_backend_does_not_know_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        Parallel(backend="sequential", colour="red")


@pytest.mark.parametrize("n_jobs", [2, 2.0, "2", np.int64(2), np.float64(2.0)])
def test_n_jobs_is_coerced_with_int(n_jobs: Any) -> None:
    parallel = Parallel(n_jobs=n_jobs, backend="here")
    assert parallel.n_jobs == 2 and type(parallel.n_jobs) is int


def test_a_negative_n_jobs_goes_to_the_backend_as_it_is() -> None:
    backend = HereBackend()
    assert Parallel(n_jobs=-1, backend=backend).n_jobs == -1


def test_a_pre_dispatch_that_is_enough_for_some_n_jobs_only_is_judged_by_the_number_of_workers() -> None:
    assert Parallel(n_jobs=2, backend="here", pre_dispatch="n_jobs - 1").map(square, range(3)) == [0, 1, 4]
    with pytest.raises(ValueError, match="pre_dispatch"):
        Parallel(n_jobs=2, backend="here", pre_dispatch="n_jobs - 2")


@pytest.mark.parametrize("verbose", [True, 10, 1.5, np.int64(3)])
def test_verbose_is_coerced_with_int(verbose: Any) -> None:
    assert Parallel(verbose=verbose).verbose == int(verbose)


def test_retries_may_be_a_number_or_a_policy() -> None:
    assert Parallel(retries=2).retries == Retry(attempts=3)
    assert Parallel(retries=None).retries == Parallel().retries == Retry(attempts=1)  # type: ignore[arg-type]
    policy = Retry(attempts=5, backoff_seconds=1.0)
    assert Parallel(retries=policy).retries is policy


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["here", "separate", "sequential"])
def parallel(request: pytest.FixtureRequest) -> Parallel:
    return Parallel(n_jobs=2, backend=request.param)


@pytest.mark.parametrize("form", [list, tuple, iter])
def test_tasks_may_come_in_any_iterable(parallel: Parallel, form: Any) -> None:
    assert parallel(form([delayed(square)(i) for i in range(10)])) == [i * i for i in range(10)]


def test_map_does_what_the_builtin_does(parallel: Parallel) -> None:
    assert parallel.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert parallel.map(operator.add, range(5), iter([1, 2, 3])) == [1, 3, 5]


def test_starmap_takes_the_arguments_from_one_iterable(parallel: Parallel) -> None:
    assert parallel.starmap(operator.add, [(1, 2), [3, 4]]) == [3, 7]


def test_an_empty_input_gives_no_results(parallel: Parallel) -> None:
    assert parallel([]) == []
    assert parallel.map(square, []) == []
    assert parallel.starmap(operator.add, []) == []


@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 1000])
@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 1])
def test_sizes_do_not_change_the_results(parallel: Parallel, batch_size: Any, pre_dispatch: Any) -> None:
    sized = Parallel(2, parallel._backend, batch_size=batch_size, pre_dispatch=pre_dispatch)
    assert sized.map(square, range(100)) == [i * i for i in range(100)]


def test_the_same_object_may_make_many_calls(parallel: Parallel) -> None:
    for count in (3, 0, 5):
        assert parallel.map(square, range(count)) == [i * i for i in range(count)]


def test_map_needs_something_to_call_and_something_to_call_it_with(parallel: Parallel) -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        parallel.map(square)
    with pytest.raises(TypeError, match="must be callable"):
        parallel.map(5, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be callable"):
        parallel.starmap(None, [(1,)])  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [square, 5, (square,), [square, (1,), {}]])
def test_what_is_no_task_is_a_type_error(parallel: Parallel, wrong: Any) -> None:
    with pytest.raises(TypeError, match="task 1 of the input"):
        parallel([delayed(square)(1), wrong])


def test_what_is_no_iterable_is_a_type_error(parallel: Parallel) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        parallel(5)  # type: ignore[arg-type]


def test_an_error_of_the_input_comes_through_and_the_next_call_works(parallel: Parallel) -> None:
    def broken() -> Iterator[Any]:
        yield delayed(square)(1)
        raise LookupError("in the input")

    with pytest.raises(LookupError, match="in the input"):
        parallel(broken())
    assert parallel.map(square, [2]) == [4]


def test_a_failure_comes_through_and_the_next_call_works(parallel: Parallel) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        parallel.map(functools.partial(divmod, 1), [1, 0, 1])
    assert "raised by task 1 (partial(divmod))" in caught.value.__notes__[0]
    assert parallel.map(square, [2]) == [4]


def test_a_failure_carries_the_results_that_had_arrived() -> None:
    parallel = Parallel(n_jobs=2, backend="here", batch_size=1)
    with pytest.raises(ZeroDivisionError) as caught:
        parallel.map(functools.partial(divmod, 1), [1, 1, 0, 1])
    partial = caught.value.partial_results  # type: ignore[attr-defined]
    assert partial[0] == partial[1] == (1, 0)
    assert 2 not in partial


def test_exceptions_may_take_the_place_of_results(parallel: Parallel) -> None:
    tolerant = Parallel(n_jobs=2, backend=parallel._backend, return_exceptions=True)
    first, error, last = tolerant.map(functools.partial(divmod, 1), [1, 0, 1])
    assert first == last == (1, 0)
    assert isinstance(error, ZeroDivisionError)


def test_a_task_that_fails_may_run_again() -> None:
    left = [2]

    def flaky() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise LookupError
        return "done"

    assert Parallel(n_jobs=2, backend="here", retries=2)([delayed(flaky)()]) == ["done"]


def test_tasks_of_a_backend_that_declares_nothing_run_on_the_original_objects() -> None:
    out: list[int] = []
    Parallel(n_jobs=2, backend="here")(delayed(out.append)(i) for i in range(5))
    assert out == [0, 1, 2, 3, 4]


def test_what_cannot_be_sent_to_workers_elsewhere_is_named() -> None:
    with pytest.raises(TaskPicklingError, match=r"task 1 .*args\[0\]: cannot pickle '_thread\.lock'"):
        Parallel(n_jobs=2, backend="separate")([delayed(square)(1), delayed(abs)(threading.Lock())])


def test_the_counters_tell_how_far_the_last_call_came() -> None:
    parallel = Parallel(n_jobs=2, backend="here", batch_size=2)
    assert (parallel.n_completed_tasks, parallel.n_dispatched_tasks, parallel.n_tasks) == (0, 0, None)
    parallel.map(square, range(5))
    assert (parallel.n_completed_tasks, parallel.n_dispatched_tasks, parallel.n_tasks) == (5, 5, 5)
    assert parallel.n_dispatched_batches == 3


# -- one worker --------------------------------------------------------------------------------------------------------


def test_one_worker_is_left_out() -> None:
    backend = HereBackend()
    assert Parallel(n_jobs=1, backend=backend).map(square, range(3)) == [0, 1, 4]
    assert backend.log == []


def test_one_worker_that_is_somewhere_else_is_used_unless_the_user_said_one() -> None:
    class Elsewhere(HereBackend):
        runs_in_caller_when_single = False

    backend = Elsewhere()
    Parallel(backend=backend).map(square, range(3))
    assert "start_call" in backend.log
    backend = Elsewhere()
    Parallel(n_jobs=1, backend=backend).map(square, range(3))
    assert backend.log == []


@pytest.mark.parametrize("limit", ["timeout", "total_timeout"])
def test_with_a_limit_one_worker_is_used(limit: str) -> None:
    backend = HereBackend()
    Parallel(n_jobs=1, backend=backend, **{limit: 60.0}).map(square, range(3))  # type: ignore[arg-type]
    assert "start_call" in backend.log


def test_a_backend_that_gives_one_worker_where_more_were_asked_for_is_left_out_too() -> None:
    class Lonely(HereBackend):
        def effective_n_jobs(self, n_jobs: int | None) -> int:
            return 1

    backend = Lonely()
    assert Parallel(n_jobs=4, backend=backend).map(square, range(3)) == [0, 1, 4]
    assert backend.log == []


# -- backends and blocks -----------------------------------------------------------------------------------------------


def test_a_call_gets_workers_and_gives_them_back() -> None:
    backend = HereBackend()
    Parallel(n_jobs=2, backend=backend).map(square, range(3))
    assert backend.log == ["configure 2", "start_call", "stop_call", "terminate"]


def test_a_call_that_fails_gives_its_workers_back() -> None:
    class Killing(HereBackend):
        supports_kill = True

    backend = Killing()
    with pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2, backend=backend).starmap(divmod, [(1, 0)])
    assert backend.log == ["configure 2", "start_call", "abort_everything False", "stop_call", "terminate"]


def test_calls_of_a_block_have_the_same_workers() -> None:
    backend = HereBackend()
    with Parallel(n_jobs=2, backend=backend) as parallel:
        for _ in range(2):
            assert parallel.map(square, range(3)) == [0, 1, 4]
    assert backend.log == ["configure 2", *["start_call", "stop_call"] * 2, "terminate"]


def test_a_failure_in_a_block_leaves_the_workers_ready() -> None:
    backend = HereBackend()
    with Parallel(n_jobs=2, backend=backend) as parallel:
        with pytest.raises(ZeroDivisionError):
            parallel.starmap(divmod, [(1, 0)])
        assert "abort_everything True" in backend.log
        assert parallel.map(square, range(3)) == [0, 1, 4]


def test_a_block_gives_its_workers_back_after_an_error() -> None:
    backend = HereBackend()
    with pytest.raises(LookupError), Parallel(n_jobs=2, backend=backend):
        raise LookupError
    assert backend.log == ["configure 2", "terminate"]


def test_a_block_whose_workers_cannot_be_had_is_none() -> None:
    class Broken(HereBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            raise OSError("no more processes")

    parallel = Parallel(n_jobs=2, backend=Broken())
    for _ in range(2):
        with pytest.raises(OSError, match="no more processes"), parallel:
            pytest.fail("never here")
    with pytest.raises(OSError, match="no more processes"):
        parallel.map(square, [1])


def test_blocks_of_one_object_may_nest() -> None:
    backend = HereBackend()
    with Parallel(n_jobs=2, backend=backend) as parallel:
        with parallel:
            parallel.map(square, [1])
        assert "terminate" not in backend.log
        parallel.map(square, [1])
    assert backend.log[-1] == "terminate"


def test_a_block_of_one_worker_needs_none() -> None:
    backend = HereBackend()
    with Parallel(n_jobs=1, backend=backend) as parallel:
        assert parallel.map(square, range(3)) == [0, 1, 4]
    assert backend.log == []


def test_the_backend_says_how_many_workers_there_are() -> None:
    class Fewer(HereBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            super().configure(n_jobs, parallel)
            return 2

        def submit(self, func: Any, callback: Any) -> Any:
            assert func.worker in (0, 1)
            return super().submit(func, callback)

    assert Parallel(n_jobs=8, backend=Fewer()).map(square, range(20)) == [i * i for i in range(20)]


def test_a_backend_may_say_the_size_of_batches() -> None:
    sizes: list[int] = []

    class Sizing(HereBackend):
        def compute_batch_size(self) -> int:
            return 4

        def submit(self, func: Any, callback: Any) -> Any:
            sizes.append(len(func.batch))
            return super().submit(func, callback)

    backend = Sizing()
    Parallel(n_jobs=2, backend=backend).map(square, range(10))
    Parallel(n_jobs=2, backend=backend, batch_size=5).map(square, range(10))
    assert sizes == [4, 4, 2, 5, 5]


def test_a_task_that_calls_the_same_object_again_does_not_wait_for_itself() -> None:
    def outer(i: int) -> list[int]:
        return parallel.map(square, [i])  # type: ignore[no-any-return]

    parallel = Parallel(n_jobs=2, backend=HereBackend())
    with pytest.warns(RuntimeWarning, match="instead of on 2 workers: its workers are those that this task runs on"):
        assert parallel.map(outer, range(3)) == [[0], [1], [4]]


def test_without_any_backend_installed_calls_are_sequential() -> None:
    parallel = Parallel(n_jobs=4)
    assert type(parallel._backend) is SequentialBackend
    with pytest.warns(RuntimeWarning, match="instead of on 4 workers: no other backend is installed"):
        assert parallel.map(square, range(3)) == [0, 1, 4]


def test_one_worker_that_was_asked_for_is_no_reason_to_warn() -> None:
    assert Parallel(n_jobs=1).map(square, range(3)) == [0, 1, 4]
    assert Parallel(n_jobs=4, backend="sequential").map(square, range(3)) == [0, 1, 4]


# -- delayed -----------------------------------------------------------------------------------------------------------


def test_delayed_makes_the_tuple_of_a_task() -> None:
    assert delayed(square)(1, x=2) == (square, (1,), {"x": 2})


def test_delayed_keeps_name_and_docstring() -> None:
    def documented() -> None:
        """What it does."""

    assert delayed(documented).__name__ == "documented"
    assert delayed(documented).__doc__ == "What it does."


def test_delayed_takes_whatever_can_be_called() -> None:
    class Slotted:
        __slots__ = ()

        def __call__(self, i: int) -> int:
            return i + 1

    functions = [Slotted(), functools.partial(operator.add, 1), (1).__add__, lambda i: i + 1]
    for function in functions:
        assert Parallel(n_jobs=1)([delayed(function)(1)]) == [2]


def test_delayed_functions_do_not_get_mixed_up() -> None:
    functions = [lambda i=i: i for i in range(5)]
    tasks = [delayed(function)() for function in functions for _ in range(2)]
    assert [function for function, _, _ in tasks] == [function for function in functions for _ in range(2)]


# -- the package -------------------------------------------------------------------------------------------------------


def test_what_is_public_is_there_and_is_explained() -> None:
    for name in package.__all__:
        assert getattr(package, name).__doc__


def test_a_parallel_object_shows_its_n_jobs() -> None:
    assert repr(Parallel(n_jobs=3)) == "Parallel(n_jobs=3)"


def test_an_object_of_a_derived_class_shows_its_own_name() -> None:
    class ProgressParallel(Parallel):
        pass

    assert repr(ProgressParallel(n_jobs=3)) == "ProgressParallel(n_jobs=3)"


def test_a_retry_policy_can_be_pickled_and_compared() -> None:
    policy = Retry(attempts=4, on=(LookupError,), backoff_seconds=1.0, jitter=0.5)
    assert pickle.loads(pickle.dumps(policy)) == policy
