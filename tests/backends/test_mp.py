from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import ClassVar

import pytest

from parallel import Parallel, delayed
from parallel.errors import BackendError
from parallel_backend_mp import MpBackend
from parallel_testkit import BackendConformance
from tests.backends.workers import kill, process_ids, wait_until_gone

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
