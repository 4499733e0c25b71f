"""Acts for the owner of a call while that is inside the user's input iterator: ends what is late, or all."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic

__all__ = ["LateWatch"]


class _Said(enum.Enum):
    LEAVE = enum.auto()
    CLOSE = enum.auto()
    STOP = enum.auto()


class LateWatch:
    """A thread that looks after things between `enter` and `leave`; started at the first `enter` that needs it.

    Parameters
    ----------
    look
        Called in that thread when a deadline passes; gives the next one, or None.
    end_all
        Called in that thread when the call is closed.
    clock
        Monotonic seconds.
    """

    def __init__(
        self, look: Callable[[], float | None], end_all: Callable[[], None], clock: Callable[[], float] = monotonic
    ) -> None:
        self._look = look
        self._end_all = end_all
        self._clock = clock
        # The next deadline, None for none, when the owner enters; or what else is said.
        self._inbox: SimpleQueue[float | _Said | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def enter(self, deadline: float | None, may_be_closed: bool = False) -> None:
        """The owner goes into user code; `deadline` is the next one, None if there is none.

        `may_be_closed` tells whether somebody else may close the call meanwhile.
        """
        if self._thread is None:
            if deadline is None and not may_be_closed:
                return
            self._thread = threading.Thread(target=self._run, name="parallel-deadlines", daemon=True)
            self._thread.start()
        self._inbox.put(deadline)

    def leave(self) -> None:
        """The owner is back and sees to everything itself."""
        if self._thread is not None:
            self._inbox.put(_Said.LEAVE)

    def close(self) -> None:
        """End everything now, if the owner cannot; called by any thread, in a finaliser too."""
        self._inbox.put(_Said.CLOSE)

    def stop(self) -> None:
        """End the thread and wait for it."""
        if self._thread is not None:
            self._inbox.put(_Said.STOP)
            self._thread.join()
            self._thread = None
        # Or the call that this belongs to would be kept, with all it has, until the next garbage collection.
        self._look = self._end_all = _nothing

    def _run(self) -> None:
        deadline: float | None = None
        is_inside = False
        while True:
            timeout = None if deadline is None else max(deadline - self._clock(), 0.0)
            try:
                item = self._inbox.get(timeout=timeout)
            except Empty:
                deadline = self._look()
                continue
            if item is _Said.STOP:
                return
            if item is _Said.CLOSE:
                if is_inside:
                    self._end_all()
                continue
            is_inside = item is not _Said.LEAVE
            deadline = None if isinstance(item, _Said) else item


def _nothing() -> None:
    return None
