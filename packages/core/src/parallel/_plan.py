"""What a call needs to know, all of it resolved, and the parts of a call that follow from that alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from parallel import errors
from parallel._batching import MAX_BATCH, AdaptiveBatching, BackendBatching, Batching, FixedBatching, SingleBatching
from parallel._board import is_available as board_is_available
from parallel._carrier import CallCarrier
from parallel._codec import Codec
from parallel._context import Captured
from parallel._inner_threads import CallThreads
from parallel._interpreter import process_token
from parallel._limits import NO_LIMITS, Limits
from parallel._memory import CallMemory, Sharing
from parallel._progress import Progress
from parallel._region import Address, Region
from parallel._retry import Retry
from parallel._running import LocalCall
from parallel._serialize import Encoder
from parallel._settings import BUSY
from parallel._sight import BoardSight, Sight, ThreadSight
from parallel._source import Source
from parallel._task import Batch, describe_function
from parallel._terms import Terms
from parallel._worker import CallHeader
from parallel.backend import ParallelBackendBase

__all__ = [
    "WINDOW_BATCHES_PER_WORKER",
    "WINDOW_TASKS",
    "CallPlan",
    "batching_of",
    "busy_mark",
    "carrier_of",
    "limits_of",
    "sight_of",
    "single_of",
]

#: How far a generator works ahead of its consumer: enough for every worker to have one batch running, one waiting and
#: two to be consumed.
WINDOW_BATCHES_PER_WORKER = 4
WINDOW_TASKS = 10_000


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

    @property
    def sharing_used(self) -> Sharing | None:
        """How large data travels apart; None where it does not, because it need not travel or would not arrive."""
        return self.sharing if self.backend.same_host and self.backend.wire == "bytes" else None


class _Header(NamedTuple):
    """What a worker needs to know of a call: made when the first batch is pickled, and in threads not at all."""

    plan: CallPlan
    board: Address | None
    codec: Codec | None

    def pack(self) -> bytes:
        """Make it, and pickle it."""
        plan = self.plan
        backend = plan.backend
        is_near = backend.same_host
        nested, caps = plan.terms
        return CallHeader(
            # Another host has CPUs of its own.
            nested if is_near else nested._replace(cpus=0),
            _stops_on_failure(plan),
            board=self.board,
            sharing=plan.sharing_used,
            codec=self.codec,
            context=plan.context.carried(),
            caps=caps if is_near else None,
            is_own_process=backend.owns_workers,
            caller=process_token(),
            backend=plan.backend_name,
            seed=plan.seed,
        ).pack()


def _stops_on_failure(plan: CallPlan) -> bool:
    return not plan.return_exceptions and plan.retry.attempts == 1


def carrier_of(plan: CallPlan, board: Address | None = None) -> CallCarrier:
    """Make what its jobs share; `board` is where workers note what they run."""
    backend = plan.backend
    sharing = plan.sharing_used
    codec = plan.codec if backend.uses_codec and not plan.codec.is_default else None
    nested, caps = plan.terms
    local = LocalCall.of(
        plan.context,
        nested,
        BUSY.get() | {busy_mark(backend)},
        stop_on_failure=_stops_on_failure(plan),
        threads=CallThreads(caps),
        backend=plan.backend_name,
        seed=plan.seed,
    )
    memory = CallMemory(sharing, plan.temp_folder, plan.spare) if sharing is not None else None
    return CallCarrier(local, Encoder(_Header(plan, board, codec), memory, codec), codec, memory)


def busy_mark(backend: ParallelBackendBase) -> tuple[int, int]:
    """Give what stands for the workers of a backend in `BUSY`."""
    return os.getpid(), id(backend.worker_owner)


def sight_of(plan: CallPlan, depth: int, began_at: float) -> Sight:
    """Make what tells what workers run, which have up to `depth` batches each."""
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


def batching_of(plan: CallPlan, encoder: Encoder) -> Batching:
    """Make the policy for sizes."""
    if plan.batch_size is not None:
        return FixedBatching(plan.batch_size)
    if plan.backend.compute_batch_size() is not None:
        return BackendBatching(plan.backend.compute_batch_size)
    largest = MAX_BATCH if plan.return_as == "list" else max(min(MAX_BATCH, WINDOW_TASKS // (2 * plan.n_jobs)), 1)
    return AdaptiveBatching(plan.n_jobs, largest, lambda: encoder.bytes_per_task)


def single_of(batching: Batching, source: Source, carrier: CallCarrier) -> Batching:
    """Make a policy that sends tasks alone for as long as what they hold may change."""
    memory = carrier.memory
    if memory is None or (source.is_plain and memory.sharing.mode != "c"):
        return batching
    return SingleBatching(batching, memory.must_be_single)


def limits_of(plan: CallPlan) -> Limits:
    """Make the limits, with their errors."""
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
