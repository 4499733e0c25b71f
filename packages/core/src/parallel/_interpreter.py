"""What state the interpreter is in."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from types import FrameType

__all__ = ["EXITING", "is_exiting", "place_outside", "process_token", "warn_of_exit", "warn_outside"]


#: Why there are no workers then.
EXITING = "the interpreter is exiting and starts no threads or processes any more"


@functools.cache
def process_token() -> str:
    """Give what nobody else can know, and no other process has."""
    return os.urandom(16).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process_token.cache_clear)


def is_exiting() -> bool:
    """Tell whether the interpreter is on its way out: in an atexit handler, or later.

    Then threads and processes must not be started: from Python 3.12 on it is refused, and pools have ended theirs.
    threading marks its main thread as ended just before the atexit handlers run.
    """
    return not threading.main_thread().is_alive()


def place_outside() -> tuple[str, int]:
    """Give file and line of the code that called into this package."""
    frame = _frame_outside()
    return frame.f_code.co_filename, frame.f_lineno


def warn_outside(text: str) -> None:
    """Warn at the place that called into this package."""
    frame = _frame_outside()
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    place = frame.f_code.co_filename, frame.f_lineno, names.get("__name__")
    warnings.warn_explicit(text, RuntimeWarning, *place, registry)


#: This package, and those of its backends.
_OURS = ("parallel.", "parallel_backend_")


def _frame_outside() -> FrameType:
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_OURS):
        frame = frame.f_back
    return frame


def warn_of_exit(stacklevel: int) -> None:
    """Warn that there will be no workers, at the place so many calls up."""
    warnings.warn(
        f"tasks run one after the other instead of on workers: {EXITING}",
        stacklevel=stacklevel + 1,
    )
