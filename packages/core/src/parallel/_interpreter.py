"""What state the interpreter is in."""

from __future__ import annotations

import threading
import warnings

__all__ = ["is_exiting", "warn_of_exit"]


def is_exiting() -> bool:
    """Tell whether the interpreter is on its way out: in an atexit handler, or later.

    Then threads and processes must not be started: from Python 3.12 on it is refused, and pools have ended theirs.
    threading marks its main thread as ended just before the atexit handlers run.
    """
    return not threading.main_thread().is_alive()


def warn_of_exit(stacklevel: int) -> None:
    """Warn that there will be no workers, at the place so many calls up."""
    warnings.warn(
        "tasks run one after the other instead of on workers: the interpreter is exiting and starts no threads or "
        "processes any more",
        stacklevel=stacklevel + 1,
    )
