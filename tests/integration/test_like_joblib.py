"""What programs written for joblib rely on, first part: arguments, settings and the choice of a backend."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel import (
    Parallel,
    ParallelBackendBase,
    cpu_count,
    delayed,
    effective_n_jobs,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
)
from parallel._plugins import _default, _registered
from parallel_backend_loky import LokyBackend
from parallel_backend_mp import MpBackend
from parallel_backend_threads import ThreadsBackend
from parallel_testkit import Gate, Tally, _tasks
from tests.integration import joblib_tasks as tasks
from tests.integration.local_backends import every_kind, every_kind_with_workers

Make = Callable[..., Parallel]

LOCAL: dict[str, type[ParallelBackendBase]] = {"threads": ThreadsBackend, "loky": LokyBackend, "mp": MpBackend}
every_name = pytest.mark.parametrize("name", LOCAL)


def backend_of(parallel: Parallel) -> ParallelBackendBase:
    return parallel._backend


# -- the constructor and its tasks -------------------------------------------------------------------------------------


def test_the_arguments_of_parallel_come_in_joblibs_order_with_joblibs_defaults() -> None:
    names = [
        name
        for name, parameter in inspect.signature(Parallel).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    parallel = Parallel(backend="sequential")
    assert {name: getattr(parallel, name) for name in names if name not in ("n_jobs", "backend")} == {
        "return_as": "list",
        "verbose": 0,
        "timeout": None,
        "pre_dispatch": "2 * n_jobs",
        "batch_size": "auto",
        "temp_folder": None,
        "max_nbytes": "1M",
        "mmap_mode": "r",
        "prefer": None,
        "require": None,
    }
    assert names[:2] == ["n_jobs", "backend"]


@pytest.mark.parametrize("name", ["sequential", *LOCAL])
def test_all_arguments_may_be_given_by_position(name: str, tmp_path: Path) -> None:
    parallel = Parallel(2, name, "generator", 0, 60, "all", 3, str(tmp_path), "2M", "c", None, None)
    assert list(parallel(delayed(_tasks.square)(i) for i in range(10))) == [i * i for i in range(10)]


def test_further_keywords_are_options_of_the_backend() -> None:
    assert Parallel(2, "mp", start_method="fork")(delayed(_tasks.square)(i) for i in range(3)) == [0, 1, 4]
    with pytest.raises(TypeError, match="no_such_option"):
        Parallel(2, "mp", no_such_option=1)


@every_kind
def test_a_task_is_the_tuple_of_a_function_its_arguments_and_its_keyword_arguments(make: Make) -> None:
    assert make()([(_tasks.add, (1,), {"right": 2}), (_tasks.add, (3, 4), {})]) == [3, 7]


def test_delayed_makes_the_tuple_of_a_task() -> None:
    assert delayed(_tasks.add)(1, right=2) == (_tasks.add, (1,), {"right": 2})


def test_delayed_keeps_the_name_and_the_docstring_of_a_function() -> None:
    made = delayed(tasks.place)
    assert (made.__name__, made.__doc__) == ("place", "Give the process and the thread.")


# -- n_jobs ------------------------------------------------------------------------------------------------------------


@every_name
def test_n_jobs_is_the_argument_else_the_contexts_else_the_backends_default(name: str) -> None:
    assert Parallel(backend=name).n_jobs == LOCAL[name].default_n_jobs == 1
    with parallel_config(name, n_jobs=3):
        assert Parallel().n_jobs == 3
        assert Parallel(n_jobs=None).n_jobs == 3
        assert Parallel(n_jobs=2).n_jobs == 2
    with parallel_config(name, n_jobs=None):
        assert Parallel().n_jobs == 1


@pytest.mark.parametrize(("n_jobs", "number"), [("2", 2), (2.9, 2), (np.int64(2), 2), (True, 1)])
def test_n_jobs_is_coerced_with_int(n_jobs: Any, number: int) -> None:
    assert Parallel(n_jobs=n_jobs).n_jobs == number


@every_kind
def test_n_jobs_of_zero_is_a_value_error(make: Make) -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        make(n_jobs=0)


@every_kind
def test_n_jobs_that_is_no_number_is_a_value_error(make: Make) -> None:
    with pytest.raises(ValueError, match="n_jobs"):
        make(n_jobs="many")


@every_name
def test_a_negative_n_jobs_leaves_out_that_many_cpus_less_one_but_never_all(name: str) -> None:
    with parallel_config(name):
        assert effective_n_jobs() == effective_n_jobs(-1) == cpu_count()
        assert effective_n_jobs(-2) == max(cpu_count() - 1, 1)
        assert effective_n_jobs(-1000) == 1


@every_kind
def test_one_job_runs_in_the_caller_task_by_task_without_any_worker(make: Make) -> None:
    threads = set(threading.enumerate())
    ran: list[int] = []
    parallel = make(n_jobs=1)
    assert parallel(delayed(tasks.place)() for _ in range(3)) == [tasks.place()] * 3
    parallel(delayed(ran.append)(i) for i in range(5))
    assert ran == [0, 1, 2, 3, 4]
    assert set(threading.enumerate()) <= threads


# -- settings ----------------------------------------------------------------------------------------------------------

#: The settings of joblib's `parallel_config`: a value for the context, and another for the argument.
SETTINGS: dict[str, tuple[Any, Any]] = {
    "n_jobs": (3, 2),
    "verbose": (7, 0),
    "temp_folder": ("/somewhere", "/elsewhere"),
    "max_nbytes": ("5M", None),
    "mmap_mode": ("c", None),
    "prefer": ("threads", None),
    "require": ("sharedmem", None),
}
every_setting = pytest.mark.parametrize("name", SETTINGS)


@every_setting
def test_a_setting_of_the_context_holds_where_no_argument_is_given(name: str) -> None:
    of_context, of_argument = SETTINGS[name]
    with parallel_config(**{name: of_context}):
        assert getattr(Parallel(), name) == of_context
        assert getattr(Parallel(**{name: of_argument}), name) == of_argument


@every_setting
def test_a_setting_ends_with_its_block(name: str) -> None:
    before = getattr(Parallel(), name)
    with parallel_config(**{name: SETTINGS[name][0]}):
        pass
    assert getattr(Parallel(), name) == before


@every_setting
def test_a_setting_of_a_plain_call_holds_until_it_is_unregistered(name: str) -> None:
    before = getattr(Parallel(), name)
    config = parallel_config(**{name: SETTINGS[name][0]})
    try:
        assert getattr(Parallel(), name) == SETTINGS[name][0]
    finally:
        config.unregister()
    assert getattr(Parallel(), name) == before


def test_an_inner_context_inherits_what_it_does_not_set() -> None:
    with parallel_config("threads", n_jobs=3), parallel_config(verbose=7):
        parallel = Parallel()
    assert (type(backend_of(parallel)), parallel.n_jobs, parallel.verbose) == (ThreadsBackend, 3, 7)


@every_name
def test_the_older_spelling_takes_all_cpus_unless_it_is_told_otherwise(name: str) -> None:
    with parallel_backend(name):
        assert Parallel().n_jobs == -1
    with parallel_backend(name, n_jobs=3):
        assert Parallel().n_jobs == 3
        assert type(backend_of(Parallel())) is LOCAL[name]


def test_the_older_spelling_gives_the_backend_and_n_jobs() -> None:
    with parallel_backend("threads", n_jobs=3) as (backend, n_jobs):
        assert (type(backend), n_jobs) == (ThreadsBackend, 3)


def test_the_older_spelling_as_a_plain_call_holds_until_it_is_unregistered() -> None:
    config = parallel_backend("threads")
    try:
        assert type(backend_of(Parallel())) is ThreadsBackend
    finally:
        config.unregister()
    assert Parallel().n_jobs == 1


@pytest.mark.parametrize("config", [parallel_config, parallel_backend])
def test_options_go_to_the_constructor_of_a_backend_that_is_given_by_name(config: Any) -> None:
    with config("loky", n_jobs=2, idle_worker_timeout=77.0):
        assert backend_of(Parallel())._idle_seconds == 77.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", [parallel_config, parallel_backend])
@pytest.mark.parametrize("backend", [None, LokyBackend()], ids=["none", "instance"])
def test_options_without_a_backend_by_name_are_a_value_error(config: Any, backend: Any) -> None:
    with pytest.raises(ValueError, match="need a backend given by name"):
        config(backend, idle_worker_timeout=77.0)


# -- the choice of a backend -------------------------------------------------------------------------------------------


def test_a_preference_chooses_where_nobody_else_does() -> None:
    assert type(backend_of(Parallel(prefer="threads"))) is ThreadsBackend
    assert not backend_of(Parallel(prefer="processes")).uses_threads


@every_name
@pytest.mark.parametrize("preference", ["threads", "processes"])
def test_a_chosen_backend_overrides_a_preference(name: str, preference: str) -> None:
    assert type(backend_of(Parallel(backend=name, prefer=preference))) is LOCAL[name]
    with parallel_config(name):
        assert type(backend_of(Parallel(prefer=preference))) is LOCAL[name]


def test_shared_memory_that_is_required_means_threads() -> None:
    seen: list[int] = []
    Parallel(n_jobs=2, require="sharedmem")(delayed(seen.append)(i) for i in range(10))
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("name", ["loky", "mp"])
def test_shared_memory_replaces_a_backend_of_the_context_that_cannot_have_it(name: str) -> None:
    with parallel_config(name, n_jobs=2):
        assert type(backend_of(Parallel(require="sharedmem"))) is ThreadsBackend
    with parallel_config(name, n_jobs=2), parallel_config(require="sharedmem"):
        assert type(backend_of(Parallel())) is ThreadsBackend


def test_shared_memory_keeps_a_backend_of_the_context_that_has_it() -> None:
    backend = ThreadsBackend()
    with parallel_config(backend):
        assert backend_of(Parallel(require="sharedmem")) is backend


@pytest.mark.parametrize("name", ["loky", "mp"])
def test_shared_memory_contradicts_a_backend_of_the_call_that_cannot_have_it(name: str) -> None:
    with pytest.raises(ValueError, match="sharedmem"):
        Parallel(backend=name, require="sharedmem")


def test_shared_memory_contradicts_a_preference_for_processes() -> None:
    with pytest.raises(ValueError, match="sharedmem"):
        Parallel(prefer="processes", require="sharedmem")


@pytest.mark.parametrize("wrong", [{"prefer": "threading"}, {"require": "shared"}])
def test_an_unknown_preference_or_requirement_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Parallel(**wrong)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*LOCAL.items(), ("threading", ThreadsBackend), ("multiprocessing", MpBackend)],
)
def test_a_backend_may_be_a_name(name: str, kind: type[ParallelBackendBase]) -> None:
    assert type(backend_of(Parallel(backend=name))) is kind
    with parallel_config(name):
        assert type(backend_of(Parallel())) is kind


@every_name
def test_a_backend_may_be_an_instance(name: str) -> None:
    backend = LOCAL[name]()
    parallel = Parallel(n_jobs=2, backend=backend)
    assert backend_of(parallel) is backend
    assert parallel(delayed(_tasks.square)(i) for i in range(5)) == [0, 1, 4, 9, 16]


@every_name
def test_a_backend_may_be_a_class(name: str) -> None:
    assert type(backend_of(Parallel(backend=LOCAL[name]))) is LOCAL[name]


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_backend_may_be_a_multiprocessing_context(method: str) -> None:
    parallel = Parallel(n_jobs=2, backend=multiprocessing.get_context(method))
    assert type(backend_of(parallel)) is MpBackend
    assert os.getpid() not in parallel(delayed(os.getpid)() for _ in range(5))


def test_a_backend_that_nobody_provides_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no such backend"):
        Parallel(backend="no such backend")
    with pytest.raises(ValueError, match="no such backend"):
        parallel_config("no such backend")


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Forget afterwards what a test has registered."""
    registered, default = dict(_registered), list(_default)
    yield
    _registered.clear()
    _registered.update(registered)
    _default[:] = default


