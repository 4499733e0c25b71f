from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from parallel import Parallel, Retry, effective_n_jobs, parallel_backend, parallel_config, register_parallel_backend
from parallel._config import ChosenBackend, resolve_backend
from parallel._settings import ACTIVE, UNSET, Settings
from parallel._terms import nested_settings
from parallel.errors import BackendNotFoundError
from tests.core.fakes import HereBackend, PlainThreadsBackend, SeparateBackend


@pytest.fixture(autouse=True)
def backends() -> None:
    """The names that preferences look for, and nothing behind them."""
    register_parallel_backend("threads", PlainThreadsBackend)
    register_parallel_backend("loky", SeparateBackend)
    register_parallel_backend("mp", SeparateBackend)
    register_parallel_backend("here", HereBackend)


def choose(backend: Any = None, *, prefer: str | None = None, require: str | None = None, **options: Any) -> Any:
    return resolve_backend(backend, prefer, require, options, UNSET)


# -- which setting wins ------------------------------------------------------------------------------------------------


def test_without_any_setting_the_defaults_hold() -> None:
    parallel = Parallel()
    assert (parallel.n_jobs, parallel.verbose, parallel.max_nbytes, parallel.mmap_mode) == (1, 0, "1M", "r")
    assert (parallel.temp_folder, parallel.prefer, parallel.require) == (None, None, None)


def test_the_context_wins_over_the_default() -> None:
    with parallel_config(n_jobs=3, verbose=7, max_nbytes=5, mmap_mode="c", temp_folder="/x", prefer="threads"):
        parallel = Parallel()
    assert (parallel.n_jobs, parallel.verbose, parallel.max_nbytes, parallel.mmap_mode) == (3, 7, 5, "c")
    assert (parallel.temp_folder, parallel.prefer) == ("/x", "threads")


def test_an_argument_wins_over_the_context() -> None:
    with parallel_config("loky", n_jobs=3, verbose=7, max_nbytes=5, prefer="processes"):
        parallel = Parallel(n_jobs=2, backend="here", verbose=0, max_nbytes=None, prefer=None)
    assert (parallel.n_jobs, parallel.verbose, parallel.max_nbytes, parallel.prefer) == (2, 0, None, None)
    assert type(parallel._backend) is HereBackend


def test_n_jobs_none_as_an_argument_leaves_it_to_the_context() -> None:
    with parallel_config(n_jobs=3):
        assert Parallel(n_jobs=None).n_jobs == 3


def test_n_jobs_none_in_the_context_leaves_it_to_the_backend() -> None:
    class Many(HereBackend):
        default_n_jobs = 6

    register_parallel_backend("many", Many)
    with parallel_config("many"):
        assert Parallel().n_jobs == 6
    with parallel_config("many", n_jobs=None):
        assert Parallel().n_jobs == 6


def test_an_inner_context_inherits_what_it_does_not_set() -> None:
    with parallel_config("here", n_jobs=3), parallel_config(verbose=4):
        parallel = Parallel()
        assert type(parallel._backend) is HereBackend
        assert (parallel.n_jobs, parallel.verbose) == (3, 4)


def test_an_inner_context_may_set_something_back_to_none() -> None:
    with parallel_config(max_nbytes=5), parallel_config(max_nbytes=None):
        assert Parallel().max_nbytes is None


def test_the_options_of_an_outer_backend_do_not_go_to_an_inner_one() -> None:
    with parallel_config("here", colour="red"), parallel_config("threads"):
        assert Parallel()._backend.options == {}


def test_settings_end_with_the_block_also_after_an_error() -> None:
    with pytest.raises(LookupError), parallel_config(n_jobs=3):
        raise LookupError
    assert Parallel().n_jobs == 1


def test_as_a_plain_call_settings_stay_until_they_are_unregistered() -> None:
    config = parallel_config(n_jobs=3)
    assert Parallel().n_jobs == 3
    config.unregister()
    assert Parallel().n_jobs == 1


def test_a_call_made_before_the_settings_changed_keeps_its_own() -> None:
    with parallel_config(n_jobs=3):
        parallel = Parallel()
    assert parallel.n_jobs == 3


