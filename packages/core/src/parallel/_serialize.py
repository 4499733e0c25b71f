"""Batches and outcomes to bytes and back.

Whatever lives in ``__main__`` (a script, a notebook), in a function or under a lambda travels by value, by
cloudpickle's rules. cloudpickle calls Python code for every object it meets, so the plain C pickler goes first, and
its output is taken unless it names ``__main__``, which the other side does not have.

A payload is one pickle of a small tuple. What is the same for all batches of a call (settings, functions) is in there
as bytes made once, and the worker keeps what it has unpickled of it, by the call's token.
"""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from parallel._codec import Codec
from parallel._culprit import find_culprit
from parallel._exports import Export
from parallel._failures import pack_failure, safe_text, unpack_failure
from parallel._memory import CallMemory, FileNames
from parallel._parcel import Packed, pack
from parallel._pickling import dumps, dumps_by_value, needs_value
from parallel._region import Address, Region
from parallel._rooms import ResultParcel, unpack_result
from parallel._shared import by_reference, is_any_known
from parallel._task import Batch, Failure, Kind, Outcome, describe_function
from parallel.errors import BackendContractError, ResultPicklingError, TaskPicklingError

__all__ = [
    "Encoder",
    "Payload",
    "decode_outcome",
    "dumps",
    "encode_blind",
    "encode_out_of_reach",
    "encode_outcome",
    "encode_packed",
    "encode_unclear",
    "read_payload",
]

#: The first field of every encoded outcome, to tell it from whatever else a backend may bring.
_OUTCOME_MARK = "parallel.outcome.1"

#: The same of one whose results, or some of them, are in the batch's room.
_APART_MARK = "parallel.outcome.apart.1"

#: The last field of an outcome whose values went through a codec.
_CODED = "coded"

#: What is in the place of the seconds of an outcome that says why a batch was not run.
_OUT_OF_REACH = -1.0

#: Functions of one call that are pickled apart from the batches. A call with more (a lambda made for each task, say)
#: has the rest of them inside the batches, so that neither side keeps a million of them.
MAX_FUNCTIONS = 32


#: Most functions, or states of one, whose large data is kept: more than there are batches in flight.
MAX_FUNCTION_EXPORTS = 512


class Payload(NamedTuple):
    """A batch as it travels."""

    token: bytes
    header: bytes
    functions: tuple[tuple[int, bytes | Packed], ...]
    form: int
    body: bytes | Packed
    start: int
    n_tasks: int
    budget_seconds: float | None
    batch_id: int
    slot: int | None
    room: Address | None


#: Forms of a payload's body. All tasks call the one function, positional arguments only: a column for each argument.
COLUMNS = 0
#: A list of (number of the function or None, function or None, args, kwargs).
ROWS = 1
#: The batch could not be pickled: the body is a pickled Failure.
EXCUSE = 2