@pytest.mark.usefixtures("own_registry")
def test_a_backend_that_was_registered_can_be_had_by_name_and_be_the_default() -> None:
    register_parallel_backend("mine", ThreadsBackend)
    assert type(backend_of(Parallel(backend="mine"))) is ThreadsBackend
    assert type(backend_of(Parallel())) is not ThreadsBackend
    register_parallel_backend("mine", ThreadsBackend, make_default=True)
    assert type(backend_of(Parallel())) is ThreadsBackend


# -- pre_dispatch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pre_dispatch", "number"),
    [(3, 3), ("3", 3), ("n_jobs", 2), ("2*n_jobs", 4), ("1.5 * n_jobs", 3), ("(n_jobs + 5) // 3 ** 1 + 4 % 3", 3)],
)
def test_pre_dispatch_is_a_number_or_arithmetic_in_n_jobs(
    pre_dispatch: Any, number: int, tally: Tally, gate: Gate
) -> None:
    ahead: list[int] = []

    def count(i: int) -> int:
        gate.wait()
        return int(_tasks.count_and_return(tally, i))

    def numbers() -> Iterator[Any]:
        for i in range(30):
            ahead.append(i + 1 - tally.count())
            if i + 1 == number:
                gate.open()
            yield delayed(count)(i)

    assert Parallel(2, "threads", batch_size=1, pre_dispatch=pre_dispatch)(numbers()) == list(range(30))
    assert max(ahead) == number


@every_kind_with_workers
def test_pre_dispatch_of_all_reads_the_input_to_its_end_before_any_task_is_done(make: Make, gate: Gate) -> None:
    is_read = threading.Event()

    def held() -> Iterator[Any]:
        for i in range(50):
            yield delayed(_tasks.wait_for)(gate, i)
        is_read.set()

    results = make(return_as="generator", pre_dispatch="all")(held())
    assert is_read.wait(30)
    gate.open()
    assert list(results) == list(range(50))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir({folder!r})",
        "open({folder!r}, 'w')",
        "n_jobs.__class__",
        "(lambda: 2)()",
        "[2][0]",
        "2 if n_jobs else 3",
        "f'{{n_jobs}}'",
        "n_jobs := 2",
        "n_cpus",
        "9 ** 9 ** 9",
        "1e999",
        "1 << 3",
        "+".join(["n_jobs"] * 30),
        "(" * 500,
        "",
        "n_jobs n_jobs",
    ],
)
def test_a_pre_dispatch_that_is_anything_else_is_a_value_error_and_not_run(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    with pytest.raises(ValueError, match="pre_dispatch must be"):
        Parallel(n_jobs=2, backend="threads", pre_dispatch=text.format(folder=str(folder)))
    assert not folder.exists()
