"""What calls have shown of functions: how long a task lasts, and a round trip. Where the next call begins.

Without it every call would find that out again with batches of one task, then eight, and so on: for a thousand short
tasks that is most of the time. A guess that turns out wrong costs what a batch that is cut short costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from parallel._batching import AdaptiveBatching
from parallel._pickling import brings_nothing, is_module_function
from parallel._states import State

__all__ = ["HeadStart", "Key", "are_small", "key_of", "known_of", "remember"]

#: So many functions are remembered, those of which there was news last.
MAX_FUNCTIONS = 128

Key = tuple[str, object]

#: By backend, and by what stands for the function: seconds of a task and of a round trip.
_known: dict[Key, tuple[float, float]] = {}

#: Arguments of which many may be read before the first was sent: they cannot change, and are small.
_SMALL = frozenset({bool, bytes, complex, float, int, str, type(None)})
_MAX_LENGTH = 1000


class HeadStart:
    """Lets a call begin with what earlier calls of its function have shown, and remembers what it has shown itself.

    Parameters
    ----------
    backend_name
        The same function may take another time on another backend.
    batching
        The policy of the call.
    total
        Length of the input, if known.
    trust
        Told whether tasks may be read before the first was sent, though the input may change what it has handed out;
        None if they may be anyhow.
    """

    def __init__(
        self,
        backend_name: str,
        batching: AdaptiveBatching,
        total: int | None,
        trust: Callable[[bool], None] | None = None,
    ) -> None:
        self._backend_name = backend_name
        self._batching = batching
        self._total = total
        self._trust = trust
        self._key: Key | None = None

    def note(self, key: Key | None) -> None:
        """Be told under what to remember the function, where `begin` is not asked."""
        self._key = key

    def begin(self, function: Callable[..., Any] | None, args: Iterable[Any]) -> int:
        """Tell how many tasks to read at first; called with the first of them."""
        self._key = key_of(self._backend_name, function)
        known = known_of(self._key)
        if known is None or not are_small(args):
            return 1
        if self._trust is not None:
            if not brings_nothing(function):
                return 1
            self._trust(True)
        self._batching.start_with(*known)
        return self._batching.next_size(self._total)

    def allows(self, values: Iterable[object]) -> bool:
        """Look at arguments of tasks that were read with the first; if any is large, or may be changed, start anew."""
        if are_small(values):
            return True
        if self._trust is not None:
            self._trust(False)
        self._batching.start_over()
        return False

    def end(self, state: State) -> None:
        """Remember how long tasks took; called when the call is over."""
        seconds, round_trip = self._batching.task_seconds, self._batching.least_round_trip_seconds
        if self._key is None or seconds is None or round_trip is None or state is not State.FINISHED:
            return
        remember(self._key, seconds, round_trip)


def key_of(backend_name: str, function: object) -> Key | None:
    """Give under what a function is remembered; None if it is not."""
    if type(function) is FunctionType:
        return backend_name, function.__code__  # functions that are made anew have it in common
    if is_module_function(function):  # not a method: its object, and all that this holds, would be kept
        return backend_name, function
    return None


def known_of(key: Key | None) -> tuple[float, float] | None:
    """Give the seconds of a task and of a round trip, if they are known."""
    return _known.get(key) if key is not None else None


def remember(key: Key | None, seconds: float, round_trip_seconds: float) -> None:
    """Note what a call has shown."""
    if key is None:
        return
    known = _known.pop(key, None)
    if known is not None:
        # A call may be one large batch. Drifts up as within a call, should the way have become longer.
        round_trip_seconds = min(round_trip_seconds, known[1] * 1.1)
    _known[key] = seconds, round_trip_seconds
    if len(_known) > MAX_FUNCTIONS:
        with contextlib.suppress(KeyError, RuntimeError, StopIteration):  # another thread does the same
            del _known[next(iter(_known))]


def are_small(values: Iterable[object]) -> bool:
    """Tell whether values cannot change, and are small."""
    values = list(values)
    kinds = set(map(type, values))
    return kinds <= _SMALL and (kinds.isdisjoint((bytes, str)) or all(map(_is_small, values)))


def _is_small(value: object) -> bool:
    return type(value) in _SMALL and (not isinstance(value, bytes | str) or len(value) <= _MAX_LENGTH)