def test_effective_n_jobs_is_what_a_call_would_have() -> None:
    assert effective_n_jobs(3) == 3
    assert effective_n_jobs(None) == 1
    with parallel_config("here", n_jobs=5):
        assert effective_n_jobs(None) == 5
    with parallel_config("sequential"):
        assert effective_n_jobs(4) == 1


# -- wrong settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [0, 0.5, "x", float("nan"), float("inf"), []])
def test_a_wrong_n_jobs_is_refused_where_it_is_set(n_jobs: Any) -> None:
    with pytest.raises(ValueError, match="n_jobs"):
        parallel_config(n_jobs=n_jobs)
    assert ACTIVE.get() == Settings()


@pytest.mark.parametrize(("n_jobs", "number"), [("2", 2), (2.0, 2), (np.int64(2), 2), (True, 1)])
def test_n_jobs_is_coerced_with_int(n_jobs: Any, number: int) -> None:
    with parallel_config(n_jobs=n_jobs):
        assert Parallel().n_jobs == number
    assert Parallel(n_jobs=n_jobs).n_jobs == number


def test_an_unknown_backend_is_refused_where_it_is_set() -> None:
    with pytest.raises(BackendNotFoundError):
        parallel_config("no such backend")


@pytest.mark.parametrize("backend", [5, object(), dict, ["here"]])
def test_what_is_no_backend_is_a_value_error(backend: Any) -> None:
    with pytest.raises(ValueError, match="backend must be"):
        Parallel(backend=backend)


@pytest.mark.parametrize("backend", [UNSET, None, HereBackend()])
def test_options_need_a_backend_by_name(backend: Any) -> None:
    with pytest.raises(ValueError, match="colour"):
        parallel_config(backend, colour="red")


def test_options_of_a_backend_by_name_go_to_its_constructor() -> None:
    with parallel_config("here", colour="red"):
        assert Parallel()._backend.options == {"colour": "red"}
    assert Parallel(backend="here", colour="red")._backend.options == {"colour": "red"}


def test_options_of_a_call_go_to_configure_where_the_backend_comes_from_elsewhere() -> None:
    backend = HereBackend()
    assert Parallel(n_jobs=2, backend=backend, colour="red").map(abs, [-1]) == [1]
    assert backend.configure_options == {"colour": "red"}
    with parallel_config(backend):
        Parallel(n_jobs=2, colour="blue").map(abs, [-1])
    assert backend.configure_options == {"colour": "blue"}


def test_a_factory_that_gives_no_backend_is_a_type_error() -> None:
    register_parallel_backend("odd", dict)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="odd"):
        Parallel(backend="odd")


# -- the choice of a backend -------------------------------------------------------------------------------------------


def test_an_instance_is_used_as_it_is() -> None:
    backend = HereBackend()
    assert choose(backend).backend is backend


def test_a_class_is_made_into_an_instance() -> None:
    assert type(choose(HereBackend).backend) is HereBackend
    assert choose(HereBackend, colour="red").backend.options == {"colour": "red"}
    with parallel_config(HereBackend, colour="red"):
        assert choose().backend.options == {"colour": "red"}


def test_a_multiprocessing_context_is_given_to_the_backend_for_it() -> None:
    context = multiprocessing.get_context("spawn")
    chosen = choose(context)
    assert chosen.name == "mp"
    assert chosen.backend.options == {"context": context}


def test_the_multiprocessing_module_counts_as_a_context() -> None:
    assert choose(multiprocessing).name == "mp"


def test_a_backend_says_why_it_was_chosen() -> None:
    reasons: list[ChosenBackend] = [choose("here"), choose(), choose(prefer="threads"), choose(require="sharedmem")]
    with parallel_config("here"):
        reasons.append(choose())
    assert [(chosen.name, chosen.reason) for chosen in reasons] == [
        ("here", "argument"),
        ("loky", "default"),
        ("threads", "prefer='threads'"),
        ("threads", "require='sharedmem'"),
        ("here", "context"),
    ]


