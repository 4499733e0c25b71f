"""Puts a call together from what `Parallel` has resolved, and runs it to a list or to a generator."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple

from parallel import errors
from parallel._batching import MAX_BATCH, AdaptiveBatching, BackendBatching, Batching, FixedBatching, SingleBatching
from parallel._board import is_available as board_is_available
from parallel._call import Call, Sink
from parallel._carrier import CallCarrier
from parallel._codec import Codec
from parallel._context import Captured
from parallel._experience import HeadStart
from parallel._explain import keep_partial
from parallel._generator import GeneratorSink, OwnedCall
from parallel._inner_threads import CallThreads
from parallel._interpreter import process_token
from parallel._limits import NO_LIMITS, Limits
from parallel._memory import CallMemory, Sharing
from parallel._progress import BatchListener, Progress
from parallel._region import Region
from parallel._results import OrderedResults, UnorderedResults
from parallel._retry import Retry
from parallel._running import LocalCall
from parallel._scheduler import Faults, Scheduler, State, Window
from parallel._serialize import Encoder
from parallel._settings import BUSY
from parallel._sight import BoardSight, Sight, ThreadSight
from parallel._source import Source
from parallel._task import Batch, describe_function
from parallel._terms import Terms
from parallel._worker import CallHeader
from parallel.backend import ParallelBackendBase

__all__ = ["CallPlan", "ListSink", "busy_mark", "make_generator", "run_list"]

#: How far a generator works ahead of its consumer: enough for every worker to have one batch running, one waiting and
#: two to be consumed.
WINDOW_BATCHES_PER_WORKER = 4
WINDOW_TASKS = 10_000

#: Batches that a worker may have at a time where the backend does not say: one runs, one waits.
DEFAULT_DEPTH = 2


class CallPlan(NamedTuple):
    """What a call needs to know, all of it resolved.

    Attributes
    ----------
    parallel
        Whose counters and `print_progress`.
    batch_size, pre_dispatch
        None for "auto" and "all".
    task_seconds, call_seconds
        The limits; None for none.
    sharing
        How large data travels to workers on this host.
    codec
        What payloads to other hosts go through.
    temp_folder
        Where that makes files, if it must.
    terms
        What tasks find on the workers.
    spare
        Memory for results that calls on these workers leave to each other; see `parallel._rooms.Rooms`.
    context
        The caller's, for the tasks.
    seed
        For `current_task`.
    prints
        Whether `print_progress` does anything.
    hook
        The relay of the plugin manager, or None.
    abort
        Stops what runs on the workers.
    """

    parallel: Progress
    backend: ParallelBackendBase
    backend_name: str
    n_jobs: int
    batch_size: int | None
    pre_dispatch: int | None
    return_as: str
    task_seconds: float | None
    call_seconds: float | None
    retry: Retry
    return_exceptions: bool
    sharing: Sharing
    codec: Codec
    temp_folder: str | None
    terms: Terms
    spare: list[Region]
    context: Captured
    seed: Any
    prints: bool
    hook: Any
    abort: Callable[[], bool]

    @property
    def needs_sight(self) -> bool:
        """Whether it matters which task of a batch a worker runs."""
        return self.task_seconds is not None or self.retry.attempts > 1 or self.return_exceptions


#: How many results are kept together, and how many of such pieces: large enough that their memory goes back to the
#: system at once.
_PIECE = 4096
_PIECES = 128


class ListSink:
    """Collects results, which the scheduler delivers in order.

    In tuples: those of plain values are left alone by the garbage collector, which would look through a list of a
    million results again and again while the call goes on. What `take` gives is made while the tuples go, so that there
    is one copy of ten million results in memory, and not two.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[Any, ...]] = []
        self._pieces: list[tuple[Any, ...]] = []
        self._open: list[Any] = []

    def deliver(self, start: int, values: list[Any]) -> None:
        """Take the results of one fragment."""
        self._open += values
        if len(self._open) >= _PIECE:
            self._pieces.append(tuple(self._open))
            self._open = []
            if len(self._pieces) == _PIECES:
                self._blocks.append(tuple(chain.from_iterable(self._pieces)))
                self._pieces = []

    def take(self) -> list[Any]:
        """Give all results, and forget them."""
        rest, self._open = self._open, []
        if not self._pieces and not self._blocks:
            return rest
        results: list[Any] = []
        for parts in (self._blocks, self._pieces):
            parts.reverse()
            while parts:
                results += parts.pop()
        results += rest
        return results


