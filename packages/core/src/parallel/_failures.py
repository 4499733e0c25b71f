"""Failures to bytes and back: whatever a user's exception class does, something that can be raised arrives."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from typing import Any

from parallel._culprit import find_culprit
from parallel._pickling import dumps
from parallel._task import Failure
from parallel.errors import ResultPicklingError

__all__ = ["dumps_exception", "pack_failure", "safe_text", "unpack_failure"]


def pack_failure(failure: Failure) -> tuple[bytes, str | None, str]:
    exception, text = failure.exception, failure.traceback_text
    return dumps_exception(exception), text, failure.worker


def unpack_failure(packed: tuple[bytes, str | None, str]) -> Failure:
    blob, text, worker = packed
    try:
        exception = pickle.loads(blob)  # noqa: S301 - from our own worker
        if not isinstance(exception, BaseException):
            raise TypeError(f"an exception became {exception!r}")
    except BaseException as error:
        exception = ResultPicklingError(
            f"the exception of a task cannot be unpickled in the caller: {error!r}", path="exception"
        )
        exception.__cause__ = error
    return Failure(exception, text, worker)


def dumps_exception(exception: BaseException) -> bytes:
    """Pickle an exception so that it can be unpickled, whatever its class does in `__init__`.

    An exception unpickles by calling its class with `args`, which fails where `__init__` takes other ones. So try it
    out here; where it fails, take the exception apart and put it together again without `__init__`.
    """
    try:
        blob = dumps(exception)
        # Only the type matters here: user code in __setstate__ may do as it likes.
        if type(pickle.loads(blob)).__qualname__ == type(exception).__qualname__:  # noqa: S301
            return blob
    except BaseException:  # noqa: S110 - the next way is for all that can go wrong with this one
        pass
    kind = type(exception)
    args = tuple(_picklable_or_text(value) for value in exception.args)
    state = {name: _picklable_or_text(value) for name, value in vars(exception).items()}
    try:
        blob = dumps((kind, args, state))
        _rebuild_exception(kind, args, state)
        return dumps(_Rebuilt(blob))
    except BaseException as error:
        path, reason = "exception", repr(error)
        found = find_culprit(kind, "type(exception)", dumps)
        if found is not None:
            path, reason = found
        return pickle.dumps(
            ResultPicklingError(
                f"a task raised {kind.__qualname__}: {safe_text(exception)}, which cannot be sent back: "
                f"{path}: {reason}",
                path=path,
            ),
            protocol=5,
        )


class _Rebuilt:
    """Pickles as the exception that it was made from."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def __reduce__(self) -> tuple[Callable[[bytes], BaseException], tuple[bytes]]:
        return _load_exception, (self._blob,)


def _load_exception(blob: bytes) -> BaseException:
    return _rebuild_exception(*pickle.loads(blob))  # noqa: S301 - from our own worker


def _rebuild_exception(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    exception = kind.__new__(kind, *args)
    # What OSError, SystemExit and others keep besides args (errno, code) is set by their __init__.
    built_in: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    with contextlib.suppress(Exception):
        built_in.__init__(exception, *args)
    # Not by assignment, which a class of the user's may refuse (a frozen dataclass does).
    BaseException.args.__set__(exception, args)  # type: ignore[attr-defined]
    exception.__dict__.update(state)
    return exception


def _picklable_or_text(value: object) -> object:
    try:
        pickle.loads(dumps(value))  # noqa: S301 - made here
    except BaseException:
        return f"<{type(value).__qualname__} that cannot be pickled: {safe_text(value, repr)}>"
    return value


def safe_text(value: object, text: Callable[[object], str] = str) -> str:
    try:
        return text(value)
    except BaseException as error:
        return f"<no text: {type(error).__qualname__}>"
