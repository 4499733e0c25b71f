"""What runs on the worker's side of the wire, and in the worker threads of the caller's own process.

Nothing here raises: whatever a task does, or fails to be unpickled, ends up inside the outcome.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from time import monotonic
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple, Protocol

from parallel import _serialize
from parallel._board import BATCH, POSITION, PROCESS, STARTED, Slot, open_slot
from parallel._codec import Codec
from parallel._imports import OutOfReachError, unpack
from parallel._memory import Sharing
from parallel._parcel import Packed
from parallel._region import Address
from parallel._rooms import ResultParcel
from parallel._settings import ACTIVE, BUSY, Settings
from parallel._shared import is_any_known, n_attached, unwrapped
from parallel._task import Failure, Job, Kind, Outcome, describe_function
from parallel.errors import TaskPicklingError

__all__ = ["CallHeader", "RemoteJob", "run_job", "run_payload"]


class CallHeader(NamedTuple):
    """What a worker needs to know for every batch of a call."""

    #: For calls made inside tasks.
    nested: Settings
    #: Whether the first failure of a task ends its batch (and the call).
    stop_on_failure: bool
    #: Where to note what runs; None where nobody will look.
    board: Address | None = None
    #: How large data travels; None for in the pipe.
    sharing: Sharing | None = None
    #: What payloads and outcomes go through; None where they stay on this host.
    codec: Codec | None = None
    #: What is busy with the tasks; see `parallel._settings.BUSY`.
    busy: frozenset[tuple[int, int]] = frozenset()


class _Cancellable(Protocol):
    @property
    def cancelled(self) -> bool: ...


class _NeverCancelled:
    cancelled = False


_NEVER = _NeverCancelled()


class _Run(NamedTuple):
    """How to run the tasks of one batch."""

    stop_on_failure: bool
    budget_seconds: float | None
    cancellable: _Cancellable
    fail: Callable[[BaseException], Failure]
    batch_id: int
    #: Where to note what runs, or None.
    slot: Slot | None
    #: Where the results go.
    values: list[Any]

    def begin(self) -> float:
        """Note that the batch was begun, give the time."""
        slot = self.slot
        if slot is not None:
            slot[STARTED] = math.inf
            slot[POSITION] = 0
            slot[PROCESS] = os.getpid()
            slot[BATCH] = self.batch_id  # last: what is read with this number is whole
        return monotonic()

    def end(self, began: float, failures: dict[int, Failure]) -> Outcome:
        """Note that no task runs any more, and give the outcome."""
        if self.slot is not None:
            self.slot[STARTED] = math.inf
        return Outcome(self.values, failures, monotonic() - began)


def run_job(job: Job, header: CallHeader) -> Outcome:
    """Run a job in this process, on the original objects of its tasks."""
    batch = job.batch
    run = _Run(header.stop_on_failure, batch.budget_seconds, job, _local_failure, batch.batch_id, job.note, job.values)
    token, busy_token = ACTIVE.set(header.nested), BUSY.set(header.busy)
    process = os.getpid()
    try:
        if is_any_known():
            return _run_calls([unwrapped(batch.call_at(position)) for position in range(len(batch))], run)
        if batch.kind is Kind.CALLS:
            return _run_calls(batch.tasks, run)
        args: Iterable[Sequence[Any]] = zip(batch.tasks, strict=True) if batch.kind is Kind.ITEMS else batch.tasks
        function = batch.function
        assert function is not None
        return _run_args(function, args, run)
    finally:
        if os.getpid() != process:
            os._exit(0)  # a child that a task forked and let go on: it must not take the place of a worker
        BUSY.reset(busy_token)
        ACTIVE.reset(token)


# The two loops are the same but for the call. Written out, because a call through one more function would double what
# a task of a microsecond costs.


def _run_calls(calls: Iterable[tuple[Callable[..., Any], Iterable[Any], dict[str, Any]]], run: _Run) -> Outcome:
    stop_on_failure, budget_seconds, cancellable, fail, _, slot, values = run
    failures: dict[int, Failure] = {}
    began = now = run.begin()
    stop_at = began + budget_seconds if budget_seconds is not None else math.inf
    for function, args, kwargs in calls:
        if now >= stop_at or cancellable.cancelled:
            break
        if slot is not None:
            slot[STARTED] = now
            slot[POSITION] = len(values)
        try:
            values.append(function(*args, **kwargs))
        except BaseException as error:
            failures[len(values)] = fail(error)
            values.append(None)
            if stop_on_failure:
                break
        now = monotonic()
    return run.end(began, failures)


def _run_args(function: Callable[..., Any], args_of_tasks: Iterable[Sequence[Any]], run: _Run) -> Outcome:
    stop_on_failure, budget_seconds, cancellable, fail, _, slot, values = run
    failures: dict[int, Failure] = {}
    began = now = run.begin()
    stop_at = began + budget_seconds if budget_seconds is not None else math.inf
    for args in args_of_tasks:
        if now >= stop_at or cancellable.cancelled:
            break
        if slot is not None:
            slot[STARTED] = now
            slot[POSITION] = len(values)
        try:
            values.append(function(*args))
        except BaseException as error:
            failures[len(values)] = fail(error)
            values.append(None)
            if stop_on_failure:
                break
        now = monotonic()
    return run.end(began, failures)


def _local_failure(error: BaseException) -> Failure:
    return Failure(error, None, threading.current_thread().name)


def _remote_failure(error: BaseException) -> Failure:
    return Failure(error, _format_traceback(error), _process_name())


def _process_name() -> str:
    process = sys.modules.get("multiprocessing.process")
    name = process.current_process().name if process is not None else "process"
    return f"{name} (pid {os.getpid()})"


def _format_traceback(error: BaseException) -> str:
    import traceback

    try:
        # The first frame is the loop above, which tells the user nothing.
        below = error.__traceback__.tb_next if error.__traceback__ is not None else None
        return "".join(traceback.format_exception(type(error), error, below))
    except BaseException as second:  # __str__ of a user's exception may do anything
        return f"{type(error).__qualname__} (no traceback: {type(second).__qualname__} while formatting it)\n"


# -- in another process ----------------------------------------------------------------------------------------------


#: What is not unpickled again for each batch.
_STATELESS = (FunctionType, BuiltinFunctionType, type)


class _KnownCall:
    """What a worker has unpickled of a call, and keeps."""

    __slots__ = ("functions", "header")

    def __init__(self, header: CallHeader) -> None:
        self.header = header
        self.functions: dict[int, Callable[..., Any]] = {}


#: How many calls a worker remembers: more than one, because a pool that is not ours may serve several at a time.
_MAX_KNOWN_CALLS = 4
_known_calls: OrderedDict[bytes, _KnownCall] = OrderedDict()


class RemoteJob:
    """What a pickled `Job` becomes in another process: a callable that runs it and gives the outcome as bytes."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __call__(self) -> bytes:
        return run_payload(self.payload)

    def __reduce__(self) -> tuple[type[RemoteJob], tuple[bytes]]:
        return RemoteJob, (self.payload,)


