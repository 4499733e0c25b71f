"""Ends what is late while the owner of a call is inside the user's input iterator and cannot act."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic

__all__ = ["LateWatch"]


def _nothing() -> None:
    return None


class LateWatch:
    """A thread that looks after the deadlines between `enter` and `leave`; started at the first `enter`.

    Parameters
    ----------
    look
        Called in that thread when a deadline passes; gives the next one, or None.
    clock
        Monotonic seconds.
    """

    def __init__(self, look: Callable[[], float | None], clock: Callable[[], float] = monotonic) -> None:
        self._look = look
        self._clock = clock
        # A deadline, None for "no deadline now", False for the end.
        self._inbox: SimpleQueue[float | None | bool] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def enter(self, deadline: float | None) -> None:
        """The owner goes into user code; `deadline` is the next one, None if there is none."""
        if self._thread is None:
            if deadline is None:
                return
            self._thread = threading.Thread(target=self._run, name="parallel-deadlines", daemon=True)
            self._thread.start()
        self._inbox.put(deadline)

    def leave(self) -> None:
        """The owner is back and sees to the deadlines itself."""
        if self._thread is not None:
            self._inbox.put(None)

    def stop(self) -> None:
        """End the thread and wait for it."""
        if self._thread is not None:
            self._inbox.put(False)
            self._thread.join()
            self._thread = None
        self._look = _nothing  # or the call that this belongs to would be kept, with all it has, until the next gc

    def _run(self) -> None:
        deadline: float | None = None
        while True:
            timeout = None if deadline is None else max(deadline - self._clock(), 0.0)
            try:
                item = self._inbox.get(timeout=timeout)
            except Empty:
                deadline = self._look()
                continue
            if item is False:
                return
            deadline = item