class _Session:
    """The beginning and the end of a call, for the backend and the plugins."""

    def __init__(self, plan: CallPlan, call: Call, info: Any, head_start: HeadStart | None) -> None:
        self._head_start = head_start
        self._plan = plan
        self._call = call
        self._info = info

    def begin(self) -> None:
        self._plan.backend.attach(self._call)
        self._plan.backend.start_call()
        if self._plan.hook is not None:
            self._plan.hook.parallel_call_started(call=self._info)

    def end(self, error: BaseException | None) -> None:
        self._plan.backend.stop_call()
        if self._plan.hook is not None:
            self._plan.hook.parallel_call_finished(call=self._info, error=error)
        parallel, scheduler = self._plan.parallel, self._call.scheduler
        if self._head_start is not None:
            self._head_start.end(scheduler.state)
        if scheduler.state is State.FINISHED and parallel.n_tasks is None:
            parallel.n_tasks = scheduler.n_read  # only now known, for the last line
            if self._plan.prints:
                parallel.print_progress()


def run_list(plan: CallPlan, source: Source) -> list[Any]:
    """Run a call in the calling thread, which is its owner, and give all results in the order of the input."""
    sink = ListSink()
    call, session = _build(plan, source, sink)
    session.begin()
    error: BaseException | None = None
    try:
        call.run()
    except BaseException as raised:
        error = raised
        # From now on the error has them, and nobody else.
        keep_partial(raised, {**dict(enumerate(sink.take())), **call.scheduler.held_results(forget=True)})
        raise
    finally:
        session.end(error)
        error = None  # no cycle between the error, its traceback and this frame
    return sink.take()  # whoever still has the call does not have its results


def make_generator(
    plan: CallPlan, source: Source, release: Callable[[], None], where: tuple[str, int]
) -> tuple[OwnedCall, Generator[Any, None, None]]:
    """Start a call with an owner of its own and give the generator of its results; `where` is its place in the code."""
    sink = GeneratorSink()
    call, session = _build(plan, source, sink)

    def finish(error: BaseException | None) -> None:
        try:
            session.end(error)
        finally:
            release()

    owned = OwnedCall(call, sink, finish, where)
    try:
        session.begin()
    except BaseException:
        release()
        raise
    try:
        return owned, owned.start()
    except BaseException as error:
        if owned.give_up():
            finish(error)
        raise


def _build(plan: CallPlan, source: Source, sink: Sink) -> tuple[Call, _Session]:
    is_list = plan.return_as == "list"
    backend = plan.backend
    began_at = monotonic()
    depth = backend.max_in_flight_per_worker or DEFAULT_DEPTH
    sight = _sight(plan, depth, began_at)
    carrier = _carrier(plan, sight)
    is_blind = plan.task_seconds is not None and not sight.sees_starts
    # Where nobody sees when a task inside a batch begins, the limit of a task has to be that of its batch.
    policy = FixedBatching(1) if is_blind else _batching(plan, is_list, carrier.encoder)
    batching = _single(policy, source, carrier)
    head_start = None
    if isinstance(policy, AdaptiveBatching):
        trust = None if carrier.memory is None or batching.reads_ahead else carrier.memory.trust
        head_start = HeadStart(plan.backend_name, policy, source.total, trust)
        if carrier.memory is None or carrier.memory.sharing.mode != "c":  # else each array has a batch of its own
            source.begin, source.allows = head_start.begin, head_start.allows if trust is not None else None
    scheduler = Scheduler(
        n_jobs=plan.n_jobs,
        batching=batching,
        results=UnorderedResults() if plan.return_as == "generator_unordered" else OrderedResults(),
        pre_dispatch=plan.pre_dispatch,
        depth=1 if is_blind else depth,
        window=None if is_list else Window(WINDOW_BATCHES_PER_WORKER * plan.n_jobs, WINDOW_TASKS),
        total=source.total,
        kind=source.kind,
        function=source.function,
        limits=_limits(plan),
        retry=plan.retry,
        faults=Faults(
            can_kill=backend.supports_kill,
            replaces_workers=backend.replaces_workers,
            loses_all=backend.loses_all_workers,
            sees_starts=sight.sees_starts,
        ),
        return_exceptions=plan.return_exceptions,
        began_at=began_at,
    )
    info = _call_info(plan, source) if plan.hook is not None else None
    call = Call(
        backend=backend,
        backend_name=plan.backend_name,
        scheduler=scheduler,
        source=source,
        carrier=carrier,
        sight=sight,
        sink=sink,
        listener=BatchListener(plan.parallel, scheduler, plan.prints, plan.hook, info),
        abort_backend=plan.abort,
        may_be_closed=not is_list,
    )
    return call, _Session(plan, call, info, head_start)


