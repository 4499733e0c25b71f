"""What `explain` says, in the situations that users wonder about."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import parallel
from parallel import Parallel, delayed, parallel_config, register_parallel_backend
from parallel._explanation import Explanation
from parallel.backend import ParallelBackendBase
from parallel_testkit import run_bounded


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host of 8 CPUs that limits nothing, and an environment that says nothing."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr("parallel._cpu._affinity", lambda: 8)
    monkeypatch.setattr("parallel._cpu._cgroup_quota", lambda: float("inf"))
    for name in [*os.environ]:
        if name.startswith(("PARALLEL_", "LOKY_MAX")) or name.endswith("_NUM_THREADS"):
            monkeypatch.delenv(name)


def said(explanation: Explanation, name: str) -> tuple[Any, str]:
    return explanation[name], explanation.reasons[name]


def test_nothing_said() -> None:
    found = parallel.explain()
    assert said(found, "backend") == ("loky", "default: the best that is installed")
    assert said(found, "n_jobs") == (1, "default of the backend 'loky'")
    assert said(found, "runs_in") == ("caller", "one worker is left out: the caller does the work itself")
    assert said(found, "inner_threads") == (None, "not limited in the caller")
    assert said(found, "sharing") == (None, "tasks have the caller's own objects")


def test_an_argument() -> None:
    found = parallel.explain(n_jobs=2, backend="mp", start_method="spawn", timeout=5, batch_size=3, retries=2)
    assert said(found, "backend") == ("mp", "argument")
    assert said(found, "n_jobs") == (2, "argument n_jobs=2")
    assert said(found, "start_method") == ("spawn", "argument")
    assert said(found, "inner_threads") == (4, "each worker's share: 8 CPUs for 2 workers")
    assert said(found, "timeout") == (5.0, "argument")
    assert said(found, "batch_size") == (3, "argument")
    assert said(found, "retries") == (2, "argument")
    assert said(found, "pre_dispatch") == ("2 * n_jobs", "default: 4 batches")
    assert found["sharing"] == "arguments and results from 1M"


def test_all_cpus_and_what_limits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [parallel.explain(n_jobs=-1).reasons["n_jobs"]]
    monkeypatch.setattr("parallel._cpu._affinity", lambda: 6)
    reasons.append(parallel.explain(n_jobs=-2).reasons["n_jobs"])
    monkeypatch.setattr("parallel._cpu._cgroup_quota", lambda: 1.5)
    reasons.append(parallel.explain(n_jobs=-1).reasons["n_jobs"])
    monkeypatch.setenv("PARALLEL_MAX_CPUS", "1")
    reasons.append(parallel.explain(n_jobs=-1).reasons["n_jobs"])
    assert reasons == [
        "argument n_jobs=-1: 8 CPUs, as many as the host has",
        "argument n_jobs=-2: 6 CPUs, limited by the affinity of the process",
        "argument n_jobs=-1: 2 CPUs, limited by the cgroup's quota of 1.5 CPUs",
        "argument n_jobs=-1: 1 CPU, limited by PARALLEL_MAX_CPUS",
    ]


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_BACKEND", "mp")
    monkeypatch.setenv("PARALLEL_N_JOBS", "3")
    monkeypatch.setenv("PARALLEL_START_METHOD", "forkserver")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = parallel.explain()
    assert said(found, "backend") == ("mp", "environment variable PARALLEL_BACKEND")
    assert said(found, "n_jobs") == (3, "environment variable PARALLEL_N_JOBS=3")
    assert said(found, "start_method") == ("forkserver", "environment variable PARALLEL_START_METHOD")
    assert said(found, "inner_threads") == (5, "environment variable OMP_NUM_THREADS")


def test_a_block() -> None:
    with parallel_config("threads", n_jobs=4, inner_max_num_threads=3, return_as="generator", max_nbytes=None):
        found = parallel.explain()
    assert said(found, "backend") == ("threads", "parallel_config")
    assert said(found, "n_jobs") == (4, "parallel_config n_jobs=4")
    assert said(found, "runs_in") == ("threads", "workers are threads of this process")
    assert said(found, "inner_threads") == (3, "inner_max_num_threads")
    assert said(found, "return_as") == ("generator", "parallel_config")
    assert said(found, "sharing") == (None, "tasks have the caller's own objects")


def test_more_workers_than_cpus() -> None:
    found = parallel.explain(n_jobs=32, backend="loky")
    assert said(found, "n_jobs") == (32, "argument n_jobs=32, which is more than the 8 CPUs that there are for it")
    assert said(found, "inner_threads") == (
        1,
        "each worker's share: 8 CPUs for 32 workers (oversubscribed, because n_jobs says so)",
    )


def test_an_executor() -> None:
    with ThreadPoolExecutor(3) as executor:
        found = parallel.explain(n_jobs=8, backend="futures", executor=executor)
    assert said(found, "executor") == ("ThreadPoolExecutor", "argument executor")
    assert said(found, "n_jobs") == (3, "argument n_jobs=8; the executor has 3 workers")


def test_a_hint_and_a_requirement() -> None:
    assert said(parallel.explain(n_jobs=2, prefer="threads"), "backend") == ("threads", "prefer='threads'")
    with parallel_config("loky", n_jobs=2):
        assert said(parallel.explain(require="sharedmem"), "backend") == ("threads", "require='sharedmem'")


def test_nothing_is_shared_because_that_was_said() -> None:
    found = parallel.explain(n_jobs=2, backend="mp", max_nbytes=None)
    assert said(found, "sharing") == (None, "max_nbytes=None (argument)")
    assert parallel.explain(n_jobs=2, backend="mp", mmap_mode=None)["sharing"] == "results from 1M"


def explain_in_task(settings: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    found = parallel.explain(**settings)
    return {name: said(found, name) for name in found}


def test_inside_a_task() -> None:
    ((nothing, all_cpus, two),) = Parallel(2, "threads")(
        [delayed(lambda: [explain_in_task(settings) for settings in ({}, {"n_jobs": -1}, {"n_jobs": 6})])()]
    )
    assert nothing["backend"] == ("threads", "in force inside tasks, nested at level 1")
    assert nothing["nesting_level"] == (1, "inside a task")
    assert nothing["n_jobs"][0] == 1
    assert nothing["inner_threads"] == (4, "as in the task around")
    assert all_cpus["n_jobs"] == (4, "argument n_jobs=-1: this task's share is 4 CPUs")
    assert two["n_jobs"] == (6, "argument n_jobs=6, which is more than the 4 CPUs that there are for it")


def test_a_task_that_needs_its_own_workers() -> None:
    outer = Parallel(2, "threads")
    assert outer([delayed(lambda: said(outer.explain(), "runs_in"))()]) == [
        ("caller", "its workers are those that this task runs on, and waiting for them could take for ever")
    ]


def daemonic_explanation(connection: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = parallel.explain(n_jobs=4, backend="mp")
    connection.send((said(found, "n_jobs"), found["runs_in"]))


def test_a_daemonic_process() -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=daemonic_explanation, args=(theirs,), daemon=True)
    process.start()
    found = run_bounded(ours.recv)
    process.join()
    reason = "argument n_jobs=4; this is a daemonic process, which may not have children"
    assert found == ((1, reason), "caller")


class ElsewhereBackend(ParallelBackendBase):
    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return 7

    def explain(self, n_jobs: int) -> dict[str, tuple[Any, str]]:
        return {"cluster": ("sun", "the only one")}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel._plugins._registered", {})
    register_parallel_backend("elsewhere", ElsewhereBackend)


@pytest.mark.usefixtures("elsewhere")
def test_a_backend_of_somebody_else() -> None:
    found = parallel.explain(n_jobs=3, backend="elsewhere")
    assert said(found, "n_jobs") == (7, "argument n_jobs=3; the backend 'elsewhere' has 7")
    assert said(found, "runs_in") == ("workers", "the backend does not say where its workers are")
    assert said(found, "cluster") == ("sun", "the only one")
    assert said(found, "sharing") == (None, "workers may be on another host")


def test_as_text_it_is_a_table() -> None:
    lines = str(parallel.explain(n_jobs=2)).splitlines()
    assert len({line.index(reason) for line, reason in zip(lines[:2], ("default", "argument"), strict=True)}) == 1
    assert lines[0].split()[:2] == ["backend", "loky"]
    assert repr(parallel.explain()).startswith("<Explanation\nbackend")


def test_what_is_wrong_is_an_error_as_for_a_call() -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        parallel.explain(n_jobs=0)
