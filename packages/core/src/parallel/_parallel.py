"""`Parallel`: check arguments, choose a backend, start a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from parallel import _explanation as explanation
from parallel import _plugins
from parallel._arguments import check_function, evaluate_pre_dispatch
from parallel._codec import Codec
from parallel._config import asked_n_jobs, checked, resolve, resolve_backend, resolve_n_jobs
from parallel._context import capture
from parallel._delayed import Task
from parallel._generator import OwnedCall
from parallel._inline import InlineCalls, InlinePolicy
from parallel._inner_threads import look
from parallel._interpreter import is_exiting, place_outside
from parallel._lease import Lease, checked_n_jobs
from parallel._memory import NO_SHARING, Sharing
from parallel._plan import CallPlan, busy_mark
from parallel._progress import Meter
from parallel._retry import Retry
from parallel._settings import BUSY, UNSET, Unset
from parallel._setup import make_generator, run_list
from parallel._share import make_shared
from parallel._shared import Shared
from parallel._source import Source
from parallel._terms import terms_of
from parallel.backend import ParallelBackendBase

__all__ = ["Parallel", "effective_n_jobs", "explain"]


def effective_n_jobs(n_jobs: int | None = -1) -> int:
    """Tell how many workers a call would have with this `n_jobs`, here and with the settings in force.

    Parameters
    ----------
    n_jobs : int or None, default -1
        As for `Parallel`; None takes the context's.
    """
    chosen = resolve_backend(None, resolve("prefer", UNSET), resolve("require", UNSET), {}, None)
    return chosen.backend.effective_n_jobs(resolve_n_jobs(n_jobs, chosen.backend))


def explain(*args: Any, **settings: Any) -> explanation.Explanation:
    """Tell what a call with these settings would do, here and now, and why: which backend, how many workers, and so on.

    ::

        print(parallel.explain(n_jobs=-1))

    Parameters
    ----------
    *args, **settings
        As for `Parallel`.

    Raises
    ------
    ValueError
        As for `Parallel`.
    """
    return Parallel(*args, **settings).explain()


class Parallel:
    """Runs functions side by side and gives their results.

    ::

        from math import sqrt
        from parallel import Parallel, delayed

        Parallel(n_jobs=2)(delayed(sqrt)(i**2) for i in range(10))
        Parallel(n_jobs=2).map(sqrt, range(10))

    What is not given is taken from `parallel_config`, else it has the default below.

    Parameters
    ----------
    n_jobs : int, optional
        Number of workers; -1 for one per CPU, -2 for one less, and so on. None: what `parallel_config` says, else the
        environment's ``PARALLEL_N_JOBS``, else 1.
        With 1, tasks run in the caller, without any worker.
    backend : str, ParallelBackendBase or multiprocessing context, optional
        Where tasks run. None: what `parallel_config` says, else the environment's ``PARALLEL_BACKEND``, else loky if
        installed, else mp, else threads.
    return_as : {"list", "generator", "generator_unordered"}, default "list"
        A list of all results; or a generator that gives them in the order of the input, or as they come. A generator
        starts at once and works ahead of its consumer: by at most 4 x n_jobs batches and 10,000 tasks.
    verbose : int, default 0
        0: silent. Up to 10: a progress line now and then; above: one for every batch. From 50 on to stdout.
    timeout : float, optional
        Limit of one task, in seconds, from the moment a worker starts it. When it passes, the call raises
        `parallel.errors.TaskTimeoutError`, which is both `multiprocessing.TimeoutError` and the builtin `TimeoutError`,
        and what runs is killed where the backend can. Where the workers are on other hosts, or in an executor of
        unknown kind, the limit counts from the submission of a task to a free worker.
    pre_dispatch : int or str, default "2 * n_jobs"
        Most batches that are sent, or read from the input, ahead of those that are done: a number, arithmetic in
        ``n_jobs``, or "all" to read the whole input first.
    batch_size : int or "auto", default "auto"
        How many tasks are sent together. "auto" measures, and sends just enough to make dispatch cheap.
    temp_folder : str, optional
        Where to make files for large data, on systems without anonymous shared memory. None: the environment's
        ``PARALLEL_TEMP_FOLDER``, else the system's folder.
    max_nbytes : int or str, default "1M"
        Buffers (of arrays, data frames, bytes) of at least so many bytes are shared with worker processes of this host,
        and not sent; "64K", "1M" and "2G" mean powers of 1,024. None: all are sent, but for
        `numpy.memmap`, which always travels by the name of its file.
    mmap_mode : {"r", "c", "r+", "w+", None}, default "r"
        What tasks may do with buffers that are shared: read them; change them for themselves; change them for all
        tasks ("r+" and "w+"), though not for the caller. None: arguments are sent; results still are shared.
    prefer : {"processes", "threads"}, optional
        A hint for the default backend.
    require : {"sharedmem"}, optional
        Only a backend whose tasks see the caller's own objects will do.
    total_timeout : float, optional
        Limit of the whole call, in seconds. When it passes, the call raises `parallel.errors.CallTimeoutError`, which
        is both of these too.
    retries : int or Retry, default 0
        How often a task that failed, passed its limit or lost its worker runs again.
    return_exceptions : bool, default False
        True: the exception of a task that failed takes the place of its result, and all others run. False: the first
        failure ends the call, at once; with "list" the exception has an attribute `partial_results`, a dict of index
        to result of all that had arrived.
    serializer : "cloudpickle", "pickle" or object, default "cloudpickle"
        Makes the bytes that travel to workers on other hosts; an object has `dumps` and `loads`, and is itself sent by
        cloudpickle. Backends whose workers are on this host do not use it, nor the next two.
    compression : {"zlib", "lz4", "zstd", None}, default None
        Makes these bytes fewer; lz4 and zstd need the extras ``parallel-core[lz4]`` and ``parallel-core[zstd]``.
    compression_threshold : int or str, default "64K"
        Fewest bytes that are compressed.
    propagate : bool or collection of {"contextvars", "warnings", "logging", "plugins"}, default True
        What of the caller's context tasks find on their workers: context variables, filters of warnings, levels of
        loggers, what plugins capture. Warnings and log records of tasks come back with the second and third.
    seed : int, sequence of int or numpy.random.SeedSequence, optional
        For ``parallel.current_task().rng()`` inside tasks: with it their random numbers are the same for any n_jobs.
    **backend_options
        Options of the backend: for its constructor if it was given by name, else for its `configure`.

    Raises
    ------
    ValueError
        If an argument is out of range, or arguments contradict each other.
    """

    n_completed_tasks = 0
    n_dispatched_tasks = 0
    n_dispatched_batches = 0
    n_tasks: int | None = None

    def __init__(
        self,
        n_jobs: int | None = None,
        backend: Any = None,
        return_as: str | Unset = UNSET,
        verbose: Any = UNSET,
        timeout: float | None | Unset = UNSET,
        pre_dispatch: int | str | Unset = UNSET,
        batch_size: int | str | Unset = UNSET,
        temp_folder: Any = UNSET,
        max_nbytes: Any = UNSET,
        mmap_mode: Any = UNSET,
        prefer: Any = UNSET,
        require: Any = UNSET,
        *,
        total_timeout: float | None | Unset = UNSET,
        retries: int | Retry | Unset = UNSET,
        return_exceptions: bool | Unset = UNSET,
        serializer: Any = UNSET,
        compression: str | None | Unset = UNSET,
        compression_threshold: int | str | Unset = UNSET,
        propagate: Any = UNSET,
        seed: Any = UNSET,
        **backend_options: Any,
    ) -> None:
        self._origin = explanation.Origin(locals())
        self.return_as: str = checked("return_as", return_as)
        self.verbose: int = checked("verbose", verbose)
        self.timeout: float | None = checked("timeout", timeout)
        self.total_timeout: float | None = checked("total_timeout", total_timeout)
        self.retries: Retry = checked("retries", retries)
        self.return_exceptions: bool = checked("return_exceptions", return_exceptions)
        self.pre_dispatch = pre_dispatch = resolve("pre_dispatch", pre_dispatch)
        self.batch_size = resolve("batch_size", batch_size)
        self._fixed_batch_size: int | None = checked("batch_size", batch_size)
        self.temp_folder: str | None = checked("temp_folder", temp_folder)
        self.max_nbytes = resolve("max_nbytes", max_nbytes)
        self.mmap_mode = resolve("mmap_mode", mmap_mode)
        self._share_from: int | None = checked("max_nbytes", max_nbytes)
        self._share_mode: str | None = checked("mmap_mode", mmap_mode)
        self._sharing = Sharing(self._share_from, self._share_mode) if self._share_from is not None else NO_SHARING
        self._codec = Codec(
            checked("serializer", serializer),
            checked("compression", compression),
            checked("compression_threshold", compression_threshold),
        )
        self.propagate = resolve("propagate", propagate)
        self._propagate: frozenset[str] = checked("propagate", propagate)
        self.seed = checked("seed", seed)
        self.prefer = resolve("prefer", prefer)
        self.require = resolve("require", require)
        inner = backend_options.pop("inner_max_num_threads", UNSET)
        self._chosen = resolve_backend(backend, self.prefer, self.require, backend_options, inner)
        self._backend: ParallelBackendBase = self._chosen.backend
        self._backend_kwargs = self._chosen.configure_options
        self.n_jobs = resolve_n_jobs(n_jobs, self._backend)
        self._asked_for_one = asked_n_jobs(n_jobs) == 1
        self._workers = checked_n_jobs(self._backend.effective_n_jobs(self.n_jobs), self._backend, "effective_n_jobs")
        # Refused here, where the user wrote it, and not in the middle of a call.
        evaluate_pre_dispatch(pre_dispatch, max(self._workers, 2) if "n_jobs" in str(pre_dispatch) else 1)
        # Guards the two below; held while workers start, so that who comes second waits for them.
        self._blocks_lock = threading.Lock()
        self._n_blocks = 0
        self._managed_lease: Lease | None = None
        self._generator_call: OwnedCall | None = None
        self._inline = InlineCalls(self)
        self._meter = Meter(0, repr(self))

    # -- the three ways to call --------------------------------------------------------------------------------------

    def __call__(self, iterable: Iterable[Task]) -> Any:
        """Run tasks.

        Parameters
        ----------
        iterable : iterable of (function, args, kwargs)
            The tasks, as `delayed` makes them; read lazily.

        Returns
        -------
        list or generator
            The results, as `return_as` says.

        Raises
        ------
        Exception
            The first failure of a task, as itself; what the iterable raises; or one of `parallel.errors`.
        TypeError
            If the iterable gives something that is no task.
        """
        return self._run(Source.of_calls(iterable))

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Any:
        """Call `function` with an item of each iterable, as the builtin `map` does; see `__call__`."""
        if not iterables:
            raise TypeError("map needs at least one iterable")
        return self._run(Source.of_map(check_function(function), iterables))

    def starmap(self, function: Callable[..., Any], iterable: Iterable[Iterable[Any]]) -> Any:
        """Call `function` with each item of `iterable` as its arguments; see `__call__`."""
        return self._run(Source.of_starmap(check_function(function), iterable))

    def share(self, value: object) -> Shared:
        """Write an object once, for tasks of several calls; see `Shared`.

        ::

            with parallel.share(table) as shared:
                parallel(delayed(search)(shared, word) for word in words)

        Parameters
        ----------
        value : object
            Anything that can be pickled. It must not be changed afterwards: tasks would go on to see what it was, or,
            where they run in threads, would see the change.

        Returns
        -------
        Shared
            Give it to tasks of this object's calls, or of others.

        Raises
        ------
        Exception
            Whatever the pickling of the object raises.
        """
        backend = self._backend
        is_mapped = backend.same_host and backend.wire == "bytes" and not self._runs_in_caller(self._workers)
        return make_shared(value, self._share_from, self._share_mode, self.temp_folder, is_mapped=is_mapped)

    def explain(self) -> explanation.Explanation:
        """Tell what a call made here and now would do, and why: which backend, how many workers, and so on.

        ::

            print(Parallel(n_jobs=-1).explain())

        Starts nothing.
        """
        values = {name: getattr(self, name) for name in explanation.SHOWN_SETTINGS}
        asked = asked_n_jobs(self._origin.n_jobs)
        return explanation.explain_facts(
            explanation.Facts(
                self._chosen, asked, self.n_jobs, self._workers, values, self._origin, self._why_in_caller()
            )
        )

    # -- the with block ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Get the workers, for all calls of the block. Blocks may nest, and be entered by several threads."""
        with self._blocks_lock:
            if self._n_blocks == 0 and not self._runs_in_caller(self._workers) and not is_exiting():
                self._managed_lease = self._lease(is_block=True)
            self._n_blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the workers back; a generator that is still running is closed."""
        with self._blocks_lock:
            self._n_blocks -= 1
            if self._n_blocks:
                return
            running = self._generator_call
            if running is not None and not running.is_over:
                running.close_with_block()
                running.wait()
            lease, self._managed_lease = self._managed_lease, None
        if lease is not None:
            lease.release()

    # -- progress ----------------------------------------------------------------------------------------------------

    def print_progress(self) -> None:
        """Print a progress line if one is due; called after every batch. Override it to drive a progress bar.

        Called by the owner of the call. `n_completed_tasks`, `n_dispatched_tasks` and `n_tasks` (None where the input
        has no length) tell how far it is.
        """
        total = self.n_tasks
        is_over = total is not None and self.n_completed_tasks >= total
        self._meter.update(self.n_completed_tasks, total, is_over)

    def _print(self, text: str) -> None:
        self._meter.print(text)

    # -- how a call starts -------------------------------------------------------------------------------------------

    def _run(self, source: Source) -> Any:
        if self._generator_call is not None or self._inline.is_generating:
            self._wait_for_generator()
        self.n_completed_tasks = self.n_dispatched_tasks = self.n_dispatched_batches = 0
        self.n_tasks = source.total
        is_overridden = type(self).print_progress is not Parallel.print_progress or "print_progress" in vars(self)
        prints = self.verbose > 0 or is_overridden
        why_here = self._why_in_caller()
        if prints:
            self._meter = Meter(self.verbose, repr(self))
            backend_name = "SequentialBackend" if why_here else type(self._backend).__name__
            self._meter.begin(backend_name, 1 if why_here else self._workers)
        if why_here:
            explanation.warn_of_caller(why_here, self._chosen, self.n_jobs, self._workers)
            return self._run_here(source, prints)
        lease = self._lease()  # also inside a block, which holds one of its own
        try:
            plan = self._plan(source, lease, prints)
        except BaseException:
            lease.release()
            raise
        if self.return_as == "list":
            try:
                return run_list(plan, source)
            except BaseException:
                lease.is_failed = True
                raise
            finally:
                lease.release()
        self._generator_call, results = make_generator(plan, source, lease.release, place_outside())
        return results

    def _plan(self, source: Source, lease: Lease, prints: bool) -> CallPlan:
        pre_dispatch = evaluate_pre_dispatch(self.pre_dispatch, lease.n_jobs)
        hook = _plugins.hooks()
        return CallPlan(
            parallel=self,
            backend=self._backend,
            backend_name=self._chosen.name,
            n_jobs=lease.n_jobs,
            batch_size=self._fixed_batch_size,
            pre_dispatch=pre_dispatch,
            return_as=self.return_as,
            task_seconds=self.timeout,
            call_seconds=self.total_timeout,
            retry=self.retries,
            return_exceptions=self.return_exceptions,
            sharing=self._sharing,
            codec=self._codec,
            temp_folder=self.temp_folder,
            terms=lease.terms(lambda: terms_of(self._backend, lease.n_jobs)),
            spare=lease.spare,
            context=capture(self._propagate, hook, is_local=self._backend.uses_threads),
            seed=self.seed,
            prints=prints,
            hook=hook,
            abort=lease.abort,
        )

    def _runs_in_caller(self, workers: int) -> bool:
        """Tell whether one worker is best left out; not with a limit set, which needs somebody to watch."""
        if workers != 1:
            return False
        backend = self._backend
        may = backend.runs_in_caller_when_single or self._asked_for_one
        is_sequential = self._chosen.name == _plugins.BUILT_IN
        is_limited = self.timeout is not None or self.total_timeout is not None or self.retries.backoff_seconds > 0
        return may and (is_sequential or not is_limited)

    def _why_in_caller(self) -> explanation.InCaller | None:
        """Tell why a call made now would run in its caller, without workers; None if it would not."""
        if self._managed_lease is None:
            if self._runs_in_caller(self._workers):
                return explanation.InCaller.SINGLE
            if is_exiting():
                return explanation.InCaller.EXITING
        is_inside = (busy := BUSY.get()) and busy_mark(self._backend) in busy
        return explanation.InCaller.OWN_WORKERS if is_inside else None

    def _lease(self, is_block: bool = False) -> Lease:
        return Lease(self._backend, self._configure, is_block=is_block)

    def _configure(self) -> int:
        if self._backend.same_host:
            look()  # before a fork, which then need not
        return self._backend.configure(n_jobs=self.n_jobs, parallel=self, **self._backend_kwargs)

    def _wait_for_generator(self) -> None:
        """Wait for a generator that is being closed; one that is in use is an error."""
        running = self._generator_call
        if self._inline.is_generating or (running is not None and not running.is_over and not running.is_closing):
            raise RuntimeError(
                "this Parallel object is still running the generator of an earlier call; consume or close it first, "
                "or use another Parallel object"
            )
        if running is not None:
            running.wait()
            self._generator_call = None

    def _run_here(self, source: Source, prints: bool) -> Any:
        policy = InlinePolicy(self.timeout, self.total_timeout, self.retries, self.return_exceptions, self.seed)
        run = self._inline.run_list if self.return_as == "list" else self._inline.generate
        return run(source, policy, prints)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_jobs={getattr(self, 'n_jobs', None)})"
