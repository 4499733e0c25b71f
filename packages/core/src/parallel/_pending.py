"""Tasks that were read from the input and are not with a worker. Pure.

Three places: what was read and never sent, in the order of the input; what came back unrun or is to run again, the
earliest first; and what is to run again only after a delay.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

__all__ = ["Pending"]

#: Taking tasks from the front of a list costs its length, so in a longer one they are only marked as taken first.
_LONG = 8192


class Pending:
    """The tasks that wait."""

    def __init__(self) -> None:
        self.n_read = 0
        self._buffer: list[Any] | range = []
        self._buffer_at = 0  # what is before was taken already
        #: How many were never sent.
        self.n_buffered = 0
        # (index of the first task, tasks, whether to run it alone)
        self._returned: list[tuple[int, Sequence[Any], bool]] = []
        self._n_returned = 0
        # (when, index, task, whether to run it alone)
        self._delayed: list[tuple[float, int, Any, bool]] = []

    def __len__(self) -> int:
        return self.n_buffered + self._n_returned + len(self._delayed)

    @property
    def n_ready(self) -> int:
        """How many could be sent now."""
        return self.n_buffered + self._n_returned

    def read(self, tasks: list[Any] | range) -> None:
        """Add tasks from the input: all in lists, or all parts of one range."""
        self.n_read += len(tasks)
        if not self.n_buffered:
            self._buffer, self._buffer_at = tasks, 0
        elif isinstance(self._buffer, range):
            assert isinstance(tasks, range)
            self._buffer, self._buffer_at = range(self._buffer[self._buffer_at], tasks.stop, tasks.step), 0
        else:
            self._buffer.extend(tasks)
        self.n_buffered += len(tasks)

    def put_back(self, start: int, tasks: Sequence[Any], alone: bool = False) -> None:
        """Add tasks that were with a worker: neighbours in the input, from index `start`; to run `alone`, or not."""
        if not tasks:
            return
        if alone:
            for index, task in enumerate(tasks, start):
                heapq.heappush(self._returned, (index, [task], True))
        else:
            heapq.heappush(self._returned, (start, tasks, False))
        self._n_returned += len(tasks)

    def delay(self, at: float, index: int, task: Any, alone: bool) -> None:
        """Add a task that is not to run before a time."""
        heapq.heappush(self._delayed, (at, index, task, alone))

    def next_due(self) -> float | None:
        """Tell when `ripen` has something to do."""
        return self._delayed[0][0] if self._delayed else None

    def ripen(self, now: float) -> None:
        """Let go what was delayed until now."""
        while self._delayed and self._delayed[0][0] <= now:
            _, index, task, alone = heapq.heappop(self._delayed)
            self.put_back(index, [task], alone)

    def first_returned(self) -> tuple[int, bool] | None:
        """Give the index of the earliest task that came back, and whether it is to run alone; None if none did."""
        if not self._returned:
            return None
        start, _, alone = self._returned[0]
        return start, alone

    def take_returned(self, size: int) -> tuple[int, Sequence[Any], bool]:
        """Take up to `size` of the earliest tasks that came back."""
        start, tasks, alone = heapq.heappop(self._returned)
        self._n_returned -= len(tasks)
        if len(tasks) > size:
            self.put_back(start + size, tasks[size:])
            tasks = tasks[:size]
        return start, tasks, alone

    def take_buffered(self, size: int) -> tuple[int, Sequence[Any]]:
        """Take up to `size` tasks that were never sent."""
        start = self.n_read - self.n_buffered
        if self.n_buffered <= size:
            tasks = self._buffer[self._buffer_at :] if self._buffer_at else self._buffer
            self._buffer, self._buffer_at, self.n_buffered = [], 0, 0
            return start, tasks
        self.n_buffered -= size
        end = self._buffer_at + size
        tasks = self._buffer[self._buffer_at : end]
        if isinstance(self._buffer, range) or end < _LONG < len(self._buffer):
            self._buffer_at = end
        else:
            del self._buffer[:end]
            self._buffer_at = 0
        return start, tasks

    def __repr__(self) -> str:
        return f"{self.n_buffered} buffered, {self._n_returned} returned, {len(self._delayed)} delayed"
