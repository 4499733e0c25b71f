"""Calls on backends that misbehave: every result right and exactly once, or the error that the fault calls for."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel import Parallel, ParallelBackendBase, delayed
from parallel.backend import resolve_n_jobs
from parallel.errors import (
    BackendContractError,
    BackendError,
    CallTimeoutError,
    ResultPicklingError,
    WorkerLostError,
)
from parallel_backend_futures import FuturesBackend
from parallel_backend_loky import LokyBackend
from parallel_backend_mp import MpBackend
from parallel_backend_threads import ThreadsBackend
from parallel_testkit import FlakyBackend, Gate, LeakCheck, Mailbox, run_bounded

MODES = ["list", "generator", "generator_unordered"]
KINDS = ["threads", "mp", "loky", "futures-threads", "futures-processes"]
OF_BYTES = ["mp", "loky", "futures-processes"]
REPLACING = ["mp", "loky"]
N_TASKS = 40

every_mode = pytest.mark.parametrize("mode", MODES)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_seed = pytest.mark.parametrize("seed", range(2))

#: What must not be seen in the results of a call.
DISORDER: dict[str, Any] = {
    "delay_seconds": (0.0, 0.004),
    "p_delay": 0.5,
    "reorder": 3,
    "p_duplicate": 0.3,
    "p_missing": 0.1,
    "slow_start_seconds": 0.01,
    "connection_lost": (10, 0.02),
}

EVERYTHING: dict[str, Any] = {**DISORDER, "p_never": 0.05, "p_truncated": 0.1, "p_lost": 0.1, "p_submit_error": 0.02}

Make = Callable[..., FlakyBackend]


@pytest.fixture(autouse=True)
def a_stall_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the call waits before it looks for callbacks that are missing, which are many here."""
    monkeypatch.setattr("parallel._call.STALL_SECONDS", 0.03)


@pytest.fixture
def make(request: pytest.FixtureRequest, kind: str) -> Make:
    """Make a flaky backend around one of a kind."""

    def make_flaky(**faults: Any) -> FlakyBackend:
        return FlakyBackend(inner_of(kind, request), **faults)

    return make_flaky


def inner_of(kind: str, request: pytest.FixtureRequest) -> ParallelBackendBase:
    if kind == "threads":
        return ThreadsBackend()
    if kind == "mp":
        return MpBackend(start_method="fork")
    if kind == "loky":
        return LokyBackend()
    executor: Executor = request.getfixturevalue(
        "thread_pool" if kind == "futures-threads" else "process_pool",
    )
    return FuturesBackend(executor)


def square(number: int) -> int:
    return number * number


SQUARES = [square(i) for i in range(N_TASKS)]


def results_of(backend: ParallelBackendBase, mode: str = "list", **arguments: Any) -> list[Any]:
    """Square the first numbers on a backend; without an order where there is none."""
    arguments = {"batch_size": 1, **arguments}

    def call() -> list[Any]:
        parallel = Parallel(n_jobs=2, backend=backend, return_as=mode, **arguments)
        return list(parallel.map(square, range(N_TASKS)))

    results = run_bounded(call)
    return sorted(results) if mode == "generator_unordered" else results


def kinds_of(backend: FlakyBackend) -> set[str]:
    return {kind for kinds in backend.injected.values() for kind in kinds}


# -- what a call must cope with ----------------------------------------------------------------------------------------


@every_seed
@every_mode
@every_kind
def test_disorder_is_not_seen_in_the_results(make: Make, mode: str, seed: int) -> None:
    backend = make(seed=seed, **DISORDER)
    assert results_of(backend, mode) == SQUARES
    assert kinds_of(backend) == {"connection_lost", "delay", "duplicate", "missing", "slow_start"}
    assert sorted(backend.released) == list(range(N_TASKS))


@every_mode
@every_kind
def test_nor_with_batches_of_more_tasks_and_several_calls(make: Make, mode: str) -> None:
    backend = make(seed=5, **DISORDER)
    for batch_size in ("auto", 3):
        assert results_of(backend, mode, batch_size=batch_size) == SQUARES
    with Parallel(n_jobs=2, backend=backend, batch_size=2) as parallel:
        for _ in range(2):
            assert run_bounded(parallel.map, square, range(N_TASKS)) == SQUARES


@every_mode
@pytest.mark.parametrize("kind", REPLACING)
def test_workers_that_are_lost_cost_another_attempt(make: Make, mode: str) -> None:
    backend = make(seed=2, p_lost=0.05, **DISORDER)
    assert results_of(backend, mode, retries=20) == SQUARES
    assert "lost" in kinds_of(backend)


