"""Batches and outcomes to bytes and back.

Whatever lives in ``__main__`` (a script, a notebook), in a function or under a lambda travels by value, by
cloudpickle's rules. cloudpickle calls Python code for every object it meets, so the plain C pickler goes first, and
its output is taken unless it names ``__main__``, which the other side does not have.

A payload is one pickle of a small tuple. What is the same for all batches of a call (settings, functions) is in there
as bytes made once, and the worker keeps what it has unpickled of it, by the call's token.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import is_, itemgetter
from types import FunctionType, MethodType
from typing import Any, NamedTuple, Protocol

from parallel import _imports
from parallel._codec import Codec
from parallel._culprit import find_culprit
from parallel._exports import Export
from parallel._failures import pack_failure
from parallel._memory import CallMemory
from parallel._parcel import Packed, pack
from parallel._pickling import brings_nothing, dumps, dumps_by_value, needs_value
from parallel._region import Address
from parallel._shared import by_reference, is_any_known
from parallel._task import Batch, Failure, Kind, describe_function
from parallel.errors import TaskPicklingError

__all__ = [
    "Encoder",
    "Payload",
    "dumps",
    "read_payload",
]

#: Functions of one call that are pickled apart from the batches. A call with more (a lambda made for each task, say)
#: has the rest of them inside the batches, so that neither side keeps a million of them.
MAX_FUNCTIONS = 32


#: A batch with less than that may be of any size.
_HEAVY_BYTES = 4_000_000

#: Types of arguments that are never large.
_SMALL = frozenset({bool, complex, float, int, type(None)})


class Header(Protocol):
    """What the worker needs to know for every batch of a call."""

    def pack(self) -> bytes:
        """Pickle it."""


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
    worker: int
    #: Attempts that have failed, by index, of those tasks that have any.
    attempts: Mapping[int, int] | None


#: Forms of a payload's body. All tasks call the one function, positional arguments only: a column for each argument.
COLUMNS = 0
#: A list of (number of the function or None, function or None, args, kwargs).
ROWS = 1
#: The batch could not be pickled: the body is a pickled Failure.
EXCUSE = 2
#: As ROWS, each in a list of its own that is pickled apart from the others, so that they have nothing in common.
EACH = 3


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

    def __init__(self, header: Header, memory: CallMemory | None = None, codec: Codec | None = None) -> None:
        self._memory = memory
        self._codec = codec
        self._dumps_one = codec.dumps if codec is not None else dumps
        #: By what workers know the call; made with the first payload, as is the header.
        self.token = b""
        self._header_value = header
        self._header: bytes | None = None
        # By identity; the function is kept beside its number so that its id cannot be used again.
        self._functions: dict[int, tuple[int, object, bytes | Packed]] = {}
        # Counted apart: an executor may pickle in several threads, and two functions must never have one number.
        self._numbers = itertools.count()
        #: What each task of the last batch has brought along, in bytes; 0 before there was one.
        self.bytes_per_task = 0.0
        self._by_value = False
        self._is_refused = False
        # What they have sent apart, by identity.
        self._function_exports: dict[int, Export | None] = {}

    def encode(self, batch: Batch, slot: int | None = None) -> bytes:
        """Turn a batch into bytes; `slot` is where on the call's board its worker notes what it runs.

        Raises
        ------
        TaskPicklingError
            If one of its tasks cannot be pickled; it names the task and the path to the culprit.
        """
        sends_apart = self._memory is not None and self._memory.sends
        if self._memory is not None and self._memory.is_refused and not self._is_refused:
            self._is_refused = True
            self._functions.clear()  # nobody can find what they have apart
        if not is_any_known():
            return self._encode(batch, slot)
        with by_reference(sends_apart):
            return self._encode(batch, slot)

    def _encode(self, batch: Batch, slot: int | None) -> bytes:
        if self._header is None:
            self.token, self._header = os.urandom(12), self._header_value.pack()
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
                    export.watch((*args, *(kwargs or {}).values()) if isinstance(args, tuple) else ())
        try:
            body = self._dumps(content, export)
            if self._must_be_apart(batch):
                form, (content, functions) = EACH, self._rows(batch, has_own=True)
                body = pickle.dumps([self._dumps([row], export) for row in content], protocol=5)
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
            batch.lane,
            batch.attempts,
        )
        data = pickle.dumps(tuple(fields), protocol=5)
        n_bytes = len(data) + (export.n_bytes if export is not None else 0)
        if n_bytes > _HEAVY_BYTES and len(batch) > 1 and not _has_data_for_each(batch):
            n_bytes = 0  # most of it is one for all
        self.bytes_per_task = n_bytes / len(batch)
        return data

    def encode_excuse(self, batch: Batch, error: TaskPicklingError) -> bytes:
        """Make a payload whose outcome is `error`, for executors that pickle where nobody could catch it."""
        position = min(max(error.task_index - batch.start, 0), len(batch) - 1)
        body = pickle.dumps((position, pack_failure(Failure(error))), protocol=5)
        fields = Payload(
            self.token,
            b"",
            (),
            EXCUSE,
            body,
            batch.start,
            len(batch),
            None,
            batch.batch_id,
            None,
            None,
            batch.lane,
            None,
        )
        return pickle.dumps(tuple(fields), protocol=5)

    def _must_be_apart(self, batch: Batch) -> bool:
        """Tell whether its tasks must have copies of their own: that may be known only now that they were pickled."""
        memory = self._memory
        return memory is not None and memory.sharing.mode == "c" and len(batch) > 1 and memory.must_be_single()

    def _dumps(self, content: object, export: Export | None) -> bytes | Packed:
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
                blob, export = self._dumps_function(function)
            except Exception as error:
                raise self._explain(batch, error, position) from error
            if known is None or blob != known[2]:
                known = self._functions[key] = next(self._numbers), function, blob
                export, self._function_exports[key] = self._function_exports.get(key), export
            if export is not None and self._memory is not None:
                self._memory.retire(export)  # of a function that has changed, or one that is as it was
        current = self._function_exports.get(key)
        if current is not None and self._memory is not None:
            self._memory.hold(batch.batch_id, current)
        return known[0], known[2]

    def _may_have_changed(self, function: object) -> bool:
        """Tell whether what a function brings along may be another since it was pickled."""
        if self._memory is None or not self._memory.must_be_single():
            return False
        return not brings_nothing(function)

    def _dumps_function(self, function: object) -> tuple[bytes | Packed, Export | None]:
        if self._codec is not None:
            return self._codec.compress(dumps(function)), None  # its serializer may know data only
        if type(function) is FunctionType:
            with contextlib.suppress(Exception):  # a lambda, say
                data = pickle.dumps(function, protocol=5)
                if not needs_value(data):
                    return data, None  # its name only: nothing large comes along
        export = self._memory.new_export() if self._memory is not None else None
        if export is None:
            return dumps(function), None
        return pack(function, export)[0], export

    def _rows(self, batch: Batch, has_own: bool = False) -> tuple[list[Any], tuple[tuple[int, bytes | Packed], ...]]:
        """Give the tasks, and their functions by number; if each `has_own` data, those that bring some are in it."""
        rows: list[Any] = []
        functions: dict[int, bytes | Packed] = {}
        for position in range(len(batch)):
            function, args, kwargs = batch.call_at(position)
            number, blob = self._function(function, batch, position)
            if blob is None or (has_own and not brings_nothing(function)):
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


def _has_data_for_each(batch: Batch) -> bool:
    """Tell whether the arguments that may be large are as many as the tasks."""
    calls = (batch.call_at(position) for position in range(len(batch)))
    values = (value for _, args, kwargs in calls for value in (*args, *kwargs.values()))
    return len({id(value) for value in values if type(value) not in _SMALL}) >= len(batch)


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
        function = tasks[0][0]
        if not all(map(is_, map(_FIRST, tasks), repeat(function))):
            return None
        kwargs = list(map(_THIRD, tasks))
        if any(kwargs) or None in kwargs:
            return None
        args = list(map(_SECOND, tasks))
    if not set(map(type, args)) <= _ARGUMENTS or len(set(map(len, args))) > 1:
        return None  # arguments may be any iterable, as for a call
    return function, tuple(list(map(itemgetter(number), args)) for number in range(len(args[0])))


# Not by zip(*tasks), which makes an iterator for each task.
_FIRST, _SECOND, _THIRD = itemgetter(0), itemgetter(1), itemgetter(2)
_ARGUMENTS = {tuple, list}


def tasks_of(payload: bytes, batch: Batch) -> Sequence[Any] | None:
    """Give the tasks of a batch as they were when its payload was made, in their own copies; None if that fails."""
    fields = read_payload(payload)
    try:
        content = read_content(fields, "c")
    except Exception:  # a class of the user's may do anything
        return None
    if fields.form == COLUMNS:
        if batch.kind is Kind.ITEMS:
            return list(content[0])
        args = list(zip(*content, strict=True)) if content else [()] * len(batch)
        return args if batch.kind is Kind.ARGS else [(batch.call_at(i)[0], args[i], {}) for i in range(len(batch))]
    calls = [
        (batch.call_at(position)[0] if number is not None else function, args, kwargs)
        for position, (number, function, args, kwargs) in enumerate(content)
    ]
    if batch.kind is Kind.CALLS:
        return calls
    return [args[0] if batch.kind is Kind.ITEMS else args for _, args, _ in calls]


# -- on the worker's side --------------------------------------------------------------------------------------------


def read_content(fields: Payload, mode: str | None) -> Any:
    """Unpickle what is in the body of a payload; see `parallel._imports.unpack`."""
    if fields.form != EACH:
        return _imports.unpack(fields.body, mode)
    return [row for part in _imports.unpack(fields.body, None) for row in _imports.unpack(part, mode)]


def read_payload(payload: bytes | bytearray) -> Payload:
    """Take a payload apart; what the user's objects are made of stays bytes."""
    return Payload(*pickle.loads(payload))  # noqa: S301 - from our own caller
