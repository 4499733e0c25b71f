"""How many tasks to send next. Pure: told what batches took, asked for a size.

A batch costs one round trip of dispatch, so tasks shorter than that must share one. How long tasks are is not known
before they have run, and may change; but a batch carries a time budget and comes back when it is used up, so a size
that was guessed too large costs one budget at most. That is why sizes may grow fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["AdaptiveBatching", "BackendBatching", "Batching", "FixedBatching", "SingleBatching"]

#: Share of a worker's time that dispatch may cost: a batch should last this many times less than one round trip.
DISPATCH_SHARE = 0.02

#: What a round trip is taken to cost before the first was seen: a pipe to a local process and back, two wake-ups each
#: way, on a machine with two busy cores.
FIRST_ROUND_TRIP_SECONDS = 0.0002

#: How many round trips count as lately.
RECENT_ROUND_TRIPS = 8

#: Bounds of a batch's target time. Below, the clock and the bookkeeping per batch count; above, waiting for the first
#: results, and work that is lost with a worker, cost more than dispatch can.
MIN_TARGET_SECONDS = 0.002
MAX_TARGET_SECONDS = 2.0

#: A worker gives a batch back after this many target times.
BUDGET_FACTOR = 2.0

#: A shorter batch does not tell that tasks are slower than they were: what it takes to begin one is a part of it.
TELLING_SECONDS = 1e-4

#: How much larger than one that was seen to be too short the next batch may be.
GROWTH = 8

#: The largest batch: 8,192 no-op tasks last about a millisecond, so that dispatch is paid for; more would only hold
#: results back and take memory.
MAX_BATCH = 8192

#: The most that the arguments of a batch may take: how long tasks run says nothing of it, and so many of them, times
#: what is in flight, are in memory at a time. Writing 16 MB takes a few milliseconds, which pays for dispatch.
MAX_BATCH_BYTES = 16_000_000

#: Of an input of unknown length, a batch is at most this part of what a worker has done so far; but it may last as many
#: round trips: with a second batch at the worker, nothing waits for them.
BATCHES_OF_SHARE = 16
LEAST_ROUND_TRIPS = 5

#: What is left for the other workers at the end goes in so many batches at least; with so many workers, or fewer,
#: one by one.
LAST_BATCHES = 8

#: Nothing is held back for other workers in calls of fewer tasks for each, to which those batches would be much, nor
#: where a round trip takes longer.
TASKS_TO_HOLD = 400
MAX_HOLDING_SECONDS = 0.001

#: A second batch waits at the worker if a batch is shorter than this many round trips; else fetching the next one
#: costs less than 1 % of the time, and a task that waits behind a slow one could have run elsewhere.
QUEUE_BELOW_ROUND_TRIPS = 100


class Batching(Protocol):
    """What the scheduler needs of a policy."""

    @property
    def budget_seconds(self) -> float | None:
        """After how long a worker gives the rest of a batch back; None for never."""

    def next_size(self, remaining: int | None) -> int:
        """Give the size of the next batch, at least 1; `remaining` tasks are still to be sent, None if unknown."""

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        """Learn from a batch of `sent` tasks: `done` were run in `seconds`.

        `round_trip_seconds` is what it took besides, None if the batch waited behind another.
        """

    def queues(self) -> bool:
        """Tell whether a second batch should wait at a worker that has one."""

    @property
    def holds_last(self) -> bool:
        """Whether the last tasks, one for each worker but one, are held back for who is idle first."""

    @property
    def reads_ahead(self) -> bool:
        """Whether tasks may be read from the input before they can be sent."""


class _Measured:
    """What all policies learn: how long a task lasts, and how long a round trip."""

    reads_ahead = True

    def __init__(self) -> None:
        self.task_seconds: float | None = None
        self.round_trip_seconds = FIRST_ROUND_TRIP_SECONDS
        self._recent: deque[float] = deque(maxlen=RECENT_ROUND_TRIPS)
        #: The shortest one so far; None before there was one.
        self.least_round_trip_seconds: float | None = None

    @property
    def holds_last(self) -> bool:
        """Whether the last tasks are held back; see `Batching`."""
        return False

    def _learn(self, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        if done:
            seen = max(seconds / done, 1e-8)
            known = self.task_seconds
            # Slower counts at once, faster by halves: too small a batch costs a round trip, too large a one a budget.
            if known is None or seen < known:
                self.task_seconds = seen if known is None else (known + seen) / 2
            elif seconds >= TELLING_SECONDS:
                self.task_seconds = seen
        if round_trip_seconds is not None:
            # The smallest one seen lately: what is above it is waiting for a processor, or a worker's start, which
            # larger batches would not save. Drifts up, so that a slow network is believed after some batches.
            self._recent.append(round_trip_seconds)
            self.round_trip_seconds = max(min(*self._recent, self.round_trip_seconds * 1.5), 1e-5)
            least = self.least_round_trip_seconds
            if least is None or round_trip_seconds < least:
                self.least_round_trip_seconds = max(round_trip_seconds, 1e-5)

    def _queues(self, size: int) -> bool:
        if self.task_seconds is None:
            return False
        return self.task_seconds * size < QUEUE_BELOW_ROUND_TRIPS * self.round_trip_seconds


class FixedBatching(_Measured):
    """The size that the user gave. Batches are not cut short."""

    budget_seconds: float | None = None

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def next_size(self, remaining: int | None) -> int:
        """Give the size; see `Batching`."""
        return self.size

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        """Learn from a batch; see `Batching`."""
        self._learn(done, seconds, round_trip_seconds)

    def queues(self) -> bool:
        """Tell whether to queue; see `Batching`."""
        return self._queues(self.size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.size}>"


class BackendBatching(FixedBatching):
    """The size that the backend says, asked before each batch, for backends that override `compute_batch_size`."""

    def __init__(self, compute_batch_size: Callable[[], int | None]) -> None:
        super().__init__(1)
        self._compute = compute_batch_size

    def next_size(self, remaining: int | None) -> int:
        """Ask the backend; see `Batching`."""
        self.size = max(int(self._compute() or 1), 1)
        return self.size


class AdaptiveBatching(_Measured):
    """Batches that last as long as dispatch demands, and not longer.

    Parameters
    ----------
    n_jobs
        Number of workers among which the end of a sized input is divided.
    max_size
        The largest batch.
    bytes_per_task
        Tells what a task took lately to be sent; 0 where that is not known, or nothing.
    """

    def __init__(
        self, n_jobs: int, max_size: int = MAX_BATCH, bytes_per_task: Callable[[], float] = lambda: 0.0
    ) -> None:
        super().__init__()
        self._bytes_per_task = bytes_per_task
        self._n_jobs = n_jobs
        self._max_size = max(max_size, 1)
        self._size = 1
        self._n_done = self._most_remaining = 0
        self._aim()

    def start_with(self, task_seconds: float, round_trip_seconds: float) -> None:
        """Begin with what is known of such tasks, instead of finding it out by small batches."""
        self.task_seconds = task_seconds
        self.round_trip_seconds = round_trip_seconds
        self._aim()
        self._size = self._ideal()

    def start_over(self) -> None:
        """Forget what `start_with` said."""
        self.task_seconds = None
        self.round_trip_seconds = FIRST_ROUND_TRIP_SECONDS
        self._aim()
        self._size = 1

    def _ideal(self) -> int:
        assert self.task_seconds is not None
        return max(min(int(self.target_seconds / self.task_seconds), self._max_size), 1)

    def _aim(self) -> None:
        #: How long a batch should last.
        self.target_seconds = min(max(self.round_trip_seconds / DISPATCH_SHARE, MIN_TARGET_SECONDS), MAX_TARGET_SECONDS)
        #: See `Batching`.
        self.budget_seconds = self.target_seconds * BUDGET_FACTOR

    def next_size(self, remaining: int | None) -> int:
        """Give the size; see `Batching`.

        Towards the end of an input of known length batches shrink, so that all workers end together: half a fair share
        of what is left (guided self-scheduling), but no shorter than a round trip, as long as that leaves a task
        for each other worker: should tasks turn slow, what waits behind the first of them in its batch comes back when
        that is done, and until then the others have something to do. Where the length is not known the
        input may end any time, and what workers have in hand then is how far apart they end: a small part of a worker's
        share of what was done so far.
        """
        size = self._size
        if size > 1 and size * (weight := self._bytes_per_task()) > MAX_BATCH_BYTES:
            size = max(int(MAX_BATCH_BYTES / weight), 2)  # with one nobody can tell whether it is one for all
        if self.task_seconds is not None:
            if remaining is not None:
                fair = -(-remaining // (2 * self._n_jobs))  # rounded up
                least_seconds = self.round_trip_seconds
            else:
                fair = self._n_done // (BATCHES_OF_SHARE * self._n_jobs)
                # The shortest: with many workers, others have waiting for a processor in them.
                round_trip = self.least_round_trip_seconds or self.round_trip_seconds
                least_seconds = max(LEAST_ROUND_TRIPS * round_trip, MIN_TARGET_SECONDS)
            least = int(least_seconds / self.task_seconds)
            if remaining is not None:
                self._most_remaining = max(self._most_remaining, remaining)
                if self.holds_last:
                    least = min(least, max(remaining - self._n_jobs + 1, -(-remaining // LAST_BATCHES)))
            size = min(size, max(fair, least, 1))
        return size

    @property
    def holds_last(self) -> bool:
        """Tell whether to hold some back; see `Batching`. Not in short calls, nor where that costs a long way."""
        is_near = self.round_trip_seconds <= MAX_HOLDING_SECONDS
        return is_near and max(self._most_remaining, self._n_done) >= TASKS_TO_HOLD * self._n_jobs

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        """Learn from a batch; see `Batching`."""
        self._n_done += done
        self._learn(done, seconds, round_trip_seconds)
        self._aim()
        if self.task_seconds is not None:
            self._size = min(self._ideal(), max(GROWTH * sent, self._size))

    def queues(self) -> bool:
        """Tell whether to queue; see `Batching`."""
        return self._queues(self._size)

    def __repr__(self) -> str:
        return f"<AdaptiveBatching {self._size} of at most {self._max_size}>"


class SingleBatching:
    """Another policy, but for as long as what tasks hold may change before the next one is read.

    Then each task is sent before the next is read, alone.

    Parameters
    ----------
    policy
        For afterwards.
    must_be_single
        Tells whether that is so now.
    """

    def __init__(self, policy: Batching, must_be_single: Callable[[], bool]) -> None:
        self._policy = policy
        self._must_be_single = must_be_single

    @property
    def budget_seconds(self) -> float | None:
        """Give the budget; see `Batching`."""
        return self._policy.budget_seconds

    def next_size(self, remaining: int | None) -> int:
        """Give the size; see `Batching`."""
        return 1 if self._must_be_single() else self._policy.next_size(remaining)

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        """Learn from a batch; see `Batching`."""
        self._policy.record(sent, done, seconds, round_trip_seconds)

    def queues(self) -> bool:
        """Tell whether to queue; see `Batching`."""
        return self._policy.queues()

    @property
    def holds_last(self) -> bool:
        """Whether the last tasks are held back; see `Batching`."""
        return self._policy.holds_last

    @property
    def reads_ahead(self) -> bool:
        """Whether tasks may be read before they can be sent; see `Batching`."""
        return not self._must_be_single()
