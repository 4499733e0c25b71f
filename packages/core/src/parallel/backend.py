"""The contract between parallel and a backend: all that an author of a backend needs.

A complete backend, which runs tasks in a `concurrent.futures.ThreadPoolExecutor`::

    from concurrent.futures import ThreadPoolExecutor

    from parallel import Parallel, ParallelBackendBase, delayed, register_parallel_backend


    class PoolBackend(ParallelBackendBase):
        supports_retrieve_callback = True

        def effective_n_jobs(self, n_jobs):
            return 4 if n_jobs is None or n_jobs < 0 else n_jobs

        def configure(self, n_jobs=1, parallel=None, **options):
            n_jobs = self.effective_n_jobs(n_jobs)
            self._executor = ThreadPoolExecutor(n_jobs)
            return n_jobs

        def submit(self, func, callback):
            future = self._executor.submit(func)
            future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, future):
            return future.result()

        def terminate(self):
            self._executor.shutdown()


    register_parallel_backend("pool", PoolBackend)
    Parallel(n_jobs=2, backend="pool")(delayed(pow)(i, 2) for i in range(10))

A backend moves a job to a worker and brings its outcome back. It decides nothing: what runs next, in which batch, how
long it may take and what happens when it fails is the core's business. The names of the methods are those of joblib's
documented backend API.

A distribution makes its backend known by an entry point in the group ``parallel.backends``::

    [project.entry-points."parallel.backends"]
    pool = "my_package:PoolBackend"
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from parallel._cpu import cpu_budget, cpu_count
from parallel._interpreter import warn_outside
from parallel._pickling import dumps
from parallel._settings import ACTIVE
from parallel._task import Job, Outcome
from parallel._tree import kill_process_tree
from parallel._warm import WarmPools
from parallel._watch import end_with_process
from parallel._worker import run_payload
from parallel.errors import BackendContractError, BackendError, WorkerLostError

if TYPE_CHECKING:
    from parallel._parallel import Parallel

__all__ = [
    "BackendContractError",
    "BackendError",
    "Job",
    "Outcome",
    "ParallelBackendBase",
    "Report",
    "WarmPools",
    "WorkerLostError",
    "cpu_budget",
    "cpu_count",
    "dumps",
    "end_with_process",
    "explain_processes",
    "kill_process_tree",
    "process_n_jobs",
    "resolve_n_jobs",
    "run_payload",
    "why_no_processes",
]


class Report(Protocol):
    """What a backend may tell the call while it runs; see `ParallelBackendBase.attach`.

    All methods may be called from any thread and never block.
    """

    def started(self, future: Any) -> None:
        """A worker has begun to run what was submitted as `future`."""

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        """The worker that held `future` ended; its callback will not be called."""


def resolve_n_jobs(n_jobs: int | None, default: int = 1, workers: int | None = None) -> int:
    """Turn what a user gives as `n_jobs` into a number of workers on this host, joblib's way.

    Parameters
    ----------
    n_jobs : int or None
        Positive: itself. Negative: ``max(cpus + 1 + n_jobs, 1)``, where the CPUs are those of `cpu_budget`. None:
        `default`.
    default : int
        What None means.
    workers : int, optional
        How many there are, where that is not for the CPUs to say; in a task no more of them than CPUs.

    Raises
    ------
    ValueError
        If it is 0.
    """
    if n_jobs is None:
        return default
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 in Parallel has no meaning")
    if n_jobs > 0:
        return n_jobs
    cpus = ACTIVE.get().cpus
    most = workers if workers and not cpus else min(workers or cpu_budget(), cpu_budget())
    return max(most + 1 + n_jobs, 1)


def why_no_processes() -> str | None:
    """Tell why this process must not start worker processes; None if it may.

    A daemonic process (a worker of `multiprocessing.Pool`, say) is refused children by multiprocessing.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.current_process().daemon:
        return "this is a daemonic process, which may not have children"
    return None


def process_n_jobs(n_jobs: int | None, default: int = 1) -> int:
    """Do what `resolve_n_jobs` does, for backends of processes: 1, with a warning, where there can be none."""
    resolved = resolve_n_jobs(n_jobs, default)
    reason = why_no_processes() if resolved > 1 else None
    if reason is not None:
        warn_outside(f"tasks run one after the other instead of on {resolved} workers: {reason}")
        return 1
    return resolved


def explain_processes(start_method: str, why: str) -> dict[str, tuple[Any, str]]:
    """Give what `ParallelBackendBase.explain` says of a backend of processes: how they start, and `why` so."""
    facts: dict[str, tuple[Any, str]] = {"start_method": (start_method, why)}
    reason = why_no_processes()
    if reason is not None:
        facts["n_jobs"] = 1, reason
    return facts


