"""A clock that stands still until somebody goes on to the next thing that is to happen."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Virtual seconds, and what is to happen at which."""

    def __init__(self) -> None:
        self.now = 0.0
        # Numbered, so that of two things at one time the one that was planned first comes first.
        self._plans: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._n_planned = 0

    def plan(self, at: float, happen: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time."""
        self._n_planned += 1
        heapq.heappush(self._plans, (max(at, self.now), self._n_planned, happen, arguments))

    @property
    def next(self) -> float | None:
        """When the next thing happens; None if nothing is planned."""
        return self._plans[0][0] if self._plans else None

    def go_on(self) -> None:
        """Go to the next thing, and let it happen."""
        self.now, _, happen, arguments = heapq.heappop(self._plans)
        happen(*arguments)

    def go_to(self, at: float) -> None:
        """Let everything happen until a time."""
        while self._plans and self._plans[0][0] <= at:
            self.go_on()
        self.now = max(self.now, at)
