"""When the limits of a call and of its tasks may have passed. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container
from typing import NamedTuple

from parallel._task import Batch

__all__ = ["NO_LIMITS", "Limits", "Watch"]


class Limits(NamedTuple):
    """The time limits of a call.

    Parameters
    ----------
    task_seconds
        Limit of one task, from its start; None for none.
    call_seconds
        Limit of the whole call; None for none.
    task_error
        Makes the error for a task: called with the batch, the position in it and the seconds it ran.
    call_error
        Makes the error for the call: called with the seconds it ran.
    """

    task_seconds: float | None = None
    call_seconds: float | None = None
    task_error: Callable[[Batch, int, float], BaseException] | None = None
    call_error: Callable[[float], BaseException] | None = None


NO_LIMITS = Limits()


class Watch:
    """Knows for each batch in flight when a task of it may pass the limit, at the earliest."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []

    def set(self, batch_id: int, at: float) -> None:
        """Look at a batch at this time; an earlier time for the same batch still holds."""
        heapq.heappush(self._due, (at, batch_id))

    def next(self, alive: Container[int]) -> float | None:
        """Give the earliest time of a batch that is still in flight."""
        while self._due and self._due[0][1] not in alive:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take(self, now: float, alive: Container[int]) -> list[int]:
        """Give the batches that are due, and forget their times."""
        taken: dict[
            int, None
        ] = {}  # in this order; a limit that ten thousand batches share makes that many due at once
        while (at := self.next(alive)) is not None and at <= now:
            taken[heapq.heappop(self._due)[1]] = None
        return list(taken)
