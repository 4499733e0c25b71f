"""A backend whose faults never happen is the backend that it wraps; and the faults, one job at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import ParallelBackendBase
from parallel.errors import WorkerLostError
from parallel_backend_mp import MpBackend
from parallel_backend_threads import ThreadsBackend
from parallel_testkit import BackendConformance, FlakyBackend, ManualBackend


class FlakyThreads(FlakyBackend):
    def __init__(self, **faults: Any) -> None:
        super().__init__(ThreadsBackend(), **faults)


class FlakyForks(FlakyBackend):
    def __init__(self, **faults: Any) -> None:
        super().__init__(MpBackend(start_method="fork"), **faults)


class TestFlakyThreads(BackendConformance):
    backend = FlakyThreads


class TestFlakyForks(BackendConformance):
    backend = FlakyForks


# -- what is drawn -----------------------------------------------------------------------------------------------------


FAULTS: dict[str, Any] = {
    "delay_seconds": (0.0, 1.0),
    "p_delay": 0.5,
    "p_duplicate": 0.3,
    "p_missing": 0.1,
    "p_never": 0.1,
    "p_submit_error": 0.1,
    "p_lost": 0.1,
    "p_truncated": 0.1,
    "slow_start_seconds": 1.0,
    "connection_lost": (10, 1.0),
}


def injected_by(**faults: Any) -> dict[int, tuple[str, ...]]:
    """What a flaky backend injects into a hundred jobs of which none comes back."""
    backend = FlakyBackend(ManualBackend(), **faults)
    backend.configure(n_jobs=2)
    for _ in range(100):
        try:
            backend.submit(None, lambda _: None)  # type: ignore[arg-type]
        except ConnectionError:
            assert "submit_error" in backend.injected[backend.n_submitted - 1]
    backend.terminate()
    return backend.injected


@pytest.mark.parametrize("seed", range(20))
def test_the_same_seed_injects_the_same(seed: int) -> None:
    assert injected_by(seed=seed, **FAULTS) == injected_by(seed=seed, **FAULTS)
    assert injected_by(seed=seed, **FAULTS) != injected_by(seed=seed + 1, **FAULTS)


def test_one_fault_more_changes_nothing_of_the_others() -> None:
    few = injected_by(seed=1, p_duplicate=0.3, p_truncated=0.3)
    more = injected_by(seed=1, p_duplicate=0.3, p_truncated=0.3, p_delay=0.5, delay_seconds=0.1)
    assert any("delay" in kinds for kinds in more.values())
    assert few == {
        number: rest for number, kinds in more.items() if (rest := tuple(kind for kind in kinds if kind != "delay"))
    }


def test_every_kind_of_fault_is_injected_about_as_often_as_was_said() -> None:
    injected = injected_by(seed=0, p_duplicate=0.5, p_truncated=0.1)
    assert 35 <= sum("duplicate" in kinds for kinds in injected.values()) <= 65
    assert 2 <= sum("truncated" in kinds for kinds in injected.values()) <= 20


def test_slow_starts_and_the_lost_connection_are_injected_where_they_were_said_to_be() -> None:
    assert injected_by(slow_start_seconds=1.0, connection_lost=(7, 1.0)) == {
        0: ("slow_start",),
        1: ("slow_start",),
        7: ("connection_lost",),
    }


def test_a_job_that_is_never_heard_of_has_no_other_fault() -> None:
    assert set(injected_by(p_never=1.0, p_missing=1.0, p_duplicate=1.0, p_lost=1.0).values()) == {("never",)}
    assert set(injected_by(p_submit_error=1.0, p_never=1.0, p_lost=1.0).values()) == {("submit_error",)}
    assert set(injected_by(p_missing=1.0, p_duplicate=1.0).values()) == {("missing",)}
    assert set(injected_by(p_lost=1.0, p_truncated=1.0).values()) == {("lost",)}


# -- one job at a time -------------------------------------------------------------------------------------------------


class Watched:
    """A flaky backend around one that the test drives, and what is heard of it."""

    def __init__(self, inner: ManualBackend | None = None, **faults: Any) -> None:
        self.inner = inner or ManualBackend()
        self.backend = FlakyBackend(self.inner, **faults)
        self.heard: list[int] = []
        self.reported: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()
        self.backend.configure(n_jobs=2)
        self.backend.attach(self)

    def started(self, future: Any) -> None:
        self.reported.append(("started", future.number))

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        self.reported.append(("lost", future.number, exit_code, signal))

    def submit(self) -> Any:
        return self.backend.submit(None, self._hear)  # type: ignore[arg-type]

    def _hear(self, future: Any) -> None:
        assert future.done()
        with self._changed:
            self.heard.append(future.number)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, 30)
            return self.heard


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make_watched(*args: Any, **faults: Any) -> Watched:
        made.append(Watched(*args, **faults))
        return made[-1]

    yield make_watched
    for watched in made:
        watched.backend.terminate()
    assert "flaky" not in {thread.name for thread in threading.enumerate()}


Watch = Callable[..., Watched]


def test_without_faults_an_outcome_gets_through_at_once(watch: Watch) -> None:
    watched = watch()
    future = watched.submit()
    assert (future.done(), watched.heard) == (False, [])
    watched.inner.submitted[0].bring("outcome")
    assert (future.done(), watched.heard) == (True, [0])
    assert watched.backend.retrieve_result_callback(future) == "outcome"
    assert watched.backend.injected == {}


def test_outcomes_that_are_held_get_through_in_the_order_of_the_seed(watch: Watch) -> None:
    orders = set()
    for seed in range(10):
        watched = watch(seed=seed, reorder=4)
        for _ in range(4):
            watched.submit()
        for batch in watched.inner.submitted:
            batch.bring("outcome")
        assert sorted(watched.wait_for(4)) == [0, 1, 2, 3]
        assert watched.backend.released == watched.heard
        orders.add(tuple(watched.heard))
    assert len(orders) > 3


def test_outcomes_are_not_held_for_ever(watch: Watch) -> None:
    watched = watch(reorder=1000)
    watched.submit()
    watched.inner.submitted[0].bring("outcome")
    assert watched.wait_for(1) == [0]


def test_a_delayed_outcome_is_not_done_before_it_is_heard_of(watch: Watch) -> None:
    watched = watch(delay_seconds=3600.0)
    future = watched.submit()
    watched.inner.submitted[0].bring("outcome")
    assert watched.inner.submitted[0].future.done()
    assert (future.done(), watched.heard) == (False, [])


def test_nothing_gets_through_while_the_connection_is_lost(watch: Watch) -> None:
    watched = watch(connection_lost=(1, 3600.0))
    futures = [watched.submit() for _ in range(3)]
    for batch in watched.inner.submitted:
        batch.begin()
        batch.bring("outcome")
    watched.inner.submitted[0].lose()
    assert [future.done() for future in futures] == [False] * 3
    assert (watched.heard, watched.reported) == ([], [])


def test_what_was_held_back_gets_through_when_the_connection_is_there_again(watch: Watch) -> None:
    watched = watch(connection_lost=(0, 0.01))
    for _ in range(3):
        watched.submit()
    for batch in watched.inner.submitted:
        batch.bring("outcome")
    assert sorted(watched.wait_for(3)) == [0, 1, 2]


def test_a_missing_callback_leaves_a_future_that_is_done(watch: Watch) -> None:
    watched = watch(p_missing=1.0)
    future = watched.submit()
    watched.inner.submitted[0].bring("outcome")
    assert (future.done(), watched.heard) == (True, [])
    assert watched.backend.retrieve_result_callback(future) == "outcome"


def test_a_second_callback_may_come_later(watch: Watch) -> None:
    for faults, at_once in (({}, 2), ({"delay_seconds": 0.001}, 0)):
        watched = watch(p_duplicate=1.0, **faults)
        watched.submit()
        watched.inner.submitted[0].bring("outcome")
        if at_once:
            assert watched.heard == [0, 0]
        assert watched.wait_for(2) == [0, 0]


def test_a_future_that_is_done_without_a_callback_is_found(watch: Watch) -> None:
    watched = watch()
    future = watched.submit()
    watched.inner.submitted[0].future.is_done = True
    watched.inner.submitted[0].future.brought = "outcome"
    assert future.done()
    assert watched.backend.retrieve_result_callback(future) == "outcome"


def test_a_job_of_which_nothing_is_heard_can_be_killed(watch: Watch) -> None:
    watched = watch(p_never=1.0)
    futures = [watched.submit() for _ in range(2)]
    watched.inner.submitted[0].bring("outcome")
    assert (futures[0].done(), watched.heard) == (False, [])
    watched.backend.kill(futures[0])
    assert (futures[0].done(), watched.heard) == (True, [0])
    with pytest.raises(WorkerLostError, match="has lost job 0"):
        watched.backend.retrieve_result_callback(futures[0])


def test_reports_are_about_the_futures_that_the_call_knows(watch: Watch) -> None:
    watched = watch()
    for _ in range(2):
        watched.submit()
    watched.inner.submitted[1].begin()
    watched.inner.submitted[0].lose(exit_code=3)
    assert watched.reported == [("started", 1), ("lost", 0, 3, None)]


def test_a_report_that_comes_before_submit_returns_is_kept_until_then(watch: Watch) -> None:
    watched = watch(ManualBackend(lambda batch: batch.begin()))
    watched.submit()
    assert watched.reported == [("started", 0)]


def test_what_is_cut_off_is_shorter(watch: Watch) -> None:
    watched = watch(p_truncated=1.0)
    for whole in (b"0123456789", bytearray(b"0123456789"), memoryview(b"0123456789")):
        future = watched.submit()
        watched.inner.submitted[-1].bring(whole)
        part = watched.backend.retrieve_result_callback(future)
        assert len(part) < 10
        assert whole[: len(part)] == part
    future = watched.submit()
    watched.inner.submitted[-1].bring("no bytes")
    assert watched.backend.retrieve_result_callback(future) is None


def test_after_the_end_nothing_gets_through(watch: Watch) -> None:
    watched = watch(delay_seconds=0.001)
    for _ in range(2):
        watched.submit()
    watched.inner.submitted[0].bring("outcome")
    watched.backend.terminate()
    watched.inner.submitted[1].bring("outcome")
    assert "flaky" not in {thread.name for thread in threading.enumerate()}
    assert 1 not in watched.heard


# -- what is the wrapped backend's -------------------------------------------------------------------------------------


def test_it_declares_what_the_wrapped_backend_declares() -> None:
    capabilities: dict[str, Any] = {
        "wire": "bytes",
        "same_host": False,
        "owns_workers": False,
        "supports_kill": True,
        "replaces_workers": True,
        "max_in_flight_per_worker": 7,
        "default_n_jobs": 3,
        "inner_max_num_threads": 2,
    }
    backend = FlakyBackend(ManualBackend(**capabilities))
    assert {name: getattr(backend, name) for name in capabilities} == capabilities
    plain = ManualBackend()
    for name, value in vars(ParallelBackendBase).items():
        if not name.startswith("_") and not callable(value) and not isinstance(value, (property, staticmethod)):
            assert getattr(FlakyBackend(plain), name) == getattr(plain, name), name


def test_what_the_core_sets_in_it_is_set_in_the_wrapped_backend() -> None:
    inner = ThreadsBackend()
    backend = FlakyBackend(inner)
    backend.nesting_level, backend.inner_max_num_threads = 4, 2
    assert (inner.nesting_level, inner.inner_max_num_threads) == (4, 2)
    assert backend.worker_owner is inner
    assert backend._prepare_worker_env(2)["OMP_NUM_THREADS"] == "2"


def test_it_shows_what_it_wraps_and_has_done() -> None:
    backend = FlakyBackend(ManualBackend(), seed=3, p_duplicate=1.0)
    backend.configure(n_jobs=2)
    future = backend.submit(None, lambda _: None)  # type: ignore[arg-type]
    assert repr(future) == "<FlakyFuture 0 pending with duplicate>"
    shown = "<FlakyBackend around <ManualBackend 1 submitted, 1 pending>, seed 3, 1 submitted, 1 with faults>"
    assert repr(backend) == shown
    backend.terminate()


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "kind", "text"),
    [
        ({"seed": "x"}, TypeError, "seed must be an integer, not 'x'"),
        ({"seed": True}, TypeError, "seed must be an integer, not True"),
        ({"delay_seconds": -1.0}, ValueError, "delay_seconds must be seconds, finite and at least 0"),
        ({"delay_seconds": float("nan")}, ValueError, "delay_seconds must be seconds"),
        ({"delay_seconds": float("inf")}, ValueError, "delay_seconds must be seconds"),
        ({"delay_seconds": "long"}, TypeError, "delay_seconds must be a number"),
        ({"delay_seconds": (1, 2, 3)}, TypeError, "delay_seconds must be a pair"),
        ({"delay_seconds": (2, 1)}, ValueError, "delay_seconds must not be longer at least than at most"),
        ({"delay_seconds": (0, -1)}, ValueError, r"delay_seconds\[1\] must be seconds"),
        ({"reorder": 0}, ValueError, "reorder must be at least 1"),
        ({"reorder": 1.5}, TypeError, "reorder must be an integer"),
        ({"slow_start_seconds": -1}, ValueError, "slow_start_seconds must be seconds"),
        ({"connection_lost": 5}, TypeError, "connection_lost must be a pair"),
        ({"connection_lost": (-1, 1.0)}, ValueError, r"connection_lost\[0\] must be at least 0"),
        ({"connection_lost": (1.5, 1.0)}, TypeError, r"connection_lost\[0\] must be an integer"),
        ({"connection_lost": (1, -1.0)}, ValueError, r"connection_lost\[1\] must be seconds"),
        *[
            ({f"p_{name}": value}, error, f"p_{name} must be a {what}")
            for name in ("delay", "duplicate", "missing", "never", "submit_error", "lost", "truncated")
            for value, error, what in (
                (1.1, ValueError, "probability, 0 to 1"),
                (-0.1, ValueError, "probability, 0 to 1"),
                (float("nan"), ValueError, "probability, 0 to 1"),
                ("often", TypeError, "number"),
            )
        ],
        ({"p_no_such": 1.0}, TypeError, "p_no_such"),
    ],
)
def test_settings_that_mean_nothing_are_refused(faults: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        FlakyBackend(ThreadsBackend(), **faults)


@pytest.mark.parametrize("inner", ["threads", None, ThreadsBackend])
def test_what_is_no_backend_cannot_be_wrapped(inner: Any) -> None:
    with pytest.raises(TypeError, match="inner must be a ParallelBackendBase"):
        FlakyBackend(inner)
