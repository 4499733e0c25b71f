"""Under which conditions a simulated cluster works: what takes how long, and what goes wrong how often."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Conditions:
    """Shares are of 1, times are seconds.

    Parameters
    ----------
    task_seconds
        How long each task takes.
    latency_seconds, jitter_seconds
        What a message is under way for at least, and at most besides.
    start_seconds
        How long a new worker takes to start.
    endless, poisonous
        Tasks that end only after `endless_seconds` more, if ever, and tasks that end their worker; with their first
        `bad_attempts` attempts.
    unsendable
        Tasks that cannot be pickled.
    failing
        Share of tasks that raise, at each attempt.
    stillborn, dying, dying_for_others
        Share of batches whose worker ends before it has begun them; during them; because another call has ended it.
    unclear, blind, out_of_reach
        Share of batches that fail as a whole; whose worker cannot see the board; or cannot reach what is shared.
    rejected
        Share of batches that the backend does not take.
    twice, silent, late
        Share of callbacks that come twice; that do not come; that come after so much more time as `late_seconds` says.
    outages, loses_messages
        When the connection is lost, from when to when; and whether that loses what is under way, or delays it.
    reports_starts
        Whether the backend reports when a batch has begun.
    reading, reads_at_most, tells_end, fails_at
        How long the input takes each time, how many tasks it gives each time, whether it says with the last task that
        there are no more, and after how many tasks it raises.
    consuming, closes_at
        How long the consumer takes for each fragment, and when it closes the call.
    """

    task_seconds: list[float]
    latency_seconds: float = 0.0001
    jitter_seconds: float = 0.0
    start_seconds: float = 0.0
    endless: frozenset[int] = frozenset()
    endless_seconds: float = math.inf
    poisonous: frozenset[int] = frozenset()
    bad_attempts: int = 10**9
    unsendable: frozenset[int] = frozenset()
    failing: float = 0.0
    stillborn: float = 0.0
    dying: float = 0.0
    dying_for_others: float = 0.0
    unclear: float = 0.0
    blind: float = 0.0
    out_of_reach: float = 0.0
    rejected: float = 0.0
    twice: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    late_seconds: float = 0.05
    outages: list[tuple[float, float]] = field(default_factory=list)
    loses_messages: bool = False
    reports_starts: bool = False
    reading: float = 0.0
    reads_at_most: int | None = None
    tells_end: bool = True
    fails_at: int | None = None
    consuming: float = 0.0
    closes_at: float | None = None

    def outage_at(self, at: float) -> float | None:
        """Give when the outage ends that is at a time; None if there is none."""
        return next((end for begin, end in self.outages if begin <= at < end), None)
