"""Where a call takes events from, and where it leads to: its inbox, the sink of its results, who listens."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from parallel._task import Batch, Outcome

__all__ = ["ClosedInbox", "Event", "Inbox", "Listener", "Sink"]

#: Who handles it, with what, and when it happened; the time is the last argument of who handles it.
Event = tuple[Callable[..., None], tuple[Any, ...], float]
Inbox = SimpleQueue[Event]


class ClosedInbox(SimpleQueue[Event]):
    """What comes after the end of a call."""

    def put(self, item: Event, block: bool = True, timeout: float | None = None) -> None:
        """Drop it."""


class Sink(Protocol):
    """Where results go; called by the owner."""

    def deliver(self, start: int, values: list[Any]) -> None:
        """Take the results of one fragment, those of tasks `start` and following; must not block."""


class Listener(Protocol):
    """Who is told what happens to the call; called by the owner, per batch."""

    def batch_submitted(self, batch: Batch) -> None: ...

    def batch_done(self, batch: Batch, outcome: Outcome) -> None: ...

    def task_failed(self, index: int, exception: BaseException) -> None: ...