@every_mode
@pytest.mark.parametrize("kind", OF_BYTES)
def test_bytes_that_are_cut_off_cost_another_attempt(make: Make, mode: str) -> None:
    backend = make(seed=1, p_truncated=0.2, **DISORDER)
    assert results_of(backend, mode, batch_size=2, retries=20) == SQUARES
    assert "truncated" in kinds_of(backend)


@pytest.mark.parametrize("kind", ["threads", "mp"])
def test_two_calls_at_a_time_do_not_get_each_others_results(make: Make) -> None:
    backend = make(seed=6, **DISORDER)
    seen: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: seen.append(results_of(backend))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [SQUARES] * 2
    assert backend.n_submitted == 2 * N_TASKS


@pytest.mark.parametrize("kind", ["threads", "mp", "loky"])
def test_a_generator_that_is_closed_early_leaves_the_backend_ready(make: Make) -> None:
    with Parallel(n_jobs=2, backend=make(seed=7, **DISORDER), batch_size=1, return_as="generator") as parallel:
        for _ in range(3):
            results: Any = parallel.map(square, range(N_TASKS))
            assert next(results) == 0
            with pytest.warns(RuntimeWarning, match="closed before its end"):
                _close(results, parallel)


def _close(results: Any, parallel: Parallel) -> None:
    results.close()
    # The next call waits for the end of the one that was closed, which gives the warning.
    assert run_bounded(lambda: list(parallel.map(square, range(N_TASKS)))) == SQUARES


# -- what ends a call --------------------------------------------------------------------------------------------------


@every_mode
@every_kind
def test_a_submit_that_raises_ends_the_call(make: Make, mode: str) -> None:
    backend = make(p_submit_error=0.1)
    with pytest.raises(BackendError, match="did not take task") as caught:
        results_of(backend, mode)
    (number,) = backend.injected
    assert caught.value.task_indices == range(number, number + 1)
    assert isinstance(caught.value.__cause__, ConnectionError)


@every_mode
@pytest.mark.parametrize("retries", [0, 5])
@pytest.mark.parametrize("kind", ["threads", "futures-threads", "futures-processes"])
def test_a_lost_worker_ends_the_call_where_none_is_replaced(make: Make, mode: str, retries: int) -> None:
    with pytest.raises(WorkerLostError, match="FlakyBackend has lost the worker of job"):
        results_of(make(p_lost=0.2), mode, retries=retries)


@every_mode
@pytest.mark.parametrize("kind", REPLACING)
def test_a_lost_worker_ends_the_call_that_was_not_told_to_try_again(make: Make, mode: str) -> None:
    backend = make(p_lost=0.2)
    with pytest.raises(WorkerLostError) as caught:
        results_of(backend, mode)
    assert not caught.value.is_deliberate
    assert len(caught.value.task_indices) == 1


@pytest.mark.parametrize("kind", ["mp"])
def test_a_worker_that_is_lost_is_really_killed(make: Make, gate: Gate) -> None:
    parallel = Parallel(n_jobs=2, backend=make(p_lost=1.0))
    with pytest.raises(WorkerLostError, match="killed by signal 9"):
        run_bounded(parallel, [delayed(gate.wait)()] * 2)


@every_mode
@pytest.mark.parametrize("kind", OF_BYTES)
def test_bytes_that_are_cut_off_end_the_call(make: Make, mode: str) -> None:
    with pytest.raises(ResultPicklingError, match="cannot be unpickled in the caller") as caught:
        results_of(make(p_truncated=0.3), mode)
    (note,) = caught.value.__notes__
    assert "task" in note
    assert "FlakyBackend" in note


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["mp"])
def test_bytes_may_be_cut_off_anywhere(make: Make, seed: int) -> None:
    with pytest.raises(ResultPicklingError):
        results_of(make(seed=seed, p_truncated=1.0), batch_size=10)


@every_mode
@pytest.mark.parametrize("kind", ["threads", "futures-threads"])
def test_what_is_no_outcome_ends_the_call(make: Make, mode: str) -> None:
    with pytest.raises(BackendContractError, match="brought None for tasks"):
        results_of(make(p_truncated=0.3), mode)


@every_mode
@every_kind
def test_a_call_of_which_nothing_is_heard_is_ended_by_its_limit(make: Make, mode: str) -> None:
    with pytest.raises(CallTimeoutError):
        results_of(make(p_never=0.5), mode, total_timeout=0.3)