def run_payload(payload: bytes | bytearray) -> bytes:
    """Run a batch that came as bytes and give its outcome as bytes. Does not raise.

    Parameters
    ----------
    payload : bytes or bytearray
        The `Job.payload` of another process.
    """
    fields = _serialize.read_payload(payload)
    if fields.form == _serialize.EXCUSE:
        position, packed = unpack(fields.body, None)  # made by Encoder.encode_excuse
        return _serialize.encode_packed([], {position: packed}, 0.0)
    try:
        known = _known_call(fields)
        functions = _functions(fields, known)
    except OutOfReachError:
        return _serialize.encode_out_of_reach()
    except BaseException as error:
        return _not_unpickled(error)
    process = os.getpid()
    board = known.header.board
    if fields.slot is None or board is None:
        encoded = _run_fields(fields, known.header, functions, None)
    else:
        opened = open_slot(board, fields.slot)
        if opened is None:
            return _serialize.encode_blind()
        with opened as slot:
            encoded = _run_fields(fields, known.header, functions, slot)
    if os.getpid() != process:
        os._exit(0)  # a child that the task forked and let go on: the answer is its parent's to give
    return encoded


def _run_fields(
    fields: _serialize.Payload, header: CallHeader, functions: dict[int, Callable[..., Any]], slot: Slot | None
) -> bytes:
    sharing = header.sharing
    before = n_attached()
    try:
        content = _content(fields.body, header)
        calls = _calls(fields, content, functions) if n_attached() > before else None
    except OutOfReachError:
        return _serialize.encode_out_of_reach()
    except BaseException as error:
        return _not_unpickled(error)
    run = _Run(header.stop_on_failure, fields.budget_seconds, _NEVER, _remote_failure, fields.batch_id, slot, [])
    describe: Callable[[int], str]
    token = ACTIVE.set(header.nested)
    try:
        if calls is None and fields.form == _serialize.COLUMNS:
            function = functions[fields.functions[0][0]]
            args = zip(*content, strict=True) if content else repeat((), fields.n_tasks)
            name = describe_function(function)
            outcome = _run_args(function, args, run)
            describe = lambda _: name  # noqa: E731
        else:
            if calls is None:
                calls = [(functions[n] if n is not None else f, a, k) for n, f, a, k in content]
            outcome = _run_calls(calls, run)
            describe = lambda position: describe_function(calls[position][0])  # noqa: E731
    finally:
        ACTIVE.reset(token)
    if sharing is None:
        return _serialize.encode_outcome(outcome, fields.start, describe, None, header.codec)
    with contextlib.closing(ResultParcel(sharing.limit, fields.room)) as parcel:
        return _serialize.encode_outcome(outcome, fields.start, describe, parcel)


