from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from parallel import Parallel, delayed
from parallel.errors import BackendError, WorkerLostError
from parallel_backend_mp import MpBackend
from parallel_backend_mp._importing import wait_for_imports
from parallel_backend_mp._process import Worker
from parallel_testkit import BackendConformance, Gate, Mailbox, run_bounded
from tests.backends.workers import GO_ON, IMPORTING, kill, process_ids, report_process, wait_until_gone

METHODS = multiprocessing.get_all_start_methods()

every_method = pytest.mark.parametrize("method", METHODS)
warm_method = pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])


class TestFork(BackendConformance):
    backend = "mp"
    options: ClassVar = {"start_method": "fork"}


class TestSpawn(BackendConformance):
    backend = "mp"
    options: ClassVar = {"start_method": "spawn"}


class TestForkserver(BackendConformance):
    backend = "mp"
    options: ClassVar = {"start_method": "forkserver"}


def parallel_with(method: str) -> Parallel:
    return Parallel(n_jobs=2, backend="mp", start_method=method, return_as="generator", batch_size=1)


# -- how long workers live ---------------------------------------------------------------------------------------------


def test_forked_workers_end_with_the_call(tmp_path: Path) -> None:
    found = process_ids(parallel_with("fork"), tmp_path)
    assert len(found) == 2
    assert os.getpid() not in found
    for process in found:
        wait_until_gone(process)


def test_forked_workers_end_with_the_block(tmp_path: Path) -> None:
    with parallel_with("fork") as parallel:
        found = process_ids(parallel, tmp_path)
        assert process_ids(parallel, tmp_path) == found
    for process in found:
        wait_until_gone(process)


_setting = "old"


def read_setting() -> str:
    return _setting


def test_forked_workers_see_the_caller_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = Parallel(n_jobs=2, backend="mp", start_method="fork")
    monkeypatch.setattr(f"{__name__}._setting", "new")
    assert parallel(delayed(read_setting)() for _ in range(2)) == ["new", "new"]
    monkeypatch.setattr(f"{__name__}._setting", "newest")
    assert parallel(delayed(read_setting)() for _ in range(2)) == ["newest", "newest"]


@warm_method
def test_other_workers_stay_warm(method: str, tmp_path: Path) -> None:
    found = process_ids(parallel_with(method), tmp_path)
    assert len(found) == 2
    assert process_ids(parallel_with(method), tmp_path) == found


