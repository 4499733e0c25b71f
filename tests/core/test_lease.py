from __future__ import annotations

import threading
from typing import Any

import pytest

from parallel import Parallel, _lease
from parallel._lease import Lease
from tests.core.fakes import HereBackend


@pytest.fixture
def backend() -> HereBackend:
    return HereBackend()


def lease(backend: HereBackend, n_jobs: int = 2, *, is_block: bool = False) -> Lease:
    return Lease(backend, lambda: backend.configure(n_jobs), is_block=is_block)


def test_a_lease_gets_workers_and_gives_them_back(backend: HereBackend) -> None:
    held = lease(backend, 3)
    assert held.n_jobs == 3
    held.release()
    assert backend.log == ["configure 3", "terminate"]


def test_workers_are_given_back_once(backend: HereBackend) -> None:
    held = lease(backend)
    held.release()
    held.release()
    assert backend.log == ["configure 2", "terminate"]


def test_several_users_share_the_workers_of_the_first(backend: HereBackend) -> None:
    first, second = lease(backend, 2), lease(backend, 5)
    assert second.n_jobs == 2
    first.release()
    assert backend.log == ["configure 2"]
    second.release()
    assert backend.log == ["configure 2", "terminate"]


class Left:
    """What a call has left to the next one."""

    def __init__(self, error: OSError | None = None) -> None:
        self.is_closed = False
        self.error = error

    def close(self) -> None:
        self.is_closed = True
        if self.error is not None:
            raise self.error


def test_what_calls_leave_to_each_other_goes_with_the_last_of_them(backend: HereBackend) -> None:
    first, second = lease(backend), lease(backend)
    left = [Left(), Left(OSError()), Left()]
    first.spare.extend(left)
    first.release()
    assert second.spare == left
    assert not any(one.is_closed for one in left)
    second.release()
    assert all(one.is_closed for one in left)
    assert second.spare == []
    assert backend.log == ["configure 2", "terminate"]


def test_workers_are_got_anew_after_they_were_given_back(backend: HereBackend) -> None:
    lease(backend, 2).release()
    assert lease(backend, 5).n_jobs == 5


def test_a_backend_is_not_taken_for_one_that_was_dropped_before_its_release() -> None:
    for _ in range(10):
        backend = HereBackend()  # may well be where the last one was
        lease(backend)
        assert backend.log == ["configure 2"]


def test_two_backends_have_nothing_to_do_with_each_other(backend: HereBackend) -> None:
    other = HereBackend()
    held = lease(backend)
    lease(other).release()
    assert (backend.log, other.log) == (["configure 2"], ["configure 2", "terminate"])
    held.release()


def test_where_workers_cannot_be_had_the_next_user_tries_again(backend: HereBackend) -> None:
    def fail() -> int:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            Lease(backend, fail)
    held = lease(backend)
    held.release()
    assert backend.log == ["configure 2", "terminate"]


# -- aborting ----------------------------------------------------------------------------------------------------------


def test_a_call_alone_is_aborted_at_once(backend: HereBackend) -> None:
    assert lease(backend).abort()
    assert backend.log == ["configure 2", "abort_everything False"]


def test_inside_a_block_the_backend_is_left_ready(backend: HereBackend) -> None:
    lease(backend, is_block=True)
    call = lease(backend)
    assert call.abort()
    call.release()
    assert backend.log == ["configure 2", "abort_everything True"]


