"""What runs next, and on which worker. Pure.

Holds the tasks that wait, the batches in flight, the workers' lanes and the window; knows nothing of results and
failures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel._batching import Batching, FixedBatching, SingleBatching
from parallel._lanes import Lanes
from parallel._pending import Pending
from parallel._retry import Attempts
from parallel._task import Batch, Kind

__all__ = ["Dispatch", "Flight", "Window"]

#: How many tasks to read at once when the whole input is to be read ahead (``pre_dispatch="all"``).
_READ_AHEAD = 8192


class Window(NamedTuple):
    """How much may run beyond what was consumed."""

    batches: int
    tasks: int


class Flight:
    """A batch that is with the backend."""

    __slots__ = ("alone", "batch", "expired", "is_collateral", "queued", "submitted_at")

    def __init__(self, batch: Batch, submitted_at: float, queued: bool, alone: bool) -> None:
        self.batch = batch
        #: Or when it was reported to have started.
        self.submitted_at = submitted_at
        #: Whether it waited behind another batch of its worker.
        self.queued = queued
        #: Whether its one task is suspected to have ended a worker, and has one for itself.
        self.alone = alone
        #: Position and error of the task that passed its limit, while its worker is being ended.
        self.expired: tuple[int, BaseException] | None = None
        #: Whether its loss is our own doing, for the sake of another batch.
        self.is_collateral = False


class Dispatch:
    """The outgoing side of a call; for the parameters see `Scheduler`."""

    def __init__(
        self,
        *,
        n_jobs: int,
        batching: Batching,
        pre_dispatch: int | None,
        depth: int,
        window: Window | None,
        total: int | None,
        kind: Kind,
        function: Callable[..., Any] | None,
        loses_all: bool,
        attempts: Attempts,
    ) -> None:
        self.batching = batching
        self.pending = Pending()
        self.lanes = Lanes(n_jobs, depth)
        self.flights: dict[int, Flight] = {}
        self.max_in_flight = n_jobs * depth if pre_dispatch is None else min(pre_dispatch, n_jobs * depth)
        self.n_dispatched = 0
        #: Whether the input has no more.
        self.is_exhausted = False
        self._pre_dispatch = pre_dispatch
        self._depth = depth
        self._window = window
        self._total = total
        self._kind = kind
        self._function = function
        self._loses_all = loses_all
        self._attempts = attempts
        self._tasks_in_flight = 0
        self._n_alone = 0
        self._next_id = 0
        # What was accepted and not yet consumed; only counted where there is a window.
        self._held_tasks = 0
        self._held_fragments = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self.flights and not len(self.pending)

    def wanted(self) -> int:
        """Tell how many tasks to read from the input now; 0 for none."""
        if self.is_exhausted:
            return 0
        if not self.batching.reads_ahead and (self.pending.n_buffered or self._next_load() is None):
            return 0
        if self._pre_dispatch is None:
            return _READ_AHEAD if self.batching.reads_ahead else 1
        size = self._next_size()
        ahead = self.pending.n_ready  # what waits for its next attempt is no reason to let workers wait
        batches = len(self.flights) + ahead // size
        if batches >= self._pre_dispatch:
            return 0
        room = size - ahead % size
        window = self._window
        if window is not None:
            if batches + self._held_fragments >= window.batches:
                return 0
            room = min(room, window.tasks - self._tasks_in_flight - self._held_tasks - len(self.pending))
        return max(room, 0)

    def hold(self, tasks: int) -> None:
        """Count a fragment of results that was accepted."""
        if self._window is not None:
            self._held_tasks += tasks
            self._held_fragments += 1

    def consume(self, tasks: int) -> None:
        """Count a fragment of results that was consumed."""
        if self._window is not None:
            self._held_tasks -= tasks
            self._held_fragments -= 1

    def put_back(self, batch: Batch, begin: int, end: int, alone: bool = False) -> None:
        """Let the tasks of a batch from position `begin` to before `end` wait again; to run `alone`, or not."""
        if begin < end:
            self.n_dispatched -= end - begin
            self.pending.put_back(batch.start + begin, batch.tasks[begin:end], alone)

    def delay(self, batch: Batch, position: int, at: float, alone: bool) -> None:
        """Let one task of a batch wait until a time."""
        self.n_dispatched -= 1
        self.pending.delay(at, batch.start + position, batch.tasks[position], alone)

    def go_blind(self) -> None:
        """From now on, batches of one task and one for a worker."""
        must_be_single = not self.batching.reads_ahead
        self.batching = SingleBatching(FixedBatching(1), lambda: must_be_single)
        self._depth = 1

    def launch_next(self, now: float, is_next: Callable[[int], bool]) -> Batch | None:
        """Put the next batch in flight and give it, for the driver to submit; None if nothing can go.

        `is_next` tells of an index whether all that is held waits for it.
        """
        if not self.pending.n_ready or (load := self._next_load()) is None:
            return None
        cut = self._cut(load == 0, is_next)
        return self._launch(*cut, load > 0, now) if cut is not None else None

    def land(self, batch_id: int) -> Flight | None:
        """Take a batch out of flight; its worker is free for another one."""
        flight = self.flights.pop(batch_id, None)
        if flight is not None:
            self._leave(flight)
            self.lanes.release(flight.batch.lane)
        return flight

    def leave(self, batch_id: int) -> Flight | None:
        """Take a batch out of flight whose worker is stuck with it: the lane is given up."""
        flight = self.flights.pop(batch_id, None)
        if flight is not None:
            self._leave(flight)
            self.lanes.give_up(flight.batch.lane)
        return flight

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _next_load(self) -> int | None:
        """Give how many batches the worker has that would get the next one; None if none can take one."""
        if len(self.flights) >= self.max_in_flight:
            return None
        load = self.lanes.next_load()
        if not load:
            return load
        if self.is_exhausted and self.pending.n_ready < self.lanes.count and self.batching.holds_last:
            return None  # the last tasks, one for each other worker, are for who is idle first
        return load if load < self._depth and self.batching.queues() else None

    def _next_size(self) -> int:
        ahead = self.pending.n_ready
        remaining = None
        if self.is_exhausted:
            remaining = ahead
        elif self._total is not None and self._total > self.pending.n_read:
            remaining = self._total - self.pending.n_read + ahead
        return self.batching.next_size(remaining)

    def _cut(self, worker_is_idle: bool, is_next: Callable[[int], bool]) -> tuple[int, Any, bool] | None:
        """Cut the next batch (start, tasks, alone); None if there is nothing to send, or no room in the window."""
        first = self.pending.first_returned()
        room = self._room()
        if first is not None:
            start, alone = first
            if room <= 0 and not is_next(start):
                return None
            if not self._may_go(alone, worker_is_idle):
                return None
            return self.pending.take_returned(1 if alone else min(self._next_size(), max(room, 1)))
        buffered = self.pending.n_buffered
        if not buffered or room <= 0 or not self._may_go(False, worker_is_idle):
            return None
        size = self._next_size()
        if buffered < size and not self.is_exhausted and not worker_is_idle:
            return None  # a whole batch soon is better than a part of it now
        return (*self.pending.take_buffered(min(size, room)), False)

    def _may_go(self, alone: bool, worker_is_idle: bool) -> bool:
        """Tell whether a batch may join what is in flight: a suspect has its worker for itself, or even all of them."""
        if self._loses_all:
            return not self.flights if alone else not self._n_alone
        return worker_is_idle or not alone

    def _room(self) -> int:
        """Tell how many more tasks the window lets run."""
        window = self._window
        if window is None:
            return _READ_AHEAD
        if len(self.flights) + self._held_fragments >= window.batches:
            return 0
        return window.tasks - self._tasks_in_flight - self._held_tasks

    def _launch(self, start: int, tasks: Any, alone: bool, queued: bool, now: float) -> Batch:
        lane = self.lanes.take()
        attempts = self._attempts.among(start, start + len(tasks))
        budget = self.batching.budget_seconds
        batch = Batch(self._next_id, start, tasks, self._kind, self._function, lane, budget, attempts)
        self._next_id += 1
        self.flights[batch.batch_id] = Flight(batch, now, queued, alone)
        if alone:
            self._n_alone += 1
            self.lanes.close(lane)
        self._tasks_in_flight += len(batch)
        self.n_dispatched += len(batch)
        return batch

    def _leave(self, flight: Flight) -> None:
        self._tasks_in_flight -= len(flight.batch)
        if flight.alone:
            self._n_alone -= 1
            self.lanes.open(flight.batch.lane)

    def __repr__(self) -> str:
        return f"{self.pending.n_read} read, {self.pending!r}, {len(self.flights)} batches in flight"