class Encoder:
    """Makes the payloads of one call; used by the owner, or by the thread in which an executor pickles.

    Parameters
    ----------
    header
        What the worker needs to know for every batch of the call; pickled once.
    memory
        For large data; None to send everything in the payload.
    codec
        For what travels to other hosts; None for what the rest of this module does.
    """

    def __init__(self, header: object, memory: CallMemory | None = None, codec: Codec | None = None) -> None:
        self._memory = memory
        self._codec = codec
        self._dumps_one = codec.dumps if codec is not None else dumps
        self.token = os.urandom(12)
        self._header_value = header
        self._header: bytes | None = None
        # By identity; the function is kept beside its number so that its id cannot be used again.
        self._functions: dict[int, tuple[int, object, bytes | Packed]] = {}
        # Counted apart: an executor may pickle in several threads, and two functions must never have one number.
        self._numbers = itertools.count()
        self._by_value = False
        self._sends_apart = False
        # Kept until the end of the call: nobody tells when the last batch with a function has been cut.
        self._function_exports: list[Export | FileNames] = []

    def encode(self, batch: Batch, slot: int | None = None) -> bytes:
        """Turn a batch into bytes; `slot` is where on the call's board its worker notes what it runs.

        Raises
        ------
        TaskPicklingError
            If one of its tasks cannot be pickled; it names the task and the path to the culprit.
        """
        sends_apart = self._memory is not None and self._memory.sends
        if self._sends_apart and not sends_apart:
            self._functions.clear()  # nobody can find what they have apart
        self._sends_apart = sends_apart
        if not is_any_known():
            return self._encode(batch, slot)
        with by_reference(self._memory is not None and self._memory.shares):
            return self._encode(batch, slot)

    def _encode(self, batch: Batch, slot: int | None) -> bytes:
        if self._header is None:
            self._header = dumps(self._header_value)
        export, room = self._memory.begin(batch.batch_id) if self._memory is not None else (None, None)
        functions: tuple[tuple[int, bytes | Packed], ...]
        columns = _as_columns(batch)
        if columns is not None:
            function, content = columns
            if export is not None:
                for column in content:
                    export.watch(column)
            number, blob = self._function(function, batch)
            form, functions = COLUMNS, ((number, blob),) if blob is not None else ()
            if blob is None:  # the function goes inside
                form, content = ROWS, [(None, *batch.call_at(position)) for position in range(len(batch))]
        else:
            form = ROWS
            content, functions = self._rows(batch)
            if export is not None:
                for _, _, args, kwargs in content:
                    export.watch((*args, *kwargs.values()) if isinstance(args, tuple) else ())
        try:
            body = self._dumps(content, export)
        except Exception as error:
            raise self._explain(batch, error) from error
        fields = Payload(
            self.token,
            self._header,
            functions,
            form,
            body,
            batch.start,
            len(batch),
            batch.budget_seconds,
            batch.batch_id,
            slot,
            room.address if room is not None else None,
        )
        return pickle.dumps(tuple(fields), protocol=5)

    def encode_excuse(self, batch: Batch, error: TaskPicklingError) -> bytes:
        """Make a payload whose outcome is `error`, for executors that pickle where nobody could catch it."""
        position = min(max(error.task_index - batch.start, 0), len(batch) - 1)
        body = pickle.dumps((position, pack_failure(Failure(error))), protocol=5)
        fields = Payload(self.token, b"", (), EXCUSE, body, batch.start, len(batch), None, batch.batch_id, None, None)
        return pickle.dumps(tuple(fields), protocol=5)

    def _dumps(self, content: object, export: Export | FileNames | None) -> bytes | Packed:
        if self._codec is not None:
            return self._codec.dumps(content)
        if export is not None:
            packed, self._by_value = pack(content, export, self._by_value)
            return packed
        # A call whose tasks hold things of __main__ goes on doing so: do not pickle each batch twice.
        if self._by_value:
            return dumps_by_value(content)
        try:
            data = pickle.dumps(content, protocol=5)
        except Exception:
            return dumps_by_value(content)
        if needs_value(data):
            self._by_value = True
            return dumps_by_value(content)
        return data

    def _function(self, function: object, batch: Batch, position: int = 0) -> tuple[int, bytes | Packed | None]:
        """Give the number of a function and its pickle, made at its first use; no pickle if it travels as data."""
        if type(function) is MethodType:
            return -1, None  # its object is data, and may change from task to task
        key = id(function)
        known = self._functions.get(key)
        if known is None and len(self._functions) >= MAX_FUNCTIONS:
            return -1, None
        if known is None or self._may_have_changed(function):
            try:
                blob = self._dumps_function(function)
            except Exception as error:
                raise self._explain(batch, error, position) from error
            if known is None or blob != known[2]:
                known = self._functions[key] = next(self._numbers), function, blob
        return known[0], known[2]

    def _may_have_changed(self, function: object) -> bool:
        """Tell whether what a function brings along may be another since it was pickled."""
        if self._memory is None or not self._memory.must_be_single():
            return False
        if type(function) is not FunctionType or function.__closure__ is not None:
            return True
        return function.__module__ == "__main__"  # what it refers to there travels along

    def _dumps_function(self, function: object) -> bytes | Packed:
        if self._codec is not None:
            return self._codec.compress(dumps(function))  # its serializer may know data only
        export = self._memory.new_export() if self._memory is not None else None
        if export is None:
            return dumps(function)
        self._function_exports.append(export)
        if len(self._function_exports) > MAX_FUNCTION_EXPORTS:
            self._function_exports.pop(0).release()  # of a function that has changed many times since
        return pack(function, export)[0]

    def _rows(self, batch: Batch) -> tuple[list[Any], tuple[tuple[int, bytes | Packed], ...]]:
        rows: list[Any] = []
        functions: dict[int, bytes | Packed] = {}
        for position in range(len(batch)):
            function, args, kwargs = batch.call_at(position)
            number, blob = self._function(function, batch, position)
            if blob is None:
                rows.append((None, function, args, kwargs))
            else:
                functions[number] = blob
                rows.append((number, None, args, kwargs))
        return rows, tuple(functions.items())

    def _explain(self, batch: Batch, error: Exception, first: int = 0) -> TaskPicklingError:
        """Find the task of the batch that cannot be pickled, and where in it the culprit is."""
        for position in range(first, len(batch)):
            function, args, kwargs = batch.call_at(position)
            parts: list[tuple[str, object]] = [("function", function)]
            parts += [(f"args[{i}]", value) for i, value in enumerate(args)]
            parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
            for name, value in parts:
                found = find_culprit(value, name, self._dumps_one if name != "function" else dumps)
                if found is not None:
                    path, reason = found
                    index = batch.start + position
                    return TaskPicklingError(
                        f"task {index} ({describe_function(function)}) cannot be sent to a worker process: "
                        f"{path}: {reason}",
                        task_index=index,
                        path=path,
                    )
        return TaskPicklingError(
            f"tasks {batch.start} to {batch.stop - 1} cannot be sent to a worker process: {error!r}",
            task_index=batch.start,
            path="",
        )


