"""Policies for the sizes of batches that are harder to live with than any real one."""

from __future__ import annotations

import random

from parallel._batching import FixedBatching


class EagerBatching(FixedBatching):
    """Always lets another batch wait at a worker, so that all places are taken that the workers have."""

    def queues(self) -> bool:
        return True


class WhimsicalBatching:
    """A policy that never says the same twice."""

    def __init__(self, seed: int, max_size: int, budget_seconds: float | None = 0.5) -> None:
        self._random = random.Random(seed)
        self.max_size = max_size
        self.budget_seconds = budget_seconds
        self.reads_ahead = seed % 4 > 0
        self.holds_last = seed % 3 == 0

    def __repr__(self) -> str:
        return f"<WhimsicalBatching of at most {self.max_size}>"

    def next_size(self, remaining: int | None) -> int:
        return self._random.randint(1, self.max_size)

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        assert 0 <= done <= sent, "more tasks ran than were sent"
        assert seconds >= 0, "a batch that took less than no time"
        assert round_trip_seconds is None or round_trip_seconds >= 0, "a round trip of less than no time"

    def queues(self) -> bool:
        return self._random.random() < 0.5
