"""The limits of libraries' threads, on libraries that are none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from parallel import Parallel, _inner_threads
from parallel._inner_threads import CallThreads, Caps, caps_of, limit_worker
from tests.core.fakes import HereBackend


class Library:
    """What threadpoolctl has for a library: one limit of the process, or for OpenMP one of each thread."""

    def __init__(self, api: str, threads: int) -> None:
        self.internal_api = api
        self.user_api = "openmp" if api == "openmp" else "blas"
        self.filepath = f"/lib/{api}.so"
        self._at_first = threads
        self._of_all = threads
        self._of_thread = threading.local()

    def get_num_threads(self) -> int:
        if self.user_api == "openmp":
            return int(getattr(self._of_thread, "threads", self._at_first))
        return self._of_all

    def set_num_threads(self, threads: int) -> None:
        if self.user_api == "openmp":
            self._of_thread.threads = threads
        self._of_all = threads


class Loaded:
    """What is loaded, as threadpoolctl finds it."""

    def __init__(self) -> None:
        self.libraries: list[Library] = []
        self.looks = 0

    def add(self, library: Library) -> Library:
        self.libraries.append(library)
        name = f"module_of_{library.internal_api}_{len(self.libraries)}"
        sys.modules[name] = ModuleType(name)
        return library

    @property
    def lib_controllers(self) -> list[Library]:
        return list(self.libraries)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    import threadpoolctl

    loaded = Loaded()

    def look() -> Loaded:
        loaded.looks += 1
        return loaded

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", look)
    monkeypatch.setattr(_inner_threads, "_process", _inner_threads._Process())
    monkeypatch.setattr(_inner_threads, "_thread", threading.local())
    monkeypatch.setattr(_inner_threads, "_may_have_libraries", lambda: True)
    yield loaded
    for name in [name for name in sys.modules if name.startswith("module_of_")]:
        del sys.modules[name]


def at_most(threads: int, *, is_exact: bool = False) -> Caps:
    return Caps({"openmp": threads, "openblas": threads}, is_exact)


# -- a worker process --------------------------------------------------------------------------------------------------


def test_a_worker_has_its_share_for_as_long_as_it_lives(loaded: Loaded) -> None:
    blas, openmp = loaded.add(Library("openblas", 8)), loaded.add(Library("openmp", 8))
    limit_worker(at_most(2))
    assert (blas.get_num_threads(), openmp.get_num_threads()) == (2, 2)
    limit_worker(at_most(3))
    assert blas.get_num_threads() == 3


def test_a_worker_of_somebody_else_is_left_as_it_was(loaded: Loaded) -> None:
    blas, openmp = loaded.add(Library("openblas", 8)), loaded.add(Library("openmp", 8))
    undo = limit_worker(at_most(2))
    undo()
    assert (blas.get_num_threads(), openmp.get_num_threads()) == (8, 8)


def test_nobody_gets_more_than_the_library_has_unless_that_is_said(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 2))
    limit_worker(at_most(4))
    assert blas.get_num_threads() == 2
    limit_worker(at_most(4, is_exact=True))
    assert blas.get_num_threads() == 4


def test_libraries_are_looked_for_again_only_when_something_was_imported(loaded: Loaded) -> None:
    loaded.add(Library("openblas", 8))
    caps = at_most(2)
    for _ in range(5):
        limit_worker(caps)
    assert loaded.looks == 1
    late = loaded.add(Library("mkl", 8))
    limit_worker(caps)
    assert (loaded.looks, late.get_num_threads()) == (2, 2)


def test_where_nothing_can_be_found_nothing_is_limited(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError("/proc/self/maps")

    loaded.add(Library("openblas", 8))
    monkeypatch.setattr("threadpoolctl.ThreadpoolController", fail)
    limit_worker(at_most(2))()


# -- calls in threads --------------------------------------------------------------------------------------------------


def test_the_lowest_limit_of_calls_that_overlap_counts_and_the_last_one_restores(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 8))
    first, second = CallThreads(at_most(4)), CallThreads(at_most(2))
    first.begin_batch()
    assert blas.get_num_threads() == 4
    second.begin_batch()
    assert blas.get_num_threads() == 2
    first.close()
    assert blas.get_num_threads() == 2
    second.close()
    assert blas.get_num_threads() == 8


def test_the_limit_rises_when_the_lowest_one_ends_first(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 8))
    first, second = CallThreads(at_most(4)), CallThreads(at_most(2))
    first.begin_batch()
    second.begin_batch()
    second.close()
    assert blas.get_num_threads() == 4
    first.close()
    assert blas.get_num_threads() == 8


def test_openmp_is_limited_in_the_thread_of_the_batch_only(loaded: Loaded) -> None:
    openmp = loaded.add(Library("openmp", 8))
    call = CallThreads(at_most(2))

    def batch() -> tuple[int, int]:
        before = call.begin_batch()
        inside = openmp.get_num_threads()
        call.end_batch(before)
        return inside, openmp.get_num_threads()

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(batch).result() == (2, 8)
        assert executor.submit(batch).result() == (2, 8)
    assert openmp.get_num_threads() == 8
    call.close()


def test_what_is_loaded_meanwhile_is_limited_from_the_next_batch_on(loaded: Loaded) -> None:
    call = CallThreads(at_most(2))
    call.begin_batch()
    blas = loaded.add(Library("openblas", 8))
    assert blas.get_num_threads() == 8
    call.begin_batch()
    assert blas.get_num_threads() == 2
    call.close()
    assert blas.get_num_threads() == 8


def test_a_batch_that_begins_after_the_end_of_its_call_limits_nothing(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 8))
    call = CallThreads(at_most(2))
    call.begin_batch()
    call.close()
    call.begin_batch()
    assert blas.get_num_threads() == 8


def test_what_somebody_else_has_set_since_is_restored(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 8))
    for own in (1, 8, 3):
        blas.set_num_threads(own)
        call = CallThreads(at_most(4))
        call.begin_batch()
        assert blas.get_num_threads() == min(own, 4)
        call.close()
        assert blas.get_num_threads() == own


def test_a_forked_child_has_limits_of_its_own(loaded: Loaded) -> None:
    blas = loaded.add(Library("openblas", 8))
    CallThreads(at_most(1)).begin_batch()
    _inner_threads._process.forget()
    limit_worker(at_most(4))
    assert blas.get_num_threads() == 4


def test_a_call_limits_while_it_runs_and_restores_at_its_end(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_MAX_CPUS", "8")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("parallel._cpu._affinity", lambda: 8)
    monkeypatch.setattr("parallel._cpu._cgroup_quota", lambda: 8)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    blas = loaded.add(Library("openblas", 8))

    def look(_: Any) -> int:
        return blas.get_num_threads()

    assert set(Parallel(2, HereBackend).map(look, range(6))) == {4}
    assert blas.get_num_threads() == 8
    assert set(Parallel(2, HereBackend, inner_max_num_threads=3).map(look, range(6))) == {3}
    with pytest.raises(ZeroDivisionError):
        Parallel(2, HereBackend).map(lambda _: 1 / 0, range(6))
    assert blas.get_num_threads() == 8
    assert Parallel(1).map(look, range(2)) == [8, 8]


# -- what variables say ------------------------------------------------------------------------------------------------


def test_variables_are_numbers_the_first_of_a_list_or_nothing() -> None:
    caps = caps_of({"OMP_NUM_THREADS": "3,2", "OPENBLAS_NUM_THREADS": "4", "MKL_NUM_THREADS": "many"}, is_exact=False)
    assert caps == Caps({"openmp": 3, "openblas": 4}, False)
    assert caps_of({}, is_exact=True) == Caps({}, True)
    assert caps_of({"OMP_NUM_THREADS": "0"}, is_exact=True).of(Library("openblas", 8), 8) == 8


def test_a_library_that_has_no_variable_has_that_of_openmp() -> None:
    assert caps_of({"OMP_NUM_THREADS": "3"}, is_exact=False).of(Library("flexiblas", 8), 8) == 3
