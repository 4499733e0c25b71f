"""Outcomes to bytes and back.

An encoded outcome is one pickle of a small tuple; what goes wrong on the way becomes the failure of the task that it is
due to.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any

from parallel._codec import Codec
from parallel._culprit import find_culprit
from parallel._emissions import show
from parallel._failures import pack_failure, safe_text, unpack_failure
from parallel._parcel import Packed, pack
from parallel._pickling import dumps
from parallel._region import Region
from parallel._rooms import ResultParcel, unpack_result
from parallel._task import SECONDS_PER_BYTE, Batch, Failure, Outcome
from parallel.errors import BackendContractError, ResultPicklingError

__all__ = [
    "decode_outcome",
    "encode_blind",
    "encode_out_of_reach",
    "encode_outcome",
    "encode_packed",
    "encode_unclear",
    "with_emitted",
    "with_kept",
]

#: The first field of every encoded outcome, to tell it from whatever else a backend may bring.
_OUTCOME_MARK = "parallel.outcome.1"

#: The same of one whose results, or some of them, are in the batch's room.
_APART_MARK = "parallel.outcome.apart.1"

#: The same of one that comes with what its tasks have emitted.
_EMITTED_MARK = "parallel.outcome.emitted.1"

#: The same of one with results that were pickled one by one, by position, in a last field.
_KEPT_MARK = "parallel.outcome.kept.1"

#: A guess for outcomes that do not tell, being large.
_PICKLING_PER_BYTE = 4e-9

#: The last field of an outcome whose values went through a codec.
_CODED = "coded"

#: What is in the place of the seconds of an outcome that says why a batch was not run.
_OUT_OF_REACH = -1.0


#: What may follow an outcome: seconds, and a byte with which no pickle ends.
_HANDLING = struct.Struct("<dB")
_HANDLING_MARK = 0x54
_LARGE_BYTES = 1 << 20


# -- on the worker's side --------------------------------------------------------------------------------------------


def encode_packed(values: list[Any], failures: dict[int, tuple[bytes, str | None, str]], seconds: float) -> bytes:
    """Encode values that are known to pickle, with failures that are packed already."""
    return pickle.dumps((_OUTCOME_MARK, values, failures, seconds), protocol=5)


def encode_blind() -> bytes:
    """Encode that a batch was not run, because the board of its call is out of reach."""
    return pickle.dumps((_OUTCOME_MARK, None, {}, 0.0), protocol=5)


def encode_out_of_reach() -> bytes:
    """Encode that a batch was not run, because what the caller shares cannot be had."""
    return pickle.dumps((_OUTCOME_MARK, None, {}, _OUT_OF_REACH), protocol=5)


def with_emitted(encoded: bytes, emitted: bytes) -> bytes:
    """Add to an encoded outcome what the tasks have emitted, if they have."""
    return pickle.dumps((_EMITTED_MARK, encoded, emitted), protocol=5) if emitted else encoded


def with_handling(encoded: bytes, seconds: float) -> bytes:
    """Add to an encoded outcome how long the worker was busy with the batch, pickling and all, unless it is large.

    Behind the pickle, of which it cannot be a part: reading stops before it.
    """
    return encoded + _HANDLING.pack(seconds, _HANDLING_MARK) if len(encoded) < _LARGE_BYTES else encoded


def with_kept(encoded: bytes, kept: Mapping[int, bytes], parcel: ResultParcel | None) -> bytes:
    """Add to an encoded outcome the results that were pickled already, if there are some, by position.

    None stands for them among the values.
    """
    if not kept:
        return encoded
    data = pickle.dumps((_KEPT_MARK, encoded, kept), protocol=5)
    if parcel is None or len(data) < parcel.limit or parcel.extent:  # else others have the room
        return data
    parcel.begin()
    where = parcel.place(memoryview(data), data)
    return _wrapped(data if where is None else Packed(where, (), (), tuple(parcel.regions)), parcel)


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
    return _wrapped(pack(fields, parcel)[0], parcel)


def _wrapped(packed: bytes | Packed, parcel: ResultParcel) -> bytes:
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
            if type(decoded) is tuple and len(decoded) == 3 and decoded[0] == _EMITTED_MARK:
                _, encoded, emitted = decoded
                show(emitted)
                decoded = pickle.loads(encoded)  # noqa: S301
            decoded = _put_together(decoded, room, warn)
            kept: dict[int, bytes] = {}
            if type(decoded) is tuple and len(decoded) == 3 and decoded[0] == _KEPT_MARK:
                _, encoded, kept = decoded
                decoded = _put_together(pickle.loads(encoded), room, warn)  # noqa: S301
            elif type(decoded) is tuple and len(decoded) == 5 and decoded[4] == _CODED and codec is not None:
                decoded = (decoded[0], codec.loads(decoded[1]), *decoded[2:4])
        except (Exception, SystemExit, GeneratorExit) as error:  # what is unpickled may do anything
            return _undecodable(error)
        if type(decoded) is tuple and len(decoded) == 4 and decoded[0] == _OUTCOME_MARK:
            _, values, failures, seconds = decoded
            if values is None and failures:
                return Outcome([], {}, 0.0, unclear=unpack_failure(failures[0]))
            if values is None:
                return Outcome([], {}, 0.0, is_blind=True, is_out_of_reach=seconds == _OUT_OF_REACH)
            unpacked = {position: unpack_failure(packed) for position, packed in failures.items()}
            while kept:
                _put_back(*kept.popitem(), values, unpacked)
            return Outcome(values, unpacked, seconds, handling_seconds=_handling_of(brought, seconds))
    raise BackendContractError(
        f"the backend {backend_name!r} brought {safe_text(brought, repr)[:200]} for tasks {batch.start} to "
        f"{batch.stop - 1}; it must bring what the submitted callable returned, unchanged",
        backend=backend_name,
        task_indices=batch.indices,
    )


def _handling_of(brought: bytes | bytearray | memoryview, seconds: float) -> float:
    if brought[-1] != _HANDLING_MARK:
        return len(brought) * (_PICKLING_PER_BYTE + SECONDS_PER_BYTE)
    told: float = _HANDLING.unpack_from(brought, len(brought) - _HANDLING.size)[0]
    return max(told - seconds, 0.0) + len(brought) * SECONDS_PER_BYTE


def _put_together(decoded: Any, room: Region | None, warn: Callable[[str], None] | None) -> Any:
    """Give what is in the room for what says so, anything else as it is."""
    if not (type(decoded) is tuple and len(decoded) == 4 and decoded[0] == _APART_MARK):
        return decoded
    _, packed, extent, refusal = decoded
    if refusal and warn is not None:
        warn(refusal)
    if isinstance(packed, Packed) and room is not None:
        return unpack_result(packed, room, extent)
    return pickle.loads(packed)  # noqa: S301 - from our own worker


def _put_back(position: int, data: bytes, values: list[Any], failures: dict[int, Failure]) -> None:
    """Put a result that was pickled by itself into its place."""
    try:
        values[position] = pickle.loads(data)  # noqa: S301 - from our own worker
    except (Exception, SystemExit, GeneratorExit) as error:  # what is unpickled may do anything
        failures[position] = _not_unpickled(error)


def _undecodable(error: BaseException) -> Outcome:
    return Outcome([], {}, 0.0, unclear=_not_unpickled(error))


def _not_unpickled(error: BaseException) -> Failure:
    failure = ResultPicklingError(
        f"a result was pickled in the worker but cannot be unpickled in the caller: {error!r}", path="result"
    )
    failure.__cause__ = error
    return Failure(failure)
