"""What travels: batches out, outcomes back.

These classes are made for every batch, so they are slotted and plain. The tasks inside a batch are never wrapped:
they stay the tuples, or the bare items, that the input gave.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Batch", "Carrier", "Failure", "Job", "Kind", "Outcome", "describe_function"]

#: What a byte takes on its way through a pipe and the buffers at its ends, in seconds.
SECONDS_PER_BYTE = 1e-9


class Kind(enum.IntEnum):
    """The form in which the tasks of a batch are kept."""

    #: ``(function, args, kwargs)`` each, as `delayed` makes them.
    CALLS = 0
    #: One argument each, for the batch's function (`Parallel.map` with one iterable).
    ITEMS = 1
    #: A tuple of arguments each, for the batch's function (`Parallel.starmap`).
    ARGS = 2


class Batch:
    """Tasks sent together: neighbours in the input, run one after the other by one worker.

    Parameters
    ----------
    batch_id
        Unique within the call.
    start
        Index in the input of the first task; the others follow without a gap.
    tasks
        The tasks, in the form that `kind` says.
    kind, function
        The form, and the function where the form needs one.
    lane
        The worker, 0 to n_jobs-1, that the scheduler gave it to.
    budget_seconds
        After this long the worker stops after the current task and returns what it has; None for no budget.
    attempts
        Attempts that have failed, by index, of those of its tasks that have any.
    """

    __slots__ = ("attempts", "batch_id", "budget_seconds", "function", "kind", "lane", "start", "tasks")

    def __init__(
        self,
        batch_id: int,
        start: int,
        tasks: Sequence[Any],
        kind: Kind = Kind.CALLS,
        function: Callable[..., Any] | None = None,
        lane: int = 0,
        budget_seconds: float | None = None,
        attempts: Mapping[int, int] | None = None,
    ) -> None:
        self.attempts = attempts
        self.batch_id = batch_id
        self.start = start
        self.tasks = tasks
        self.kind = kind
        self.function = function
        self.lane = lane
        self.budget_seconds = budget_seconds

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def stop(self) -> int:
        """The index behind the last task."""
        return self.start + len(self.tasks)

    @property
    def indices(self) -> range:
        """Those of its tasks in the input."""
        return range(self.start, self.stop)

    def call_at(self, position: int) -> tuple[Callable[..., Any] | None, Sequence[Any], dict[str, Any]]:
        """Give the task at `position` as (function, args, kwargs), whatever form it is kept in."""
        task = self.tasks[position]
        if self.kind is Kind.CALLS:
            function, args, kwargs = task
            return function, args, kwargs
        if self.kind is Kind.ITEMS:
            return self.function, (task,), {}
        return self.function, task, {}

    def __repr__(self) -> str:
        return f"<Batch {self.batch_id} tasks {self.start}..{self.stop - 1} lane {self.lane}>"


class Failure:
    """What went wrong with one task.

    Attributes
    ----------
    exception
        The task's own exception, or one of `parallel.errors`.
    traceback_text
        The traceback in the worker, where that was another process; else None, and the exception has its own.
    worker
        Name of the process or thread, for the note.
    """

    __slots__ = ("exception", "traceback_text", "worker")

    def __init__(self, exception: BaseException, traceback_text: str | None = None, worker: str = "") -> None:
        self.exception = exception
        self.traceback_text = traceback_text
        self.worker = worker

    def __repr__(self) -> str:
        return f"<Failure {self.exception!r} on {self.worker}>"


class Outcome:
    """What a batch brought back.

    Attributes
    ----------
    values
        Results of the first ``len(values)`` tasks, in order; fewer than were sent when the batch was cut short.
    failures
        Position within the batch to failure; the value at that position means nothing.
    seconds
        How long the worker was busy with them.
    handling_seconds
        What pickling and transport took besides.
    is_blind
        The worker could not find the board on which it should note what it runs, and has run nothing.
    is_out_of_reach
        The same, but what it could not find is something that the caller shares.
    unclear
        A failure that is due to one of the tasks, nobody can tell which: the batch could not be unpickled in the
        worker, or its results in the caller. There are no values then.
    """

    __slots__ = ("failures", "handling_seconds", "is_blind", "is_out_of_reach", "seconds", "unclear", "values")

    def __init__(
        self,
        values: list[Any],
        failures: dict[int, Failure],
        seconds: float,
        is_blind: bool = False,
        unclear: Failure | None = None,
        is_out_of_reach: bool = False,
        handling_seconds: float = 0.0,
    ) -> None:
        self.values = values
        self.failures = failures
        self.seconds = seconds
        self.is_blind = is_blind
        self.unclear = unclear
        self.is_out_of_reach = is_out_of_reach
        self.handling_seconds = handling_seconds

    def __repr__(self) -> str:
        return f"<Outcome {len(self.values)} tasks, {len(self.failures)} failed, {self.seconds:.6f} s>"


class Carrier(Protocol):
    """What a job needs of its call: one object for all jobs of a call."""

    def run(self, job: Job) -> Outcome:
        """Run the job here, on the original objects."""

    def encode(self, batch: Batch, slot: int | None) -> bytes:
        """Turn the batch into bytes.

        Raises
        ------
        TaskPicklingError
            If one of the tasks cannot be pickled.
        """

    def encode_or_excuse(self, batch: Batch, slot: int | None) -> bytes:
        """Like `encode`, but where that fails give bytes whose outcome is the error. Does not raise."""

    @property
    def remote(self) -> Callable[[bytes], Callable[[], bytes]]:
        """The importable callable that makes a job out of its payload in another process."""


class Job:
    """A batch made ready to travel: a callable without arguments that runs it and gives the outcome.

    Called in the process that made it, it runs the original task objects and returns an `Outcome`. Pickled, it is its
    `payload`; what is unpickled on the other side is a callable too, which returns the outcome as bytes.
    Hand either to `ParallelBackendBase.retrieve_result_callback`'s caller as it is.
    """

    __slots__ = (
        "_payload",
        "batch",
        "cancelled",
        "carrier",
        "note",
        "sending_seconds",
        "slot",
        "submitted_at",
        "values",
    )

    def __init__(self, batch: Batch, carrier: Carrier) -> None:
        self.batch = batch
        self.carrier = carrier
        #: Number of the slot on the call's board where a worker process notes what it runs; None without a board.
        self.slot: int | None = None
        #: The same for a batch that runs in this process: a slot of its own, or None; and the results so far.
        self.note: Any = None
        self.submitted_at = 0.0
        #: What pickling took before the submission, and what the bytes take on their way.
        self.sending_seconds = 0.0
        self.values: list[Any] = []
        #: Set by the call when nobody wants the rest any more; looked at before each task run in this process.
        self.cancelled = False
        self._payload: bytes | None = None

    @property
    def worker(self) -> int:
        """The worker, 0 to n_jobs-1, that the scheduler gave the batch to."""
        return self.batch.lane

    @property
    def payload(self) -> bytes:
        """The batch as bytes, made at the first use; `parallel.backend.run_payload` runs it.

        Raises
        ------
        TaskPicklingError
            If one of the tasks cannot be pickled.
        """
        if self._payload is None:
            self._payload = self.carrier.encode(self.batch, self.slot)
        return self._payload

    def make_payload(self, clock: Callable[[], float]) -> None:
        """Make the payload, and note how long that took; see `payload`."""
        began = clock()
        n_bytes = len(self.payload)
        self.sending_seconds = clock() - began + n_bytes * SECONDS_PER_BYTE

    def __call__(self) -> Outcome:
        return self.carrier.run(self)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        # Never raises: executors pickle in threads of their own, where an error would break the pool or get lost.
        payload = self._payload
        if payload is None:
            payload = self._payload = self.carrier.encode_or_excuse(self.batch, self.slot)
        return self.carrier.remote, (payload,)

    def __repr__(self) -> str:
        return f"<Job of {self.batch!r}>"


def describe_function(function: object) -> str:
    """Name a function for a message: its qualified name, or its type where it has none."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        inner = getattr(function, "func", None)  # functools.partial
        name = f"partial({describe_function(inner)})" if inner is not None else type(function).__qualname__
    return str(name)