def _sight(plan: CallPlan, depth: int, began_at: float) -> Sight:
    call_until = began_at + plan.call_seconds if plan.call_seconds is not None else None
    backend = plan.backend
    if plan.needs_sight and backend.uses_threads:
        return ThreadSight(plan.task_seconds, call_until, monotonic)
    if plan.needs_sight and backend.same_host and backend.wire == "bytes" and board_is_available():
        # A slot for each batch in flight, and for those whose workers are stuck for good.
        n_slots = plan.n_jobs * (depth + 1)
        with contextlib.suppress(OSError):  # no memory or descriptor left: go without
            return BoardSight(plan.task_seconds, call_until, monotonic, n_slots)
    return Sight(plan.task_seconds, call_until, monotonic)


def _carrier(plan: CallPlan, sight: Sight) -> CallCarrier:
    stop_on_failure = not plan.return_exceptions and plan.retry.attempts == 1
    backend = plan.backend
    is_near = backend.same_host
    sharing = plan.sharing if is_near and backend.wire == "bytes" else None
    codec = plan.codec if backend.uses_codec and not plan.codec.is_default else None
    nested, caps = plan.terms
    header = CallHeader(
        # Another host has CPUs of its own.
        nested if is_near else nested._replace(cpus=0),
        stop_on_failure,
        board=sight.address,
        sharing=sharing,
        codec=codec,
        context=plan.context,
        caps=caps if is_near else None,
        is_own_process=backend.owns_workers,
        caller=process_token(),
        backend=plan.backend_name,
        seed=plan.seed,
    )
    local = LocalCall.of(
        plan.context,
        nested,
        BUSY.get() | {busy_mark(backend)},
        stop_on_failure=stop_on_failure,
        threads=CallThreads(caps),
        backend=plan.backend_name,
        seed=plan.seed,
    )
    memory = CallMemory(sharing, plan.temp_folder, plan.spare) if sharing is not None else None
    return CallCarrier(local, Encoder(header, memory, codec), codec, memory)


def busy_mark(backend: ParallelBackendBase) -> tuple[int, int]:
    """Give what stands for the workers of a backend in `BUSY`."""
    return os.getpid(), id(backend.worker_owner)


def _batching(plan: CallPlan, is_list: bool, encoder: Encoder) -> Batching:
    if plan.batch_size is not None:
        return FixedBatching(plan.batch_size)
    if plan.backend.compute_batch_size() is not None:
        return BackendBatching(plan.backend.compute_batch_size)
    largest = MAX_BATCH if is_list else max(min(MAX_BATCH, WINDOW_TASKS // (2 * plan.n_jobs)), 1)
    return AdaptiveBatching(plan.n_jobs, largest, lambda: encoder.bytes_per_task)


def _single(batching: Batching, source: Source, carrier: CallCarrier) -> Batching:
    memory = carrier.memory
    if memory is None or (source.is_plain and memory.sharing.mode != "c"):
        return batching
    return SingleBatching(batching, memory.must_be_single)


def _call_info(plan: CallPlan, source: Source) -> Any:
    from parallel.hookspecs import CallInfo  # pluggy is 12 ms, and only plugins need it

    return CallInfo(
        call_id=id(plan), backend=plan.backend_name, n_jobs=plan.n_jobs, n_tasks=source.total, return_as=plan.return_as
    )


def _limits(plan: CallPlan) -> Limits:
    if plan.task_seconds is None and plan.call_seconds is None:
        return NO_LIMITS

    def task_error(batch: Batch, position: int, ran_seconds: float) -> BaseException:
        function = describe_function(batch.call_at(position)[0])
        index = batch.start + position
        return errors.TaskTimeoutError(
            f"task {index} ({function}) on the backend {plan.backend_name!r} passed its limit of "
            f"{plan.task_seconds:g} s: it had run for {ran_seconds:.3f} s",
            task_index=index,
            function=function,
            backend=plan.backend_name,
            limit_seconds=plan.task_seconds,
            ran_seconds=ran_seconds,
        )

    def call_error(ran_seconds: float) -> BaseException:
        return errors.CallTimeoutError(
            f"the call on the backend {plan.backend_name!r} passed its limit of {plan.call_seconds:g} s: it had run "
            f"for {ran_seconds:.3f} s",
            backend=plan.backend_name,
            limit_seconds=plan.call_seconds,
            ran_seconds=ran_seconds,
        )

    return Limits(plan.task_seconds, plan.call_seconds, task_error, call_error)
