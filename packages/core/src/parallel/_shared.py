"""`Shared`: an object that several calls use, written once for all workers of this host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

from parallel import _imports
from parallel._exports import Exports
from parallel._memory import Sharing, warn_of_pipe
from parallel._parcel import Packed, pack
from parallel._pickling import dumps
from parallel._region import Folder

__all__ = ["Shared", "by_reference", "is_any_known", "n_attached", "unwrapped"]

#: Buffers of at least this size, or of the call's limit if that is less, are written apart.
_LIMIT = 64 << 10

#: Whether what is pickled here goes to a process of this host, which can map what is shared.
_BY_REFERENCE: ContextVar[bool] = ContextVar("parallel_by_reference", default=False)


class _Count:
    """How many `Shared` there are in this process, and how many have arrived from another one."""

    known = 0
    attached = 0
    lock = threading.Lock()


class Shared:
    """An object that many tasks, of several calls, are to have; made by `Parallel.share`.

    As an argument of a task it arrives as the object itself. Deeper, in a container or a closure, the task gets this
    handle and calls `get`. What tasks get is what the object was when it was shared; arrays in it are as `mmap_mode`
    says. With workers that are threads it is the caller's own object.

    It is released by `close`, at the end of a ``with`` block, or when the last reference to it is dropped.
    """

    def __init__(self, value: object, sharing: Sharing | None, temp_folder: str | None) -> None:
        self._value = value
        self._is_closed = False
        self._mode: str | None = None
        self._packed: bytes | Packed | None = None
        self._data: bytes | None = None
        self._folder = Folder(temp_folder)
        self._exports: Exports | None = None
        _count(1)
        if sharing is not None:
            self._write(sharing)

    def _write(self, sharing: Sharing) -> None:
        reasons: list[str] = []
        self._exports = Exports(min(sharing.limit, _LIMIT), self._folder, reasons.append)
        # Not released before the end: what is written stays.
        self._packed, _ = pack(self._value, self._exports.new_export())
        self._mode = sharing.mode or "r"
        if reasons:
            warn_of_pipe(reasons[0])

    def get(self) -> Any:
        """Give the object: the caller's own, or in another process one made of what is shared.

        Raises
        ------
        ValueError
            If it was closed.
        """
        if self._is_closed:
            raise ValueError("this shared object was closed")
        if self._value is not _ABSENT:
            return self._value
        assert self._packed is not None
        value = _imports.unpack(self._packed, self._mode)
        if self._mode != "c":  # else each task has one of its own to write to
            self._value = value
        return value

    def close(self) -> None:
        """Give the memory back; tasks that have the object keep it."""
        self._is_closed = True
        self._value = None
        self._packed = self._data = None
        exports, self._exports = self._exports, None
        if exports is not None:
            exports.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_exports"):
            self.close()
            _count(-1)

    def __reduce__(self) -> tuple[Callable[..., Shared], tuple[Any, ...]]:
        if self._is_closed:
            raise ValueError("this shared object was closed")
        if _BY_REFERENCE.get() and self._packed is not None:
            return _attach, (self._packed, self._mode)
        if self._data is None:
            self._data = dumps(self.get())
        return _attach, (self._data, None)

    def __repr__(self) -> str:
        return "<Shared, closed>" if self._is_closed else f"<Shared {type(self._value).__name__}>"


class _Absent:
    """The type of what stands for an object that was not unpickled yet."""


_ABSENT = _Absent()


def _attach(packed: bytes | Packed, mode: str | None) -> Shared:
    shared = Shared(_ABSENT, None, None)
    shared._packed, shared._mode = packed, mode
    _Count.attached += 1
    return shared


def _count(change: int) -> None:
    with _Count.lock:
        _Count.known += change


def is_any_known() -> bool:
    """Tell whether there may be a `Shared` among the arguments of a task."""
    return _Count.known > 0


def n_attached() -> int:
    """Give how many have arrived so far; more than before, and there may be some in what was just unpickled."""
    return _Count.attached


@contextmanager
def by_reference(is_possible: bool) -> Iterator[None]:
    """Pickle what is shared by where it is, if that `is_possible`, and not by value."""
    token = _BY_REFERENCE.set(is_possible)
    try:
        yield
    finally:
        _BY_REFERENCE.reset(token)


Call = tuple[Any, Iterable[Any], dict[str, Any]]


def unwrapped(call: Call) -> Call:
    """Give a call with the objects in the place of those of its arguments that are shared.

    Raises
    ------
    OutOfReachError
        If what another process shares cannot be had.
    """
    function, args, kwargs = call
    try:
        if isinstance(args, tuple | list) and any(type(value) is Shared for value in args):
            args = [value.get() if type(value) is Shared else value for value in args]
        if any(type(value) is Shared for value in kwargs.values()):
            kwargs = {name: value.get() if type(value) is Shared else value for name, value in kwargs.items()}
    except _imports.OutOfReachError:
        raise
    except Exception as error:
        return _raise, (error,), {}
    return function, args, kwargs


def _raise(error: Exception) -> None:
    raise error