@every_kind
def test_a_backend_can_be_used_again_after_its_call_has_failed(make: Make) -> None:
    backend = make(seed=3, p_submit_error=0.1)
    n_failed = 0
    with Parallel(n_jobs=2, backend=backend, batch_size=4) as parallel:
        for _ in range(6):
            try:
                assert run_bounded(parallel.map, square, range(N_TASKS)) == SQUARES
            except BackendError:
                n_failed += 1
    assert 0 < n_failed < 6


ENDINGS = (BackendError, ResultPicklingError, CallTimeoutError)

some_share = st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10_000),
    mode=st.sampled_from(MODES),
    batch_size=st.sampled_from(["auto", 1, 7]),
    retries=st.sampled_from([0, 3]),
    faults=st.fixed_dictionaries(
        {
            "delay_seconds": st.sampled_from([0.0, 0.001, (0.0, 0.003)]),
            "p_delay": some_share,
            "reorder": st.sampled_from([1, 2, 4]),
            "p_duplicate": some_share,
            "p_missing": st.sampled_from([0.0, 0.1]),
            "p_never": st.sampled_from([0.0, 0.0, 0.02]),
            "p_submit_error": st.sampled_from([0.0, 0.0, 0.05]),
            "p_lost": st.sampled_from([0.0, 0.0, 0.05]),
            "p_truncated": st.sampled_from([0.0, 0.0, 0.05]),
            "connection_lost": st.sampled_from([None, (0, 0.01), (5, 0.01)]),
        }
    ),
)
def test_whatever_happens_results_are_right_or_the_error_is_one_of_the_librarys(
    seed: int, mode: str, batch_size: int | str, retries: int, faults: dict[str, Any]
) -> None:
    backend = FlakyBackend(ThreadsBackend(), seed=seed, **faults)
    limit = {"total_timeout": 1.0} if faults["p_never"] else {}
    try:
        results = results_of(backend, mode, batch_size=batch_size, retries=retries, **limit)
    except CallTimeoutError:
        assert limit
    except ENDINGS:
        assert kinds_of(backend) & {"lost", "submit_error", "truncated"}
    else:
        assert results == SQUARES


def test_the_same_seed_injects_the_same_whatever_the_workers() -> None:
    seen = []
    for inner in (ThreadsBackend(), MpBackend(start_method="fork")):
        backend = FlakyBackend(inner, seed=4, **DISORDER)
        assert results_of(backend) == SQUARES
        seen.append(backend.injected)
    assert seen[0] == seen[1]


class OlderBackend(ParallelBackendBase):
    """From before `submit` and `retrieve_result_callback`; runs every job in a thread."""

    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return resolve_n_jobs(n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self._pool = ThreadPool(n_jobs)
        return n_jobs

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        return self._pool.apply_async(func, (), callback=callback, error_callback=callback)

    def terminate(self) -> None:
        self._pool.close()
        self._pool.terminate()
        self._pool.join()


@every_mode
@pytest.mark.parametrize("faults", [{}, DISORDER], ids=["none", "disorder"])
def test_it_wraps_backends_of_the_older_kind_too(mode: str, faults: dict[str, Any]) -> None:
    assert results_of(FlakyBackend(OlderBackend(), **faults), mode) == SQUARES


def test_a_copy_in_another_process_has_the_settings_and_nothing_has_happened_there() -> None:
    backend = FlakyBackend(ThreadsBackend(), seed=4, **DISORDER)
    assert results_of(backend) == SQUARES
    copy = pickle.loads(pickle.dumps(backend))
    assert (copy.n_submitted, copy.injected, copy.released) == (0, {}, [])
    assert results_of(copy) == SQUARES
    assert copy.injected == backend.injected


# -- nothing is left behind --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LeakCheck.is_available, reason="only on Linux can a process see what it holds")
@pytest.mark.parametrize("faults", [DISORDER, EVERYTHING, {"p_never": 0.3}], ids=["disorder", "everything", "silence"])
@every_kind
def test_nothing_is_left_behind(
    make: Make, faults: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"  # that nobody else uses
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    # What stays warm is there before: all workers.
    with Mailbox(tmp_path / "mailbox") as mailbox, Gate(tmp_path / "gate") as gate:
        tasks = [delayed(tell_and_wait)(mailbox, gate)] * 2
        results = Parallel(n_jobs=2, backend=make(), batch_size=1, return_as="generator")(tasks)
        mailbox.receive(2)
        gate.open()
        assert list(results) == [None, None]
        del results
    check = LeakCheck(folder)
    for seed, mode in enumerate(MODES):
        with contextlib.suppress(*ENDINGS):
            results_of(make(seed=seed, **faults), mode, total_timeout=0.3)
    check.assert_nothing_left()


def tell_and_wait(mailbox: Mailbox, gate: Gate) -> None:
    mailbox.send("here")
    gate.wait()
