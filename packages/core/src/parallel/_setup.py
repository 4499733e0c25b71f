"""Puts a call together from what `Parallel` has resolved, and runs it to a list or to a generator."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import chain
from time import monotonic
from typing import Any

from parallel._batching import AdaptiveBatching, FixedBatching
from parallel._call import Call
from parallel._experience import HeadStart
from parallel._explain import keep_partial
from parallel._generator import GeneratorSink, OwnedCall
from parallel._outlets import Sink
from parallel._plan import (
    WINDOW_BATCHES_PER_WORKER,
    WINDOW_TASKS,
    CallPlan,
    batching_of,
    carrier_of,
    limits_of,
    sight_of,
    single_of,
)
from parallel._progress import BatchListener
from parallel._results import OrderedResults, UnorderedResults
from parallel._scheduler import Faults, Scheduler, State, Window
from parallel._short import ShortCall, begin_short
from parallel._source import Source

__all__ = ["ListSink", "make_generator", "run_list"]

#: Batches that a worker may have at a time where the backend does not say: one runs, one waits.
DEFAULT_DEPTH = 2

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
    short: ShortCall | None = None
    try:
        short = begin_short(plan, source)
        results = short.run() if short is not None else None
        return results if results is not None else _run_with_scheduler(plan, source, short)
    except BaseException as raised:
        if short is not None:
            short.give_up(raised)
        raise
    finally:
        if short is not None:
            short.close()


def _run_with_scheduler(plan: CallPlan, source: Source, short: ShortCall | None) -> list[Any]:
    sink = ListSink()
    call, session = _build(plan, source, sink, short)
    if short is None:
        session.begin()
    error: BaseException | None = None
    try:
        call.run(short.take_over if short is not None else None)
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


def _build(plan: CallPlan, source: Source, sink: Sink, short: ShortCall | None = None) -> tuple[Call, _Session]:
    is_list = plan.return_as == "list"
    backend = plan.backend
    began_at = monotonic()
    depth = backend.max_in_flight_per_worker or DEFAULT_DEPTH
    sight = sight_of(plan, depth, began_at)
    carrier = carrier_of(plan, sight.address) if short is None else short.carrier
    is_blind = plan.task_seconds is not None and not sight.sees_starts
    # Where nobody sees when a task inside a batch begins, the limit of a task has to be that of its batch.
    policy = FixedBatching(1) if is_blind else batching_of(plan, carrier.encoder)
    batching = single_of(policy, source, carrier)
    head_start = None
    if isinstance(policy, AdaptiveBatching):
        trust = None if carrier.memory is None or batching.reads_ahead else carrier.memory.trust
        head_start = HeadStart(plan.backend_name, policy, source.total, trust)
        if short is not None:
            head_start.note(short.key)
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
        limits=limits_of(plan),
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
        inbox=short.inbox if short is not None else None,
    )
    return call, _Session(plan, call, info, head_start)


def _call_info(plan: CallPlan, source: Source) -> Any:
    from parallel.hookspecs import CallInfo  # pluggy is 12 ms, and only plugins need it

    return CallInfo(
        call_id=id(plan), backend=plan.backend_name, n_jobs=plan.n_jobs, n_tasks=source.total, return_as=plan.return_as
    )