@every_method
@pytest.mark.parametrize(("step", "count"), [("kill", 1), ("kill", 2), ("close", 1), ("close", 2)])
def test_a_second_interrupt_while_workers_are_ended_leaves_none(
    method: str, step: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers that are in endless tasks do not end by themselves.
    monkeypatch.setattr("parallel_backend_mp._pool.EXIT_SECONDS", 0.05)
    processes: list[int] = []
    parallel = Parallel(n_jobs=2, backend="mp", start_method=method, batch_size=1)

    with Mailbox(tmp_path / "ids") as mailbox, Gate(tmp_path / "gate") as gate:

        def tasks() -> Iterator[Any]:
            for _ in range(2):
                yield delayed(report_process)(mailbox, gate)
            processes.extend(int(text) for text in mailbox.receive(2))
            _interrupt_once(monkeypatch, step, count)
            raise KeyboardInterrupt("the first")

        with pytest.raises(KeyboardInterrupt, match="the second"):
            parallel(tasks())
        for process in processes:
            wait_until_gone(process)
    assert parallel.map(abs, range(100)) == list(range(100))


@every_method
@pytest.mark.parametrize(("step", "count"), [("kill", 1), ("close", 2)])
def test_a_block_goes_on_after_a_second_interrupt(
    method: str, step: str, count: int, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tasks() -> Iterator[Any]:
        for _ in range(2):
            yield delayed(gate.wait)()
        _interrupt_once(monkeypatch, step, count)
        raise KeyboardInterrupt("the first")

    with Parallel(n_jobs=2, backend="mp", start_method=method, batch_size=1) as parallel:
        with pytest.raises(KeyboardInterrupt, match="the second"):
            parallel(tasks())
        assert parallel.map(abs, range(100)) == list(range(100))


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as made:
        yield made


def _interrupt_once(monkeypatch: pytest.MonkeyPatch, method: str, count: int) -> None:
    """Let one call of a method of `Worker` raise in place of what it does."""
    original = getattr(Worker, method)
    calls: list[Worker] = []

    def step(worker: Worker) -> None:
        calls.append(worker)
        if len(calls) == count:
            raise KeyboardInterrupt("the second")
        original(worker)

    monkeypatch.setattr(Worker, method, step)


# -- losing workers between calls --------------------------------------------------------------------------------------


@warm_method
def test_a_worker_killed_between_two_calls(method: str, tmp_path: Path) -> None:
    kill(min(process_ids(parallel_with(method), tmp_path)))
    assert list(parallel_with(method).map(abs, range(100))) == list(range(100))


@every_method
def test_a_worker_killed_between_two_calls_of_a_block(method: str, tmp_path: Path) -> None:
    with parallel_with(method) as parallel:
        kill(min(process_ids(parallel, tmp_path)))
        assert list(parallel.map(abs, range(100))) == list(range(100))


@every_method
def test_a_defect_in_the_thread_that_reads_is_an_error_and_no_hang(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = Parallel(n_jobs=2, backend="mp", start_method=method, return_exceptions=True)
    with monkeypatch.context() as patch:
        patch.setattr("parallel_backend_mp._frames.FrameReader.read", _fail_to_read)
        with pytest.raises(BackendError, match=r"no such thing.*defect of parallel-backend-mp") as caught:
            parallel.map(abs, range(100))
        assert isinstance(caught.value.__cause__, LookupError)
    assert parallel.map(abs, range(100)) == list(range(100))


def close_everything() -> None:
    os.closerange(3, 256)


def wait_for_ever_the_first_time(mark: str) -> str:
    try:
        open(mark, "x").close()
    except FileExistsError:
        return "the second time"
    while True:
        signal.pause()


@every_method
def test_a_task_is_not_blamed_for_descriptors_that_another_one_of_its_batch_has_closed(
    method: str, tmp_path: Path
) -> None:
    parallel = Parallel(n_jobs=2, backend="mp", start_method=method, return_exceptions=True, batch_size=2)
    mark = str(tmp_path / "mark")
    lost, waited = parallel([delayed(close_everything)(), delayed(wait_for_ever_the_first_time)(mark)])
    assert isinstance(lost, WorkerLostError)
    assert "task 0" in str(lost)
    assert waited == "the second time"


def _fail_to_read(reader: object) -> None:
    raise LookupError("no such thing")


# -- data --------------------------------------------------------------------------------------------------------------


@every_method
def test_large_arguments_and_results(method: str) -> None:
    values = [bytes([i]) * 50_000_000 for i in range(3)]
    parallel = Parallel(n_jobs=2, backend="mp", start_method=method, batch_size=1)
    assert parallel.map(bytes, values) == values


@every_method
def test_many_results_that_fill_the_pipes(method: str) -> None:
    with Parallel(n_jobs=2, backend="mp", start_method=method, batch_size=1, pre_dispatch="all") as parallel:
        assert parallel.map(bytes, [300_000] * 200) == [bytes(300_000)] * 200


# -- choosing how to start ---------------------------------------------------------------------------------------------


def test_start_methods_side_by_side() -> None:
    forking = Parallel(n_jobs=2, backend="mp", start_method="fork")
    with Parallel(n_jobs=2, backend="mp", start_method="spawn") as spawned, forking as forked:
        assert spawned.map(abs, range(10)) == forked.map(abs, range(10)) == list(range(10))
        assert spawned.map(abs, range(10)) == list(range(10))


@every_method
def test_a_context_as_the_backend(method: str) -> None:
    context = multiprocessing.get_context(method)
    assert Parallel(n_jobs=2, backend=context).map(abs, range(10)) == list(range(10))


@every_method
def test_the_start_method_of_the_environment(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_START_METHOD", method)
    assert MpBackend()._method == method
    assert MpBackend(start_method="spawn")._method == "spawn"
    assert Parallel(n_jobs=2, backend="mp").map(abs, range(10)) == list(range(10))


def test_a_start_method_in_the_environment_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_START_METHOD", "fall-over")
    with pytest.raises(ValueError, match=r"PARALLEL_START_METHOD must be one of .*fork"):
        Parallel(n_jobs=2, backend="mp")


def test_the_module_as_the_backend() -> None:
    assert Parallel(n_jobs=2, backend=multiprocessing).map(abs, range(10)) == list(range(10))


def test_the_other_name() -> None:
    assert Parallel(n_jobs=2, backend="multiprocessing").map(abs, range(10)) == list(range(10))


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        MpBackend(context=multiprocessing.get_context("fork"), start_method="fork")
    with pytest.raises(ValueError, match="fall-over"):
        MpBackend(start_method="fall-over")


def test_unknown_options_of_an_instance_are_refused() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        Parallel(n_jobs=2, backend=MpBackend(), no_such_option=1).map(abs, range(3))


# -- imports at the time of a fork -------------------------------------------------------------------------------------

SLOW_MODULE = """
import threading
from tests.backends.workers import GO_ON, IMPORTING

if threading.current_thread().name == "importer":
    IMPORTING.set()
    GO_ON.wait()
VALUE = 3
"""


@pytest.fixture
def importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """A thread that is in the middle of an import."""
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    IMPORTING.clear()
    GO_ON.clear()
    thread = threading.Thread(target=lambda: importlib.import_module("slow_module"), name="importer")
    thread.start()
    IMPORTING.wait()
    yield thread
    GO_ON.set()
    thread.join()
    sys.modules.pop("slow_module", None)


def import_it(_: int) -> int:
    return int(importlib.import_module("slow_module").VALUE)


@pytest.mark.usefixtures("importer")
@pytest.mark.skipif("fork" not in METHODS, reason="forks")
def test_a_forked_worker_does_not_wait_for_a_thread_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_backend_mp._process.wait_for_imports", lambda: None)  # it has begun just then
    parallel = Parallel(n_jobs=2, backend="mp", start_method="fork")
    assert run_bounded(parallel.map, import_it, range(4)) == [3, 3, 3, 3]


def test_a_fork_waits_for_imports(importer: threading.Thread) -> None:
    waiting = threading.Thread(target=wait_for_imports)
    waiting.start()
    GO_ON.set()
    waiting.join()
    assert sys.modules["slow_module"].VALUE == 3


def test_an_import_does_not_wait_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from parallel import Parallel\nVALUE = Parallel(2, 'mp', start_method='fork').map(abs, [-1, -2])\n"
    (tmp_path / "module_that_calls.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert run_bounded(importlib.import_module, "module_that_calls").VALUE == [1, 2]


@pytest.mark.parametrize("context", ["spawn", 3])
def test_what_is_no_context_is_refused(context: Any) -> None:
    with pytest.raises(ValueError, match="context must be a multiprocessing context"):
        Parallel(n_jobs=2, backend="mp", context=context)
