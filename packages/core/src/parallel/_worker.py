"""What runs on the worker's side of the wire.

Nothing here raises: whatever a task does, or fails to be unpickled, ends up inside the outcome.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import repeat
from time import monotonic
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

from parallel import _outcomes, _quick, _serialize
from parallel._board import Slot, open_slot
from parallel._codec import Codec
from parallel._context import Carried, Surroundings
from parallel._current import CURRENT, Place
from parallel._imports import OutOfReachError, unpack
from parallel._inner_threads import Caps, limit_worker
from parallel._interpreter import process_token
from parallel._kept import Keeper
from parallel._memory import NO_LIMIT, Sharing
from parallel._parcel import Packed
from parallel._pickling import dumps
from parallel._region import Address
from parallel._rooms import ResultParcel
from parallel._running import NEVER, Run, format_traceback, process_name, remote_failure, run_args, run_calls
from parallel._settings import Settings
from parallel._shared import n_attached, unwrapped
from parallel._task import Failure, describe_function
from parallel.errors import TaskPicklingError

__all__ = ["CallHeader", "RemoteJob", "run_payload"]


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
    #: What travels of the caller's context.
    context: Carried = Carried()
    #: Most threads of libraries; None for as many as they like.
    caps: Caps | None = None
    #: Whether the worker is the backend's, and need not be left as it was found.
    is_own_process: bool = True
    #: The `process_token` of the caller.
    caller: str = ""
    #: The name of the backend, and the seed of the call, for `current_task`.
    backend: str = ""
    seed: Any = None

    def pack(self) -> bytes:
        """Pickle it, or give the bytes of the last one if that was the same: pickling costs more than a small task."""
        global _packed
        if not self._is_constant():
            return dumps(self)
        known, data = _packed
        if known != self:
            data = pickle.dumps(self, protocol=5)  # nothing in it is the user's, but as bytes
            _packed = self, data
        return data

    def _is_constant(self) -> bool:
        """Tell whether there are no objects of the user's in it, which may change while they stay what they are."""
        nested = self.nested
        is_plain = isinstance(nested.backend, str) and not nested.backend_options
        return is_plain and self.codec is None and isinstance(self.seed, int | None)

    @property
    def mode(self) -> str | None:
        """How what is shared is mapped."""
        return self.sharing.mode if self.sharing is not None else None


#: The header that was packed last.
_packed: tuple[CallHeader | None, bytes] = None, b""

#: The header that was unpacked last.
_unpacked: tuple[bytes, CallHeader | None] = b"", None


def _unpack_header(data: bytes) -> CallHeader:
    global _unpacked
    known, header = _unpacked
    if header is None or known != data:
        header = pickle.loads(data)  # noqa: S301 - from our own caller
        assert header is not None
        _unpacked = data, header
    return header


# -- in another process ----------------------------------------------------------------------------------------------


#: What is not unpickled again for each batch.
_STATELESS = (FunctionType, BuiltinFunctionType, type)


class _KnownCall:
    """What a worker has unpickled of a call, and keeps."""

    __slots__ = ("functions", "header", "is_here", "surroundings")

    def __init__(self, header: CallHeader) -> None:
        self.header = header
        self.functions: dict[int, Callable[..., Any]] = {}
        #: A backend may bring payloads to threads of the very process that made them, which has all it needs.
        self.is_here = header.caller == process_token()
        self.surroundings = Surroundings(
            header.context, header.nested, is_own_process=header.is_own_process, is_here=self.is_here
        )


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
    began = monotonic()
    return _outcomes.with_handling(_run_payload(payload), monotonic() - began)


def _run_payload(payload: bytes | bytearray) -> bytes:
    fields = _serialize.read_payload(payload)
    if fields.form == _serialize.EXCUSE:
        position, packed = unpack(fields.body, None)  # made by Encoder.encode_excuse
        return _outcomes.encode_packed([], {position: packed}, 0.0)
    process = os.getpid()
    try:
        known = _known_call(fields)
    except BaseException as error:
        return _not_unpickled(error)
    try:
        encoded, emitted = known.surroundings.run(_run_known, fields, known)
    except BaseException as error:  # of what a plugin does
        failure = Failure(error, format_traceback(error), process_name())
        encoded, emitted = _outcomes.encode_unclear(failure), b""
    if os.getpid() != process:
        os._exit(0)  # a child that the task forked and let go on: the answer is its parent's to give
    return _outcomes.with_emitted(encoded, emitted)


