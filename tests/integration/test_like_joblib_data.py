"""What programs written for joblib rely on, third part: large arrays, and the threads of libraries in workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel import Parallel, ParallelBackendBase, cpu_count, delayed, parallel_backend, parallel_config
from parallel_testkit import Gate, LeakCheck, Mailbox, _tasks
from tests.integration import joblib_tasks as tasks
from tests.integration.local_backends import every_kind_of_processes, every_kind_that_starts_processes
from tests.integration.sharing_tasks import count_up, is_writable

Make = Callable[..., Parallel]

on_linux = pytest.mark.skipif(not LeakCheck.is_available, reason="elsewhere arrays are shared through files")

LARGE = 300_000  # items of 8 bytes: above the default of 1M
SMALL = 100_000


def is_first_writable(container: Any) -> bool:
    """Look at an array deep in a container."""
    return is_writable(container["a"][0])


# -- large arrays ------------------------------------------------------------------------------------------------------


@every_kind_of_processes
def test_a_large_array_is_read_only_in_tasks(make: Make) -> None:
    assert make()(delayed(is_writable)(np.ones(LARGE)) for _ in range(3)) == [False] * 3


@every_kind_of_processes
def test_a_large_array_in_a_container_is_read_only_in_tasks(make: Make) -> None:
    assert make()(delayed(is_first_writable)({"a": (np.ones(LARGE), 1)}) for _ in range(3)) == [False] * 3


@every_kind_of_processes
def test_a_large_array_as_a_keyword_argument_is_read_only_in_tasks(make: Make) -> None:
    assert make()(delayed(is_writable)(array=np.ones(LARGE)) for _ in range(3)) == [False] * 3


@every_kind_of_processes
def test_a_small_array_is_a_copy_of_the_tasks_own(make: Make) -> None:
    assert make()(delayed(is_writable)(np.ones(SMALL)) for _ in range(3)) == [True] * 3


@every_kind_of_processes
@pytest.mark.parametrize(("max_nbytes", "is_shared"), [(100_000, True), ("64K", True), ("1G", False), (10**9, False)])
def test_max_nbytes_says_what_is_large(make: Make, max_nbytes: Any, is_shared: bool) -> None:
    parallel = make(max_nbytes=max_nbytes)
    assert parallel([delayed(is_writable)(np.ones(SMALL))]) == [not is_shared]


@every_kind_of_processes
def test_max_nbytes_of_none_turns_the_sharing_off(make: Make) -> None:
    assert make(max_nbytes=None)(delayed(is_writable)(np.ones(LARGE)) for _ in range(3)) == [True] * 3


@every_kind_of_processes
def test_an_array_of_objects_is_never_shared(make: Make) -> None:
    array = np.array([None] * LARGE, dtype=object)
    assert make()([delayed(is_writable)(array)]) == [True]


@on_linux
@every_kind_of_processes
@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_there_is_one_copy_however_many_tasks_use_it(make: Make, mode: str, mailbox: Mailbox, gate: Gate) -> None:
    array = np.zeros(LARGE)
    results = make(mmap_mode=mode, batch_size=1, return_as="generator")(
        delayed(tasks.put_and_see)(mailbox, gate, array, position) for position in range(2)
    )
    mailbox.receive(2)  # each has written, in a process of its own
    gate.open()
    assert list(results) == [[1.0, 2.0], [1.0, 2.0]]


@every_kind_of_processes
@pytest.mark.parametrize(("mode", "writable"), [("r", False), ("r+", True), ("w+", True), ("c", True), (None, True)])
def test_the_mode_says_whether_a_task_may_write_to_a_large_array(make: Make, mode: Any, writable: bool) -> None:
    assert make(mmap_mode=mode)([delayed(is_writable)(np.ones(LARGE))]) == [writable]


@every_kind_of_processes
@pytest.mark.parametrize("mode", ["c", None])
def test_what_is_written_to_a_copy_is_for_the_task_alone(make: Make, mode: Any) -> None:
    array = np.zeros(LARGE)
    assert make(mmap_mode=mode, batch_size=1, pre_dispatch=1)(delayed(count_up)(array) for _ in range(3)) == [1.0] * 3


@every_kind_of_processes
@pytest.mark.parametrize("mode", ["r+", "w+", "c", None])
def test_the_array_of_the_caller_is_not_written_to(make: Make, mode: Any) -> None:
    array = np.zeros(LARGE)
    make(mmap_mode=mode)([delayed(count_up)(array)])
    assert array[0] == 0.0


@every_kind_of_processes
def test_what_is_written_to_a_memmap_is_in_its_file(make: Make, tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=10)
    assert make(batch_size=1, pre_dispatch=1)(delayed(count_up)(array) for _ in range(3)) == [1.0, 2.0, 3.0]
    assert array[0] == 3.0


@every_kind_of_processes
def test_a_memmap_travels_as_the_name_of_its_file(make: Make, tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=LARGE)
    assert make()([delayed(tasks.file_of)(array)]) == [str(tmp_path / "file")]


@every_kind_of_processes
@pytest.mark.parametrize("nothing_is_shared", [{"max_nbytes": None}, {"mmap_mode": None}], ids=str)
def test_a_memmap_travels_as_the_name_of_its_file_also_where_nothing_is_shared(
    make: Make, nothing_is_shared: dict[str, None], tmp_path: Path
) -> None:
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=LARGE)
    assert make(**nothing_is_shared)([delayed(count_up)(array)]) == [1.0]
    assert array[0] == 1.0


@pytest.mark.parametrize("kind", ["sequential", "threads", "futures-threads"])
def test_in_threads_an_array_is_the_callers_own(make: Make) -> None:
    array = np.zeros(LARGE)
    make()([delayed(count_up)(array)] * 3)
    assert array[0] == 3.0


# -- the threads of BLAS and OpenMP ------------------------------------------------------------------------------------

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, ParallelBackendBase.TBB_ENABLE_IPC_VAR):
        monkeypatch.delenv(name, raising=False)


def in_workers(parallel: Parallel, *names: str) -> list[str | None]:
    return list(parallel(delayed(_tasks.environment)(name) for name in names))


@every_kind_that_starts_processes
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_libraries_in_workers_get_a_fair_share_of_the_cpus(make: Make, n_jobs: int) -> None:
    share = str(max(cpu_count() // n_jobs, 1))
    assert in_workers(make(n_jobs=n_jobs), *VARIABLES) == [share] * len(VARIABLES)


@every_kind_that_starts_processes
@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_callers_environment_says_wins_over_the_fair_share(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "7")
    assert in_workers(make(), name) == ["7"]


@every_kind_that_starts_processes
@pytest.mark.parametrize("config", [parallel_config, parallel_backend])
def test_inner_max_num_threads_wins_over_the_callers_environment(
    kind: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with config(kind, n_jobs=2, inner_max_num_threads=3):
        assert in_workers(Parallel(), *VARIABLES) == ["3"] * len(VARIABLES)


@every_kind_that_starts_processes
def test_the_schedulers_of_tbb_are_told_to_coordinate(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_workers(make(), "ENABLE_IPC") == ["1"]
    monkeypatch.setenv("ENABLE_IPC", "0")
    assert in_workers(make(), "ENABLE_IPC") == ["0"]


@every_kind_that_starts_processes
def test_the_environment_of_the_caller_is_left_alone(make: Make) -> None:
    before = dict(os.environ)
    in_workers(make(), *VARIABLES)
    assert dict(os.environ) == before