def test_one_of_several_calls_is_not_aborted_before_the_others_are_done(backend: HereBackend) -> None:
    block, failing, other = lease(backend, is_block=True), lease(backend), lease(backend)
    assert not failing.abort()
    failing.release()
    assert backend.log == ["configure 2"]
    other.release()
    assert backend.log == ["configure 2", "abort_everything True"]
    block.release()


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class EndlessBackend(HereBackend):
    """Takes as long to end as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self._can_end = threading.Event()

    def terminate(self) -> None:
        self._can_end.wait()
        super().terminate()

    def let_end(self) -> None:
        """Let it end, and wait until it has."""
        self._can_end.set()
        for thread in threads_named("parallel-terminate"):
            thread.join()


def test_after_an_abort_nobody_waits_for_a_backend_that_cannot_kill() -> None:
    backend = EndlessBackend()
    held = lease(backend)
    held.abort()
    held.release()  # does not block
    assert "terminate" not in backend.log
    backend.let_end()
    assert backend.log[-1] == "terminate"


def test_after_an_abort_a_new_user_waits_until_the_backend_has_been_ended() -> None:
    class SlowToEnd(HereBackend):
        def __init__(self) -> None:
            super().__init__()
            self.was_configured = threading.Event()
            self.ends_too_late = False

        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            self.was_configured.set()
            return super().configure(n_jobs, parallel, **options)

        def terminate(self) -> None:
            self.ends_too_late = self.was_configured.wait(0.2)
            super().terminate()

    backend = SlowToEnd()
    first = lease(backend)
    first.abort()
    backend.was_configured.clear()
    first.release()
    second = lease(backend)
    assert not backend.ends_too_late
    second.release()
    assert backend.log == ["configure 2", "abort_everything False", "terminate", "configure 2", "terminate"]


def test_after_an_abort_a_new_user_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel._lease.ENDING_SECONDS", 0.01)
    may_end = threading.Event()

    class Endless(HereBackend):
        def terminate(self) -> None:
            may_end.wait()

    backend = Endless()
    first = lease(backend)
    first.abort()
    first.release()
    (ending,) = threads_named("parallel-terminate")
    second = lease(backend)
    may_end.set()
    ending.join()
    second.release()


def test_after_an_abort_a_backend_that_can_kill_is_ended_here() -> None:
    class Killing(HereBackend):
        supports_kill = True

    backend = Killing()
    held = lease(backend)
    held.abort()
    held.release()
    assert backend.log == ["configure 2", "abort_everything False", "terminate"]


def test_without_an_abort_the_workers_are_gone_when_the_release_returns(backend: HereBackend) -> None:
    lease(backend).release()
    assert threads_named("parallel-terminate") == []


# -- several threads ---------------------------------------------------------------------------------------------------


def test_a_second_user_waits_until_the_workers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    has_second_arrived = watch_locks(monkeypatch)
    threads: list[threading.Thread] = []

    class Slow(HereBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            log.append("begins")
            threads.append(threading.Thread(target=lambda: log.append(f"second has {lease(self).n_jobs}")))
            threads[0].start()
            has_second_arrived.wait()
            log.append("is ready")
            return n_jobs

    lease(Slow())
    threads[0].join()
    assert log == ["begins", "is ready", "second has 2"]


def test_a_new_user_waits_until_the_workers_of_the_last_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    has_second_arrived = watch_locks(monkeypatch)
    threads: list[threading.Thread] = []

    class Slow(HereBackend):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            log.append("configure")
            has_second_arrived.set()
            return n_jobs

        def terminate(self) -> None:
            log.append("ends")
            has_second_arrived.clear()
            threads.append(threading.Thread(target=lease, args=(self,)))
            threads[0].start()
            has_second_arrived.wait()
            log.append("has ended")

    lease(Slow()).release()
    threads[0].join()
    assert log == ["configure", "ends", "has ended", "configure"]


def watch_locks(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Give an event that is set when somebody has to wait for a lock of a lease."""
    somebody_waits = threading.Event()
    make_lock = threading.Lock

    class WatchedLock:
        def __init__(self) -> None:
            self._lock = make_lock()

        def __enter__(self) -> None:
            if not self._lock.acquire(blocking=False):
                somebody_waits.set()
                self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    class Threading:
        Lock = WatchedLock
        Thread = threading.Thread

    monkeypatch.setattr(_lease, "threading", Threading)
    return somebody_waits


# -- in calls ----------------------------------------------------------------------------------------------------------


def test_calls_in_a_block_share_its_workers(backend: HereBackend) -> None:
    with Parallel(n_jobs=2, backend=backend) as parallel:
        parallel.map(abs, range(3))
        parallel.map(abs, range(3))
    assert [entry for entry in backend.log if not entry.endswith("_call")] == ["configure 2", "terminate"]


def test_every_call_outside_of_a_block_has_its_own_workers(backend: HereBackend) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    parallel.map(abs, range(3))
    parallel.map(abs, range(3))
    assert backend.log == ["configure 2", "start_call", "stop_call", "terminate"] * 2


def test_after_a_call_that_failed_a_backend_that_cannot_kill_is_ended_aside() -> None:
    # As after an interrupt that has come while the call was aborted: tasks may run on, and nobody may wait for them.
    backend = EndlessBackend()
    held = lease(backend)
    held.is_failed = True
    held.release()
    assert "terminate" not in backend.log
    backend.let_end()
    assert backend.log.count("terminate") == 1