def test_a_preference_gives_way_to_a_backend_of_the_context_or_of_the_call() -> None:
    assert choose("loky", prefer="threads").name == "loky"
    with parallel_config("loky"):
        assert choose(prefer="threads").name == "loky"
    with parallel_config("threads"):
        assert choose(prefer="processes").name == "threads"


def test_a_preference_for_processes_replaces_a_default_of_threads() -> None:
    register_parallel_backend("mine", PlainThreadsBackend, make_default=True)
    assert choose().name == "mine"
    assert choose(prefer="processes").name == "loky"


def test_shared_memory_replaces_a_backend_of_the_context_that_has_none() -> None:
    with parallel_config("loky"):
        assert choose(require="sharedmem").name == "threads"
    with parallel_config("here"):
        assert choose(require="sharedmem").name == "here"


def test_shared_memory_contradicts_a_backend_of_the_call_that_has_none() -> None:
    with pytest.raises(ValueError, match="sharedmem"):
        choose("loky", require="sharedmem")


def test_shared_memory_contradicts_a_preference_for_processes() -> None:
    with pytest.raises(ValueError, match="sharedmem"):
        Parallel(prefer="processes", require="sharedmem")


@pytest.mark.parametrize("wrong", [{"prefer": "threading"}, {"require": "shared"}, {"prefer": 1}])
def test_unknown_hints_and_constraints_are_value_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Parallel(**wrong)
    with pytest.raises(ValueError, match="must be one of"), parallel_config(**wrong):
        Parallel()


def test_the_limit_for_the_threads_of_libraries_reaches_the_backend() -> None:
    with parallel_config("loky", inner_max_num_threads=2):
        assert Parallel()._backend.inner_max_num_threads == 2
    assert Parallel(backend="loky", inner_max_num_threads=3)._backend.inner_max_num_threads == 3


def test_a_backend_that_cannot_limit_the_threads_of_libraries_refuses_to() -> None:
    with pytest.raises(ValueError, match="inner_max_num_threads"):
        Parallel(backend="threads", inner_max_num_threads=2)
    with pytest.raises(ValueError, match="inner_max_num_threads"), parallel_config("threads", inner_max_num_threads=2):
        Parallel()


@pytest.mark.parametrize("options", [{"require": "sharedmem"}, {"backend": "threads"}, {"backend": "sequential"}])
def test_a_limit_meant_for_the_backend_of_the_context_does_not_get_into_the_way_of_another(
    options: dict[str, Any],
) -> None:
    with parallel_config("loky", inner_max_num_threads=2):
        assert Parallel(**options)._backend.inner_max_num_threads is None


# -- parallel_backend --------------------------------------------------------------------------------------------------


def test_the_older_spelling_takes_one_worker_per_cpu() -> None:
    with parallel_backend("here"):
        assert Parallel().n_jobs == -1
    with parallel_backend("here", n_jobs=3):
        assert Parallel().n_jobs == 3


def test_the_older_spelling_gives_backend_and_n_jobs() -> None:
    with parallel_backend("here", n_jobs=3) as (backend, n_jobs):
        assert type(backend) is HereBackend
        assert n_jobs == 3


def test_the_older_spelling_can_stay_in_force_too() -> None:
    config = parallel_backend("here", n_jobs=3, colour="red")
    assert Parallel()._backend.options == {"colour": "red"}
    config.unregister()
    assert Parallel().n_jobs == 1


# -- where settings hold -----------------------------------------------------------------------------------------------


def test_each_asyncio_task_has_its_own_settings() -> None:
    async def set_and_see(n_jobs: int) -> list[int]:
        seen = []
        with parallel_config(n_jobs=n_jobs):
            for _ in range(3):
                await asyncio.sleep(0)  # the others run now
                seen.append(Parallel().n_jobs)
        return seen

    async def main() -> list[list[int]]:
        return await asyncio.gather(*map(set_and_see, [2, 3, 4]))

    assert asyncio.run(main()) == [[2] * 3, [3] * 3, [4] * 3]
    assert Parallel().n_jobs == 1