class ParallelBackendBase:
    """Base class of all backends; `submit` and `effective_n_jobs` must be overridden, the rest has defaults.

    Unless said otherwise a method is called by the owner of a call: the caller's thread with ``return_as="list"``, a
    thread of the call's own with generators. `configure`, `terminate` and the constructor are called by the caller.
    """

    #: What n_jobs=None means.
    default_n_jobs: int = 1
    #: True: `submit` gets a callback, and what it is called with goes to `retrieve_result_callback`. False: what
    #: `submit` returned goes to `retrieve_result` once the callback was called.
    supports_retrieve_callback: bool = False
    #: Whether the constructor option `inner_max_num_threads` has an effect.
    supports_inner_max_num_threads: bool = False
    #: Whether tasks see the caller's own objects, so that what they change is changed for the caller.
    supports_sharedmem: bool = False
    #: Whether workers are threads of the caller's process.
    uses_threads: bool = False
    #: How many parallel calls are around this one; None until the core has said.
    nesting_level: int | None = None
    #: Limit of the threads of BLAS and OpenMP in each worker; None for a fair share of the CPUs.
    inner_max_num_threads: int | None = None

    # -- capabilities: declared, never probed ------------------------------------------------------------------------

    #: "bytes": jobs leave this process, so their payload is made before `submit`, and what cannot be pickled is an
    #: error of the call that names the task. "objects": the job is called in this process, or pickled on demand.
    wire: str = "objects"
    #: Whether the workers are on this host.
    same_host: bool = False
    #: Whether the workers are the backend's own. Else what a batch needs to be set in its worker (most threads of
    #: libraries, filters of warnings, levels of loggers) is set back when the batch is over.
    owns_workers: bool = True
    #: Whether the user's settings `serializer` and `compression` apply: for ``wire = "bytes"`` over a network.
    uses_codec: bool = False
    #: Whether `abort_everything` stops tasks that are running, and `kill` those of one worker.
    supports_kill: bool = False
    #: Whether a worker that ended, by `kill` or by itself, is replaced, so that what it had can run again. Else the
    #: loss of a worker ends the call.
    replaces_workers: bool = False
    #: Whether all workers are lost when one is.
    loses_all_workers: bool = False
    #: Whether `Report.started` is called for every future.
    supports_started: bool = False
    #: How many batches one worker may have at a time, the running one included; None leaves it to the core.
    max_in_flight_per_worker: int | None = None
    #: Whether a single worker is left out and the tasks run in the caller. False where workers are somewhere else.
    runs_in_caller_when_single: bool = True

    #: Environment variables that limit the threads of libraries (joblib's list).
    MAX_NUM_THREADS_VARS: ClassVar[tuple[str, ...]] = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
    #: Lets the schedulers of TBB coordinate between processes.
    TBB_ENABLE_IPC_VAR: ClassVar[str] = "ENABLE_IPC"

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **backend_kwargs: Any
    ) -> None:
        self.nesting_level = nesting_level
        self.inner_max_num_threads = inner_max_num_threads
        self.backend_kwargs = backend_kwargs

    # -- what a backend must do --------------------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Tell how many workers `n_jobs` stands for. Must not start anything.

        Parameters
        ----------
        n_jobs : int or None
            What the user gave: positive, or negative for "all but"; None where nothing was given.

        Raises
        ------
        ValueError
            If it is 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must define effective_n_jobs(n_jobs)")

    def submit(self, func: Job, callback: Callable[[Any], None]) -> Any:
        """Send a job to a worker. Must not block.

        Parameters
        ----------
        func : Job
            A callable without arguments, cheap to pickle. Its return value is the outcome, to be brought back
            unchanged; it never raises.
        callback : callable
            To be called exactly once, from any thread, with what `retrieve_result_callback` needs (usually the
            future), when the outcome is there or will never be. It does not block.

        Returns
        -------
        future-like
            Where it has a method ``done()``, the core looks at it when nothing was heard for a while.

        Raises
        ------
        Exception
            Ends the call with a `BackendError`.
        """
        return self.apply_async(func, callback)

    def apply_async(self, func: Job, callback: Callable[[Any], None] | None = None) -> Any:
        """Do what `submit` does, for backends written before joblib had that name."""
        raise NotImplementedError(f"{type(self).__name__} must define submit(func, callback)")

    def retrieve_result_callback(self, future: Any) -> Any:
        """Give the outcome, from what the callback was called with. Must not block: it is there already.

        Raises
        ------
        Exception
            What it raises is the infrastructure's failure, never a task's: those travel inside outcomes. A
            `WorkerLostError` or `BackendError` ends the call as it is, anything else as the cause of a `BackendError`.
        """
        return future.result()

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """Give the outcome, from what `submit` returned; used where `supports_retrieve_callback` is False."""
        return out.get(timeout=timeout)

    # -- what a backend may do ---------------------------------------------------------------------------------------

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **options: Any) -> int:
        """Get ready for a call or a ``with`` block and tell how many workers there are.

        Called once before the first `submit`, and again after `terminate`. May block while workers start.

        Parameters
        ----------
        n_jobs : int
            As given by the user, or what `default_n_jobs` says.
        parallel : Parallel
            The object that makes the call.
        **options
            Keyword arguments of `Parallel` that it does not know itself, where the backend was given as an instance.

        Raises
        ------
        TypeError
            If there are options: this method knows none.
        """
        if options:
            raise TypeError(f"the backend {type(self).__name__} knows no option {', '.join(options)}")
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def terminate(self) -> None:
        """Give back everything that `configure` got. May block until the workers are gone.

        After an abort, where `supports_kill` is False, it is called on a thread of its own and not waited for.
        """

    def start_call(self) -> None:
        """Called at the beginning of each call."""

    def stop_call(self) -> None:
        """Called at the end of each call, also after an error."""

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what is running and forget what is waiting; called when a call fails or its generator is closed.

        Never called after `terminate`. Callbacks of jobs that are stopped may be called or not.

        Parameters
        ----------
        ensure_ready : bool
            True inside a ``with`` block: leave the backend ready for the next `submit`.
        """

    def cancel(self, future: Any) -> None:
        """Drop a job that has not started, if that can be done at once; called for each when a call is aborted."""

    def kill(self, future: Any) -> None:
        """End the worker that runs a job; where `supports_kill` is True.

        A job that waits behind another may wait on, and end its worker when its turn comes. The callbacks of all jobs
        that the worker had are called, and `retrieve_result_callback` raises WorkerLostError for them, with
        ``is_deliberate=True`` for all but the one that was to be ended. Does nothing if the job is done or its worker
        is gone. Called by the owner, or by a thread that acts for it while the owner is in the user's input; may block
        until the worker is gone.
        """
        raise NotImplementedError(f"{type(self).__name__} says supports_kill and must define kill(future)")

    def replace(self, future: Any) -> bool:
        """Put another worker into the place of the one that is stuck with a job and cannot be killed.

        Returns
        -------
        bool
            Whether there is one now; if not, the call goes on with one worker less.
        """
        return False

    def attach(self, report: Report) -> None:
        """Get the object to report to; called after `configure`, before the first `submit` of a call."""

    def explain(self, n_jobs: int) -> Mapping[str, tuple[Any, str]]:
        """Tell what `parallel.explain` is to say of this backend: by name, a value and in a few words the reason.

        Parameters
        ----------
        n_jobs : int
            As for `effective_n_jobs`. Under the name ``"n_jobs"`` the reason, if there is a special one, why that gives
            what it does.
        """
        return {}

    def get_nested_backend(self) -> tuple[str | ParallelBackendBase | None, int | None]:
        """Give the default backend and n_jobs of calls made inside tasks.

        Returns
        -------
        backend : str, ParallelBackendBase or None
            A name, an instance that can be pickled where workers are other processes, or None for what joblib does:
            threads at the first level, sequential below.
        n_jobs : int or None
            None for the backend's default, which is 1.
        """
        return None, None

    def compute_batch_size(self) -> int | None:
        """Give the size of the next batch where ``batch_size="auto"``; None leaves it to the core, which measures."""
        return None

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Called when a batch came back: how many tasks it ran, and how many seconds the worker was busy."""

    # -- helpers for authors -----------------------------------------------------------------------------------------

    def _prepare_worker_env(self, n_jobs: int) -> dict[str, str]:
        """Give the environment variables that limit the threads of libraries in each of `n_jobs` worker processes.

        `inner_max_num_threads` wins, then what the caller's environment says, then a fair share of the CPUs. In a task
        the environment may be what an outer call has set, so there it is the smaller of the two.
        """
        fair_share = max(cpu_budget() // max(n_jobs, 1), 1)
        is_nested = ACTIVE.get().cpus > 0
        env = {}
        for name in self.MAX_NUM_THREADS_VARS:
            if self.inner_max_num_threads is not None:
                env[name] = str(self.inner_max_num_threads)
                continue
            given = os.environ.get(name)
            if given is None or (is_nested and given.isdecimal() and int(given) > fair_share):
                given = str(fair_share)
            env[name] = given
        if self.TBB_ENABLE_IPC_VAR not in os.environ:
            env[self.TBB_ENABLE_IPC_VAR] = "1"
        return env

    @staticmethod
    def in_main_thread() -> bool:
        """Tell whether the calling thread is the main one."""
        return threading.current_thread() is threading.main_thread()

    @property
    def worker_owner(self) -> object:
        """The object that has the workers: backends with the same one compete for the same workers.

        A call from inside a task that runs on these very workers runs in its caller, or it could wait for itself.
        """
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} level {self.nesting_level}>"