def _as_columns(batch: Batch) -> tuple[object, Sequence[Sequence[Any]]] | None:
    """Turn rows into columns if all tasks call one function with as many positional arguments; else None.

    Columns pickle in half the time of rows: no tuple, no dict and no reference to the function for each task.
    """
    tasks = batch.tasks
    if batch.kind is Kind.ITEMS:
        return batch.function, (tasks,)
    function: object
    if batch.kind is Kind.ARGS:
        function, args = batch.function, tasks
    else:
        functions, args, kwargs = zip(*tasks, strict=True)
        if any(kwargs) or None in kwargs:
            return None
        function = functions[0]
        if len(set(map(id, functions))) > 1:
            return None
    try:
        if len(set(map(len, args))) > 1:
            return None
    except TypeError:  # arguments may be any iterable, as for a call
        return None
    return function, tuple(zip(*args, strict=True))


# -- on the worker's side --------------------------------------------------------------------------------------------


def read_payload(payload: bytes | bytearray) -> Payload:
    """Take a payload apart; what the user's objects are made of stays bytes."""
    return Payload(*pickle.loads(payload))  # noqa: S301 - from our own caller


def encode_packed(values: list[Any], failures: dict[int, tuple[bytes, str | None, str]], seconds: float) -> bytes:
    """Encode values that are known to pickle, with failures that are packed already."""
    return pickle.dumps((_OUTCOME_MARK, values, failures, seconds), protocol=5)


def encode_blind() -> bytes:
    """Encode that a batch was not run, because the board of its call is out of reach."""
    return pickle.dumps((_OUTCOME_MARK, None, {}, 0.0), protocol=5)


def encode_out_of_reach() -> bytes:
    """Encode that a batch was not run, because what the caller shares cannot be had."""
    return pickle.dumps((_OUTCOME_MARK, None, {}, _OUT_OF_REACH), protocol=5)


def encode_unclear(failure: Failure) -> bytes:
    """Encode a failure that one of the batch's tasks is to blame for, nobody knows which."""
    return pickle.dumps((_OUTCOME_MARK, None, {0: pack_failure(failure)}, 0.0), protocol=5)