def test_an_asyncio_task_inherits_the_settings_around_it() -> None:
    async def see() -> int:
        return Parallel().n_jobs

    async def main() -> int:
        with parallel_config(n_jobs=3):
            task = asyncio.ensure_future(see())
        return await task

    assert asyncio.run(main()) == 3


def in_thread(function: Any) -> Any:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(function()))
    thread.start()
    thread.join()
    return seen[0]


def test_settings_hold_in_the_thread_that_made_them() -> None:
    with parallel_config(n_jobs=3):
        assert in_thread(lambda: Parallel().n_jobs) == 1


def test_settings_made_in_a_thread_do_not_come_out_of_it() -> None:
    def set_and_see() -> int:
        parallel_config(n_jobs=3)
        return Parallel().n_jobs

    assert in_thread(set_and_see) == 3
    assert Parallel().n_jobs == 1


def test_settings_travel_with_a_copied_context() -> None:
    with parallel_config(n_jobs=3):
        context = contextvars.copy_context()
    assert in_thread(lambda: context.run(lambda: Parallel().n_jobs)) == 3


# -- inside tasks ------------------------------------------------------------------------------------------------------


def test_the_first_level_inside_gets_threads_and_deeper_ones_run_sequentially() -> None:
    outer = choose("loky").backend
    first = nested_settings(outer, 2)
    assert (first.backend, first.n_jobs, first.nesting_level) == ("threads", UNSET, 1) or first.n_jobs is None
    token = ACTIVE.set(first)
    try:
        assert Parallel().n_jobs == 1
        second = nested_settings(choose().backend, 2)
    finally:
        ACTIVE.reset(token)
    assert (second.backend, second.nesting_level) == ("sequential", 2)


def test_a_backend_may_say_what_is_inside_it() -> None:
    class Outer(HereBackend):
        def get_nested_backend(self) -> Any:
            return "here", 5

    inner = nested_settings(choose(Outer()).backend, 2)
    assert (inner.backend, inner.n_jobs) == ("here", 5)


def test_tasks_see_the_nested_settings_and_the_caller_its_own() -> None:
    def inside(_: int) -> tuple[str, int, int]:
        settings = ACTIVE.get()
        return settings.backend, Parallel().n_jobs, settings.nesting_level

    with parallel_config("here", n_jobs=3):
        assert Parallel().map(inside, range(2)) == [("threads", 1, 1)] * 2
        assert Parallel().n_jobs == 3


def test_a_nested_call_of_a_task_runs_by_the_nested_settings() -> None:
    def inner(i: int) -> int:
        return ACTIVE.get().nesting_level * 100 + i

    def outer(i: int) -> list[int]:
        return Parallel(n_jobs=2).map(inner, [i])  # type: ignore[no-any-return]

    assert Parallel(n_jobs=2, backend="here").map(outer, range(2)) == [[200], [201]]


def test_settings_can_be_pickled() -> None:
    with parallel_config("here", n_jobs=3, colour="red"):
        settings = ACTIVE.get()
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.verbose is UNSET