def _content(body: bytes | Packed, header: CallHeader) -> Any:
    if header.codec is not None and isinstance(body, bytes):
        return header.codec.loads(body)
    return unpack(body, header.sharing.mode if header.sharing is not None else None)


def _calls(
    fields: _serialize.Payload, content: Any, functions: dict[int, Callable[..., Any]]
) -> list[tuple[Any, Iterable[Any], dict[str, Any]]]:
    """Give the calls of a batch among whose arguments may be some that are shared."""
    if fields.form == _serialize.COLUMNS:
        function = functions[fields.functions[0][0]]
        return [unwrapped((function, args, {})) for args in zip(*content, strict=True)]
    return [unwrapped((functions[n] if n is not None else f, a, k)) for n, f, a, k in content]


def _known_call(fields: _serialize.Payload) -> _KnownCall:
    known = _known_calls.get(fields.token)
    if known is None:
        known = _known_calls[fields.token] = _KnownCall(pickle.loads(fields.header))  # noqa: S301
        while len(_known_calls) > _MAX_KNOWN_CALLS:
            _known_calls.popitem(last=False)
    return known


def _functions(fields: _serialize.Payload, known: _KnownCall) -> dict[int, Callable[..., Any]]:
    """Give the functions of a batch by number.

    Not all are kept for the next batch: an object that can be called may change while it runs, and each batch finds it
    as it was sent; and large data that a function brings along, or has shared, is mapped for the time of a batch only.
    """
    functions = {}
    for number, blob in fields.functions:
        function = known.functions.get(number)
        if function is None:
            before = n_attached()
            function = _function(blob, known.header)
            if isinstance(function, _STATELESS) and isinstance(blob, bytes) and n_attached() == before:
                known.functions[number] = function
        functions[number] = function
    return functions


def _function(blob: bytes | Packed, header: CallHeader) -> Any:
    if header.codec is not None and isinstance(blob, bytes):
        return pickle.loads(header.codec.decompress(blob))  # noqa: S301 - from our own caller
    return unpack(blob, header.sharing.mode if header.sharing is not None else None)


def _not_unpickled(error: BaseException) -> bytes:
    failure = TaskPicklingError(
        f"a task was pickled in the caller but cannot be unpickled in the worker: {error!r}", task_index=-1, path=""
    )
    failure.__cause__ = error
    return _serialize.encode_unclear(Failure(failure, _format_traceback(error), _process_name()))