def _run_known(fields: _serialize.Payload, known: _KnownCall) -> bytes:
    try:
        functions = _functions(fields, known)
    except OutOfReachError:
        return _outcomes.encode_out_of_reach()
    except BaseException as error:
        return _not_unpickled(error)
    board = known.header.board
    if fields.slot is None or board is None:
        return _run_fields(fields, known, functions, None)
    opened = open_slot(board, fields.slot)
    if opened is None:
        return _outcomes.encode_blind()
    with opened as slot:
        return _run_fields(fields, known, functions, slot)


def _run_fields(
    fields: _serialize.Payload, known: _KnownCall, functions: dict[int, Callable[..., Any]], slot: Slot | None
) -> bytes:
    header = known.header
    before = n_attached()
    try:
        content = _content(fields, header)
        calls = _calls(fields, content, functions) if n_attached() > before else None
    except OutOfReachError:
        return _outcomes.encode_out_of_reach()
    except BaseException as error:
        return _not_unpickled(error)
    values: list[Any] = []
    keeper = None
    if slot is None and header.codec is None and fields.n_tasks > 1:  # else it would count as a part of the task
        keeper = Keeper(header.sharing.limit if header.sharing is not None else NO_LIMIT, values)
    budget = fields.budget_seconds
    run = Run(header.stop_on_failure, budget, NEVER, remote_failure, fields.batch_id, slot, values, keep=keeper)
    place = Place(fields.start, values, fields.attempts, fields.worker, header.backend, header.seed)
    CURRENT.set(place)
    known.surroundings.refresh(place)
    undo = limit_worker(header.caps) if header.caps is not None and not known.is_here else None
    describe: Callable[[int], str]
    try:
        if calls is None and fields.form == _serialize.COLUMNS:
            function = functions[fields.functions[0][0]]
            name = describe_function(function)
            if (
                content
                and header.is_own_process
                and not known.is_here
                and _quick.is_worth_it(function, fields.n_tasks, run)
            ):
                outcome = _quick.run_columns(function, content, run)
            else:
                args = zip(*content, strict=True) if content else repeat((), fields.n_tasks)
                outcome = run_args(function, args, run)
            describe = lambda _: name  # noqa: E731
        else:
            if calls is None:
                calls = [(functions[n] if n is not None else f, a, k) for n, f, a, k in content]
            outcome = run_calls(calls, run)
            describe = lambda position: describe_function(calls[position][0])  # noqa: E731
    finally:
        if undo is not None and not header.is_own_process:
            undo()
    sharing = header.sharing
    kept = keeper.kept if keeper is not None else {}
    if sharing is None:
        encoded = _outcomes.encode_outcome(outcome, fields.start, describe, None, header.codec)
        return _outcomes.with_kept(encoded, kept, None)
    with contextlib.closing(ResultParcel(sharing.limit, fields.room)) as parcel:
        encoded = _outcomes.encode_outcome(outcome, fields.start, describe, parcel)
        return _outcomes.with_kept(encoded, kept, parcel)


def _content(fields: _serialize.Payload, header: CallHeader) -> Any:
    if header.codec is not None and isinstance(fields.body, bytes):
        return header.codec.loads(fields.body)
    return _serialize.read_content(fields, header.mode)


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
        known = _known_calls[fields.token] = _KnownCall(_unpack_header(fields.header))
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
    return unpack(blob, header.mode)


def _not_unpickled(error: BaseException) -> bytes:
    failure = TaskPicklingError(
        f"a task was pickled in the caller but cannot be unpickled in the worker: {error!r}", task_index=-1, path=""
    )
    failure.__cause__ = error
    return _outcomes.encode_unclear(Failure(failure, format_traceback(error), process_name()))