# -- every setting of Parallel -----------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Any, Any]] = {
    "return_as": ("generator", "list"),
    "verbose": (0, 7),
    "timeout": (3.0, None),
    "pre_dispatch": ("all", 4),
    "batch_size": (5, "auto"),
    "temp_folder": ("/somewhere", None),
    "max_nbytes": ("2M", None),
    "mmap_mode": ("c", None),
    "prefer": ("threads", None),
    "total_timeout": (7.0, None),
    "retries": (Retry(3), Retry(1)),
    "return_exceptions": (True, False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_taken_from_the_context_unless_it_is_given(name: str) -> None:
    one, other = SETTINGS[name]
    with parallel_config("sequential", **{name: one}):
        assert getattr(Parallel(n_jobs=1), name) == one
        assert getattr(Parallel(n_jobs=1, **{name: other}), name) == other
        with parallel_config(n_jobs=1):
            assert getattr(Parallel(), name) == one
        with parallel_config(**{name: other}):
            assert getattr(Parallel(n_jobs=1), name) == other
        assert getattr(Parallel(n_jobs=1), name) == one


@pytest.mark.parametrize(
    "wrong",
    [
        {"return_as": "set"},
        {"timeout": -1},
        {"total_timeout": "soon"},
        {"pre_dispatch": "__import__('os')"},
        {"batch_size": 0},
        {"max_nbytes": "much"},
        {"mmap_mode": "w"},
        {"retries": -1},
        {"serializer": "json"},
        {"compression": "rar"},
        {"compression_threshold": -1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_setting_is_refused_where_it_is_set(wrong: dict[str, Any]) -> None:
    before = ACTIVE.get()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        parallel_config(**wrong)
    assert ACTIVE.get() is before


def test_settings_of_a_call_do_not_hold_for_calls_inside_its_tasks() -> None:
    with parallel_config("here", n_jobs=2, timeout=3.0, retries=2, return_as="list"):
        nested = nested_settings(HereBackend(), 2)
    assert (nested.timeout, nested.retries, nested.return_as) == (UNSET, UNSET, UNSET)


# -- the environment ---------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "here")
    monkeypatch.setenv("PARALLEL_N_JOBS", "3")
    parallel = Parallel()
    assert parallel.n_jobs == 3
    assert isinstance(parallel._backend, HereBackend)
    assert resolve_backend(None, None, None, {}, UNSET).reason == "environment"


def test_the_context_and_an_argument_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "no-such-backend")
    monkeypatch.setenv("PARALLEL_N_JOBS", "3")
    assert Parallel(n_jobs=2, backend="here").n_jobs == 2
    with parallel_config("here", n_jobs=4):
        assert Parallel().n_jobs == 4
    with parallel_config("here", n_jobs=None):  # what the backend says
        assert Parallel().n_jobs == HereBackend.default_n_jobs


def test_the_environment_does_not_hold_inside_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "no-such-backend")
    monkeypatch.setenv("PARALLEL_N_JOBS", "3")
    with parallel_config("here"):
        token = ACTIVE.set(nested_settings(HereBackend(), 2))
        try:
            assert Parallel().n_jobs == 1
        finally:
            ACTIVE.reset(token)


@pytest.mark.parametrize("text", ["0", "many", "1.5"])
def test_a_wrong_number_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PARALLEL_N_JOBS", text)
    with pytest.raises(ValueError, match="the environment variable PARALLEL_N_JOBS"):
        Parallel(backend="here")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "")
    monkeypatch.setenv("PARALLEL_N_JOBS", "")
    assert Parallel().n_jobs == 1


def test_an_unknown_backend_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "no-such-backend")
    with pytest.raises(BackendNotFoundError, match="no-such-backend"):
        Parallel(n_jobs=2)


def test_an_option_that_a_backend_does_not_know_is_named_with_those_that_it_knows() -> None:
    class Plain(HereBackend):
        def __init__(self, nesting_level: int | None = None, colour: str = "red") -> None:
            super().__init__(nesting_level=nesting_level)

    register_parallel_backend("plain", Plain)
    with pytest.raises(TypeError, match="'plain' knows no option size, weight; it knows nesting_level, colour"):
        Parallel(backend="plain", size=3, colour="blue", weight=1)


@pytest.mark.parametrize("backend", [3, object(), ["loky"], int])
def test_what_is_no_backend_is_refused_where_it_is_written(backend: object) -> None:
    with pytest.raises(ValueError, match="backend must be a name"):
        parallel_config(backend=backend)
    with pytest.raises(ValueError, match="backend must be a name"):
        Parallel(backend=backend)


@pytest.mark.parametrize("threads", [0, -1, "x", 2.5])
def test_a_wrong_limit_of_threads_is_refused_where_it_is_written(threads: object) -> None:
    with pytest.raises(ValueError, match="inner_max_num_threads must be an integer"):
        parallel_config(inner_max_num_threads=threads)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inner_max_num_threads must be an integer"):
        Parallel(backend=HereBackend(), inner_max_num_threads=threads)


def test_an_error_of_a_factory_is_its_own() -> None:
    def make(**options: object) -> HereBackend:
        raise TypeError("not on Sundays")

    register_parallel_backend("sundays", make)
    with pytest.raises(TypeError, match="not on Sundays"):
        Parallel(backend="sundays", size=3)