def encode_outcome(
    outcome: Outcome,
    start: int,
    describe: Callable[[int], str],
    parcel: ResultParcel | None = None,
    codec: Codec | None = None,
) -> bytes:
    """Turn an outcome into bytes; a result that cannot be pickled becomes the failure of its own task only.

    Parameters
    ----------
    start
        Index in the input of the batch's first task.
    describe
        Names the function of the task at a position, for messages.
    parcel
        For large results; None if all travel in the pipe.
    codec
        As for `Encoder`.
    """
    failures = {position: pack_failure(failure) for position, failure in outcome.failures.items()}
    values = outcome.values
    try:
        return _pack_outcome((_OUTCOME_MARK, values, failures, outcome.seconds), parcel, codec)
    except BaseException:  # noqa: S110 - find out below which of the results it was
        pass
    values = list(values)
    for position, value in enumerate(values):
        found = find_culprit(value, "result", codec.dumps if codec is not None else dumps)
        if found is not None:
            path, reason = found
            error = ResultPicklingError(
                f"the result of task {start + position} ({describe(position)}) cannot be sent back: {path}: {reason}",
                path=path,
            )
            failures[position] = pack_failure(Failure(error))
            values[position] = None
    try:
        return _pack_outcome((_OUTCOME_MARK, values, failures, outcome.seconds), parcel, codec)
    except BaseException as error:  # each alone can be pickled, together they cannot
        text = f"results cannot be sent back together: {error!r}"
        return encode_unclear(Failure(ResultPicklingError(text, path="result")))


def _pack_outcome(fields: tuple[Any, ...], parcel: ResultParcel | None, codec: Codec | None) -> bytes:
    if codec is not None:
        mark, values, failures, seconds = fields
        return pickle.dumps((mark, codec.dumps(values), failures, seconds, _CODED), protocol=5)
    if parcel is None:
        return dumps(fields)
    packed, _ = pack(fields, parcel)
    if isinstance(packed, bytes) and not parcel.refusal:
        return packed
    return pickle.dumps((_APART_MARK, packed, parcel.extent, parcel.refusal), protocol=5)


# -- back in the caller ----------------------------------------------------------------------------------------------


def decode_outcome(
    brought: object,
    batch: Batch,
    backend_name: str,
    room: Region | None = None,
    codec: Codec | None = None,
    warn: Callable[[str], None] | None = None,
) -> Outcome:
    """Read what a backend brought back for a batch: an `Outcome`, or one as bytes, with large results in the `room`.

    Raises
    ------
    BackendContractError
        If it is neither.
    """
    if isinstance(brought, Outcome):
        return brought
    if isinstance(brought, (bytes, bytearray, memoryview)):
        try:
            decoded = pickle.loads(brought)  # noqa: S301 - from our own worker
            if type(decoded) is tuple and len(decoded) == 4 and decoded[0] == _APART_MARK:
                decoded = _put_together(*decoded[1:], room, warn)
            elif type(decoded) is tuple and len(decoded) == 5 and codec is not None:
                decoded = (decoded[0], codec.loads(decoded[1]), *decoded[2:4])
        except (Exception, SystemExit, GeneratorExit) as error:  # what is unpickled may do anything
            return _undecodable(error)
        if type(decoded) is tuple and len(decoded) == 4 and decoded[0] == _OUTCOME_MARK:
            _, values, failures, seconds = decoded
            if values is None and failures:
                return Outcome([], {}, 0.0, unclear=unpack_failure(failures[0]))
            if values is None:
                return Outcome([], {}, 0.0, is_blind=True, is_out_of_reach=seconds == _OUT_OF_REACH)
            return Outcome(values, {position: unpack_failure(packed) for position, packed in failures.items()}, seconds)
    raise BackendContractError(
        f"the backend {backend_name!r} brought {safe_text(brought, repr)[:200]} for tasks {batch.start} to "
        f"{batch.stop - 1}; it must bring what the submitted callable returned, unchanged",
        backend=backend_name,
        task_indices=range(batch.start, batch.stop),
    )


def _put_together(
    packed: bytes | Packed, extent: int, refusal: str, room: Region | None, warn: Callable[[str], None] | None
) -> object:
    if refusal and warn is not None:
        warn(refusal)
    if isinstance(packed, Packed) and room is not None:
        return unpack_result(packed, room, extent)
    return pickle.loads(packed)  # type: ignore[arg-type]  # noqa: S301 - from our own worker


def _undecodable(error: BaseException) -> Outcome:
    failure = ResultPicklingError(
        f"a result was pickled in the worker but cannot be unpickled in the caller: {error!r}", path="result"
    )
    failure.__cause__ = error
    return Outcome([], {}, 0.0, unclear=Failure(failure))
