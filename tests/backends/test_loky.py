from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from parallel import Parallel
from parallel.errors import WorkerLostError
from parallel_testkit import BackendConformance
from tests.backends.workers import kill, process_ids


class TestLoky(BackendConformance):
    backend = "loky"


def workers(folder: Path) -> set[int]:
    return process_ids(Parallel(n_jobs=2, backend="loky", return_as="generator", batch_size=1), folder)


def test_workers_stay_warm_between_calls(tmp_path: Path) -> None:
    first = workers(tmp_path)
    assert len(first) == 2
    assert os.getpid() not in first
    assert workers(tmp_path) == first


def test_workers_stay_warm_whichever_thread_calls(tmp_path: Path) -> None:
    found = [workers(tmp_path)]
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(workers(tmp_path)))
        thread.start()
        thread.join()
    assert found[1:] == [found[0], found[0]]


def test_a_worker_killed_between_two_calls(tmp_path: Path) -> None:
    kill(min(workers(tmp_path)))
    assert Parallel(n_jobs=2, backend="loky").map(abs, range(100)) == list(range(100))


def test_a_worker_killed_between_two_calls_of_a_block(tmp_path: Path) -> None:
    with Parallel(n_jobs=2, backend="loky", return_as="generator", batch_size=1) as parallel:
        kill(min(process_ids(parallel, tmp_path)))
        assert list(parallel.map(abs, range(100))) == list(range(100))


def nest_and_tell(_: int) -> int:
    Parallel(n_jobs=2, backend="loky").map(abs, range(3))
    return os.getpid()


def nest_and_fail(_: int) -> None:
    Parallel(n_jobs=2, backend="loky").map(abs, range(3))
    raise LookupError(os.getpid())


def nest_and_end(_: int) -> None:
    Parallel(n_jobs=2, backend="loky").map(abs, range(3))
    os._exit(3)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /dev/shm")
@pytest.mark.parametrize(("end", "error"), [(nest_and_fail, LookupError), (nest_and_end, WorkerLostError)])
def test_killed_workers_leave_no_semaphores_of_nested_calls(
    end: Callable[[int], None], error: type[Exception], tmp_path: Path
) -> None:
    with Parallel(n_jobs=2, backend="loky", return_as="generator", batch_size=1) as parallel:
        pids = process_ids(parallel, tmp_path)
        assert set(parallel.map(nest_and_tell, range(4))) <= pids
        with pytest.raises(error):
            list(parallel.map(end, range(8)))
        assert list(parallel.map(abs, range(3))) == [0, 1, 2]  # what broke was replaced
    assert [name for name in os.listdir("/dev/shm") if any(f"loky-{pid}-" in name for pid in pids)] == []


def test_large_arguments_and_results() -> None:
    values = [bytes([i]) * 50_000_000 for i in range(3)]
    assert Parallel(n_jobs=2, backend="loky", batch_size=1).map(bytes, values) == values


def test_unknown_options_of_an_instance_are_refused() -> None:
    from parallel_backend_loky import LokyBackend

    with pytest.raises(TypeError, match="no_such_option"):
        Parallel(n_jobs=2, backend=LokyBackend(), no_such_option=1).map(abs, range(3))
