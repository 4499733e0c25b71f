"""Runs what may hang, for a bounded time."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["run_bounded"]

T = TypeVar("T")


def run_bounded(function: Callable[..., T], *args: Any, seconds: float = 30.0, **kwargs: Any) -> T:
    """Call a function on a daemon thread and give what it returns, or raise what it raises.

    Parameters
    ----------
    function, *args, **kwargs
        What to call.
    seconds : float, default 30
        How long to wait. Not a measurement: only what hangs should ever reach it.

    Raises
    ------
    AssertionError
        If it has not returned by then; with the stacks of all threads.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(function(*args, **kwargs))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised.pop()
    if not returned:
        raise AssertionError(f"still running after {seconds:g} s\n\n{_stacks()}")
    return returned[0]


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)
