"""A backend that makes another one misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from parallel.backend import Job, ParallelBackendBase, Report, WorkerLostError
from parallel_testkit._flaky_line import FlakyFuture, Line
from parallel_testkit._flaky_plan import Fault, FaultSettings

__all__ = ["FlakyBackend"]


class FlakyBackend(ParallelBackendBase):
    """Wraps a backend, and lets go wrong on the way what goes wrong in the real world.

    ::

        backend = FlakyBackend(ThreadsBackend(), seed=7, delay_seconds=(0.0, 0.01), reorder=3, p_duplicate=0.2)
        assert Parallel(n_jobs=2, backend=backend).map(abs, range(-9, 0)) == [9, 8, 7, 6, 5, 4, 3, 2, 1]

    What happens to a job is drawn from the seed and the job's number only: the same seed does the same to the job of
    the same number, whatever the time. (How a call cuts its tasks into jobs may depend on time; with ``batch_size=1``
    and without retries it does not.) Everything else is the wrapped backend's: what it declares, its workers, what its
    methods do. Without a fault it cannot be told from it.

    Parameters
    ----------
    inner : ParallelBackendBase
        The backend to wrap; it must have no other user.
    seed : int, default 0
        From which everything is drawn.
    delay_seconds : float or (float, float), default 0.0
        How long outcomes are on their way back; of a pair, the shortest and the longest delay, between which it is
        drawn. The second callback of a duplicate comes that much later than the first, perhaps after the call.
    p_delay : float, default 1.0
        Which share of the outcomes is delayed. (Every `p_` is a probability from 0 to 1, for each job.)
    reorder : int, default 1
        How many outcomes are collected before they are let through, in another order; for 0.05 s at most, so that a
        call which cannot have so many under way goes on.
    p_duplicate : float, default 0.0
        The callback is called twice. By the contract the call ignores the second one.
    p_missing : float, default 0.0
        The callback is not called; the future is done. The call finds that after half a second without news.
    p_never : float, default 0.0
        The callback is not called and the future is never done: only the limit of the call ends it (that of a task
        does not, where the call sees that the task has ended). A `kill` of the job is heard of, as a lost worker.
    p_submit_error : float, default 0.0
        `submit` raises a ConnectionError. By the contract this ends the call with a `BackendError`.
    p_lost : float, default 0.0
        The worker of the job is lost. Where the wrapped backend declares `supports_kill` it is really killed, inside
        `submit`, which may block for it; else the job runs and its outcome is lost. The call ends with a
        `WorkerLostError`, or tries again, if it was told to and the wrapped backend declares `replaces_workers`.
    p_truncated : float, default 0.0
        An outcome of bytes is cut off somewhere, which the call reports as a `ResultPicklingError`, or tries again if
        it was told to; any other is replaced by None, which ends the call with a `BackendContractError`.
    slow_start_seconds : float, default 0.0
        By how much the outcomes of the first jobs after `configure`, one for each worker, are late.
    connection_lost : (int, float), optional
        After how many jobs the connection to the workers is lost, once, and for how many seconds: what they run they
        run, but nothing that they say gets through before the end of that time.

    Attributes
    ----------
    inner : ParallelBackendBase
        The wrapped backend.
    injected : dict of int to tuple of str
        By number of the job, from 0, the names of the faults that were chosen for it when it was submitted, sorted;
        only jobs that have any. The names: ``"connection_lost"`` (with the job that it began with), ``"delay"``,
        ``"duplicate"``, ``"lost"``, ``"missing"``, ``"never"``, ``"slow_start"``, ``"submit_error"``, ``"truncated"``.
    released : list of int
        The numbers of the jobs whose outcomes were let through, in that order.
    n_submitted : int
        How many jobs were submitted.

    Raises
    ------
    TypeError
        If `inner` is no backend, or a value is of the wrong kind.
    ValueError
        If a value is out of range.
    """

    def __init__(
        self,
        inner: ParallelBackendBase,
        *,
        seed: int = 0,
        delay_seconds: float | tuple[float, float] = 0.0,
        p_delay: float = 1.0,
        reorder: int = 1,
        p_duplicate: float = 0.0,
        p_missing: float = 0.0,
        p_never: float = 0.0,
        p_submit_error: float = 0.0,
        p_lost: float = 0.0,
        p_truncated: float = 0.0,
        slow_start_seconds: float = 0.0,
        connection_lost: tuple[int, float] | None = None,
    ) -> None:
        # Not the base class's: all that it sets is the wrapped backend's.
        if not isinstance(inner, ParallelBackendBase):
            raise TypeError(f"inner must be a ParallelBackendBase, not {inner!r}")
        self._settings = FaultSettings.checked(
            seed=seed,
            delay_seconds=delay_seconds,
            reorder=reorder,
            slow_start_seconds=slow_start_seconds,
            connection_lost=connection_lost,
            probabilities={
                "delay": p_delay,
                "duplicate": p_duplicate,
                "missing": p_missing,
                "never": p_never,
                "submit_error": p_submit_error,
                "lost": p_lost,
                "truncated": p_truncated,
            },
        )
        self._begin(inner)

    def _begin(self, inner: ParallelBackendBase) -> None:
        self.inner = inner
        self.injected: dict[int, tuple[str, ...]] = {}
        self.released: list[int] = []
        self.n_submitted = 0
        # Two calls may submit at the same time.
        self._lock = threading.Lock()
        self._n_slow = 0  # jobs that have yet to come whose workers start slowly
        self._line = Line(self._settings.reorder, self.released)

    def __getstate__(self) -> dict[str, Any]:
        """Give what is sent to another process: the wrapped backend and the settings; nothing has happened there."""
        return {"inner": self.inner, "settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._settings = state["settings"]
        self._begin(state["inner"])

    # -- workers -------------------------------------------------------------------------------------------------------

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Have the wrapped backend get ready; see `ParallelBackendBase`."""
        workers = self.inner.configure(n_jobs=n_jobs, parallel=parallel, **options)
        self._renew()
        self._n_slow = workers if self._settings.slow_start_seconds else 0
        return workers

    def terminate(self) -> None:
        """Forget what is held, end the thread if there is one, and have the wrapped backend end its workers."""
        # First the own thread: tasks that cannot be killed may keep the wrapped backend for ever.
        self._renew()
        self.inner.terminate()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Forget what is held, and have the wrapped backend stop what runs; see `ParallelBackendBase`."""
        self._renew()
        self.inner.abort_everything(ensure_ready=ensure_ready)

    def _renew(self) -> None:
        self._line.close()
        self._line = Line(self._settings.reorder, self.released)

    def attach(self, report: Report) -> None:
        """Have the wrapped backend report about its futures, and tell the call of those that the call knows."""
        self.inner.attach(_Relay(self, report))

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def submit(self, func: Job, callback: Callable[[Any], None]) -> FlakyFuture:
        """Have the wrapped backend submit a job, unless this is to fail; see `ParallelBackendBase`.

        Raises
        ------
        ConnectionError
            If that was drawn.
        """
        line = self._line
        future = self._next_future(callback, line)
        faults = future.plan.faults
        if "connection_lost" in faults:
            assert self._settings.connection_lost is not None
            line.lose_connection(self._settings.connection_lost[1])
        if "submit_error" in faults:
            raise ConnectionError(f"FlakyBackend refuses job {future.number}")
        line.enter(future)
        try:
            inner = self.inner.submit(func, partial(line.called_back, future.number))
        except BaseException:
            line.refused(future)
            raise
        line.entered(future, inner)
        if "lost" in faults and self.inner.supports_kill:
            self.inner.kill(inner)
        return future

    def _next_future(self, callback: Callable[[Any], None], line: Line) -> FlakyFuture:
        """Number a job, decide what happens to it, and write that down."""
        settings = self._settings
        with self._lock:
            number = self.n_submitted
            self.n_submitted += 1
            also: set[Fault] = set()
            if self._n_slow:
                self._n_slow -= 1
                also.add("slow_start")
            if settings.connection_lost is not None and settings.connection_lost[0] == number:
                also.add("connection_lost")
            plan = settings.draw(number, also)
            if plan.faults:
                self.injected[number] = tuple(sorted(plan.faults))
        return FlakyFuture(number, plan, callback, line)

    def retrieve_result_callback(self, future: FlakyFuture) -> Any:
        """Give the outcome, or what was drawn in its place; see `ParallelBackendBase`."""
        brought = future.brought if future.was_brought else future.inner
        future.brought = None  # which may be the outcome, and the call keeps the future
        return self._outcome(future, lambda: self.inner.retrieve_result_callback(brought))

    def retrieve_result(self, out: FlakyFuture, timeout: float | None = None) -> Any:
        """Give the outcome, or what was drawn in its place; see `ParallelBackendBase`."""
        return self._outcome(out, lambda: self.inner.retrieve_result(out.inner, timeout))

    def _outcome(self, future: FlakyFuture, fetch: Callable[[], Any]) -> Any:
        if future.is_lost:
            raise WorkerLostError(f"FlakyBackend has lost job {future.number} with its worker")
        is_lost = "lost" in future.plan.faults
        try:
            brought = fetch()
        except WorkerLostError as error:
            if not is_lost:
                raise
            # A backend that can only end all its workers says of each job that it was ended for another one's sake.
            raise _lost_for_good(error) from error.__cause__
        if is_lost:  # it cannot be killed, or its outcome was faster
            raise WorkerLostError(f"FlakyBackend has lost the worker of job {future.number}")
        return _cut(brought, future.plan.kept_share) if "truncated" in future.plan.faults else brought

    def cancel(self, future: FlakyFuture) -> None:
        """Have the wrapped backend drop a job; see `ParallelBackendBase`."""
        self.inner.cancel(future.inner)

    def kill(self, future: FlakyFuture) -> None:
        """Have the wrapped backend end a worker; a job that it has done, but whose outcome is held, has lost it too."""
        if not future.line.lose(future):
            self.inner.kill(future.inner)

    def replace(self, future: FlakyFuture) -> bool:
        """Have the wrapped backend put another worker into the place of a stuck one; see `ParallelBackendBase`."""
        return self.inner.replace(future.inner)

    def __repr__(self) -> str:
        counts = f"{self.n_submitted} submitted, {len(self.injected)} with faults"
        return f"<FlakyBackend around {self.inner!r}, seed {self._settings.seed}, {counts}>"


def _delegate(name: str) -> property:
    def get(self: FlakyBackend) -> Any:
        return getattr(self.inner, name)

    def put(self: FlakyBackend, value: Any) -> None:
        setattr(self.inner, name, value)

    return property(get, put, doc=f"The wrapped backend's `{name}`.")


# All that the contract has, or will have, and that is not dealt with above is the wrapped backend's: what it declares
# and what the core sets in it, as well as its methods. The last two are set in each object only.
for _name in (*vars(ParallelBackendBase), "backend_kwargs", "parallel"):
    if not _name.startswith("__") and _name not in vars(FlakyBackend):
        setattr(FlakyBackend, _name, _delegate(_name))


class _Relay:
    """What the wrapped backend gets to report to; see `parallel.backend.Report`."""

    def __init__(self, backend: FlakyBackend, report: Report) -> None:
        self._backend = backend
        self._report = report

    def started(self, future: Any) -> None:
        """Tell the call, of its own future."""
        self._backend._line.report(future, self._report.started)

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        """Tell the call, of its own future."""
        self._backend._line.report(future, lambda known: self._report.lost(known, exit_code, signal))


def _lost_for_good(error: WorkerLostError) -> WorkerLostError:
    return WorkerLostError(error.message, **{**vars(error), "is_deliberate": False})


def _cut(brought: Any, kept_share: float) -> Any:
    if isinstance(brought, (bytes, bytearray, memoryview)):
        return brought[: int(len(brought) * kept_share)]
    return None
