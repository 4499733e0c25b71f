"""Simulated workers, up to ten thousand of them: they start, run batches task by task, fail, die and get stuck.

What a worker does with a batch is worked out when it begins the batch: when each task starts, and how it ends. What it
runs at some moment follows from that, so a batch is two or three events, however many tasks it has.
"""

from __future__ import annotations

import enum
import math
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable

from parallel._task import Batch
from tests.simulation.books import Run
from tests.simulation.clock import Clock
from tests.simulation.conditions import Conditions
from tests.simulation.performing import Workers


class Where(enum.Enum):
    """What has become of a batch that was sent."""

    #: On the way to its worker, or behind another batch.
    WAITING = "waiting"
    RUNNING = "running"
    #: What it brought is on the way back.
    ENDED = "ended"
    #: Its worker ended.
    LOST = "lost"


class How(enum.Enum):
    """What a batch brings back."""

    RESULTS = "results"
    UNCLEAR = "unclear"
    BLIND = "blind"
    OUT_OF_REACH = "out of reach"


class Trip:
    """A batch from the moment it was sent."""

    __slots__ = (
        "batch",
        "done",
        "ends_at",
        "failing",
        "how",
        "is_deliberate",
        "is_left",
        "reported_at",
        "seconds",
        "starts",
        "stopped_at",
        "version",
        "where",
        "worker",
    )

    def __init__(self, batch: Batch, worker: Worker) -> None:
        self.batch = batch
        self.worker = worker
        worker.trips[batch.batch_id] = self
        self.where = Where.WAITING
        #: When each of its tasks starts, as far as it is known now.
        self.starts: list[float] = []
        self.ends_at = math.inf
        #: When it ended or was lost.
        self.stopped_at = math.inf
        self.how = How.RESULTS
        self.done = 0
        self.failing: frozenset[int] = frozenset()
        self.seconds = 0.0
        self.is_deliberate = False
        #: When the caller was told that it had begun.
        self.reported_at = 0.0
        #: Whether it was given up: it stops after the task that it runs.
        self.is_left = False
        #: What was planned for an earlier version does not happen.
        self.version = 0

    def position(self, now: float) -> int | None:
        """Tell which task was begun last; None for none."""
        position = bisect_right(self.starts, min(now, self.stopped_at)) - 1
        return position if position >= 0 else None


class Worker:
    """One of them; when it ends another one takes its place."""

    __slots__ = ("queue", "ready_at", "running", "trips")

    def __init__(self) -> None:
        self.queue: deque[Trip] = deque()
        self.running: Trip | None = None
        self.ready_at: float | None = None  # None until it is needed
        self.trips: dict[int, Trip] = {}  # what is lost when it ends


class TimedWorkers(Workers):
    """The workers of one world.

    Parameters
    ----------
    arrive
        Called with a trip when what became of it is known to the caller; any number of times.
    start
        Called with a trip when the caller is told that it has begun.
    """

    def __init__(
        self,
        clock: Clock,
        choose: random.Random,
        conditions: Conditions,
        n_jobs: int,
        *,
        loses_all: bool,
        replaces: bool,
        stops_on_failure: bool,
        arrive: Callable[[Trip], None],
        start: Callable[[Trip], None],
    ) -> None:
        self._clock = clock
        self._random = choose
        self._conditions = conditions
        self._loses_all = loses_all
        self._replaces = replaces
        self._stops_on_failure = stops_on_failure
        self._arrive_back = arrive
        self._start = start
        self._workers = [Worker() for _ in range(n_jobs)]
        self._attempts: Counter[int] = Counter()
        self.trips: dict[int, Trip] = {}
        #: What is done though nobody has said so.
        self.silent: dict[int, Trip] = {}
        #: Told when a batch begins; set by whoever needs it.
        self.begun: Callable[[int], None] = lambda batch_id: None

    # -- what the world asks for -------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> BaseException | None:
        """Take a batch, unless the backend does not; see `Workers`."""
        conditions = self._conditions
        if self._happens(conditions.rejected):
            return RuntimeError("the backend does not take it")
        trip = self.trips[batch.batch_id] = Trip(batch, self._workers[batch.lane])
        unsendable = next((at for at, index in enumerate(batch.indices) if index in conditions.unsendable), None)
        if unsendable is not None:
            trip.failing = frozenset([unsendable])
            trip.where = Where.ENDED
            del trip.worker.trips[batch.batch_id]
            self._clock.plan(self._clock.now, self._arrive_back, trip)
        else:
            self._travel(trip, self._arrive)
        return None

    def see(self, run: Run) -> None:
        """Read what a worker has noted; see `Workers`."""
        trip = self.trips.get(run.batch.batch_id)
        if trip is None or run.is_unclear:  # not sent yet, or nobody can see it
            return
        run.position = trip.position(self._clock.now)
        if run.position is not None:
            run.started_at = trip.starts[run.position]
            run.is_idle = trip.where is Where.ENDED

    def kill(self, batch_id: int) -> None:
        """End the worker of a batch, unless it is done with it; see `Workers`."""
        trip = self.trips[batch_id]
        if trip.where in (Where.WAITING, Where.RUNNING):
            self._lose(trip.worker)

    def leave(self, batch_id: int, done: int) -> int:
        """Let the worker stop after the task that it runs, if it ever does; see `Workers`."""
        trip = self.trips[batch_id]
        trip.is_left = True
        if trip.where is Where.RUNNING:
            position = trip.position(self._clock.now)
            if position is not None and position + 1 < len(trip.starts):
                trip.ends_at = trip.starts[position + 1]
                del trip.starts[position + 1 :]
                self._plan_end(trip)
            worker = trip.worker
            if self._replaces:
                worker.running = None
                worker.trips.pop(batch_id, None)
                self._begin_next(worker)
            else:
                waiting = list(worker.queue)
                worker.queue.clear()
                for other in waiting:
                    self._arrive(other)
        return self._random.randint(0, done) if self._happens(0.3) else done

    # -- messages ----------------------------------------------------------------------------------------------------

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _travel(self, trip: Trip, arrive: Callable[[Trip], None], extra_seconds: float = 0.0) -> None:
        conditions, now = self._conditions, self._clock.now
        seconds = conditions.latency_seconds + extra_seconds
        if conditions.jitter_seconds:
            seconds += self._random.random() * conditions.jitter_seconds
        outage_ends = conditions.outage_at(now + seconds)
        if outage_ends is None:
            self._clock.plan(now + seconds, arrive, trip)
        elif conditions.loses_messages:
            self._clock.plan(outage_ends, self._lose_message, trip)
        else:
            self._clock.plan(outage_ends + seconds, arrive, trip)

    def _lose_message(self, trip: Trip) -> None:
        """The connection is back, and what was on it is not: for the caller the worker is lost."""
        if trip.where in (Where.ENDED, Where.LOST):
            trip.where = Where.LOST
            self._arrive_back(trip)
        else:
            self._lose(trip.worker)

    def _send_back(self, trip: Trip) -> None:
        conditions = self._conditions
        late = self._random.random() * conditions.late_seconds if self._happens(conditions.late) else 0.0
        if self._happens(conditions.silent) and trip.where is Where.ENDED:
            self._travel(trip, self._fall_silent, late)
            return
        self._travel(trip, self._arrive_back, late)
        if self._happens(conditions.twice):
            self._travel(trip, self._arrive_back, self._random.random() * conditions.late_seconds)

    def _fall_silent(self, trip: Trip) -> None:
        self.silent[trip.batch.batch_id] = trip

    # -- a batch at its worker ---------------------------------------------------------------------------------------

    def _arrive(self, trip: Trip) -> None:
        if trip.where is not Where.WAITING:
            return
        if self._is_stuck(trip.worker):
            # They share one queue: what waits is taken by another one.
            free = [worker for worker in self._workers if not self._is_stuck(worker)]
            if free:
                del trip.worker.trips[trip.batch.batch_id]
                trip.worker = min(free, key=lambda worker: len(worker.trips))
                trip.worker.trips[trip.batch.batch_id] = trip
        trip.worker.queue.append(trip)
        self._begin_next(trip.worker)

    def _is_stuck(self, worker: Worker) -> bool:
        return worker.running is not None and worker.running.is_left

    def _begin_next(self, worker: Worker) -> None:
        if worker.running is not None or not worker.queue:
            return
        now = self._clock.now
        if worker.ready_at is None:
            worker.ready_at = now + self._conditions.start_seconds * self._random.random()
        if worker.ready_at > now:
            self._clock.plan(worker.ready_at, self._begin_next, worker)
            return
        if self._happens(self._conditions.stillborn):
            self._lose(worker)
            return
        trip = worker.running = worker.queue.popleft()
        trip.where = Where.RUNNING
        self._run(trip)
        self.begun(trip.batch.batch_id)

    def _run(self, trip: Trip) -> None:
        """Work out what becomes of the tasks of a batch."""
        conditions, batch, began = self._conditions, trip.batch, self._clock.now
        if conditions.reports_starts:
            self._travel(trip, self._start)
        for how, share in (
            (How.UNCLEAR, conditions.unclear),
            (How.BLIND, conditions.blind),
            (How.OUT_OF_REACH, conditions.out_of_reach),
        ):
            if self._happens(share):
                trip.how = how
                trip.ends_at = began
                self._plan_end(trip)
                return
        if trip.is_left:
            trip.ends_at = began
            self._plan_end(trip)
            return
        budget = math.inf if batch.budget_seconds is None else batch.budget_seconds
        failing, at, dies_at = [], began, None
        for position, index in enumerate(batch.indices):
            if at - began > budget:
                break
            trip.starts.append(at)
            seconds = conditions.task_seconds[index]
            self._attempts[index] += 1
            is_bad = self._attempts[index] <= conditions.bad_attempts
            if is_bad and index in conditions.poisonous:
                dies_at = at + seconds / 2
                break
            at += seconds
            if is_bad and index in conditions.endless:
                at += conditions.endless_seconds
            if self._happens(conditions.failing):
                failing.append(position)
                if self._stops_on_failure:
                    break
            if at == math.inf:
                break
        trip.failing = frozenset(failing)
        trip.ends_at = at
        if dies_at is None and self._happens(conditions.dying):
            dies_at = began + (min(at, began + 1.0) - began) * self._random.random()
        if dies_at is None and self._happens(conditions.dying_for_others):
            trip.is_deliberate = True
            dies_at = began + (min(at, began + 1.0) - began) * self._random.random()
        if dies_at is not None:
            self._clock.plan(dies_at, self._die, trip, trip.version)
        else:
            self._plan_end(trip)

    def _plan_end(self, trip: Trip) -> None:
        trip.version += 1
        if trip.ends_at < math.inf:
            self._clock.plan(trip.ends_at, self._end, trip, trip.version)

    def _end(self, trip: Trip, version: int) -> None:
        if trip.where is not Where.RUNNING or trip.version != version:
            return
        trip.where = Where.ENDED
        trip.stopped_at = self._clock.now
        trip.done = len(trip.starts)
        trip.failing = frozenset(position for position in trip.failing if position < trip.done)
        trip.seconds = trip.stopped_at - trip.starts[0] if trip.starts else 0.0
        worker = trip.worker
        worker.trips.pop(trip.batch.batch_id, None)
        if worker.running is trip:
            worker.running = None
            self._begin_next(worker)
        self._send_back(trip)

    def _die(self, trip: Trip, version: int) -> None:
        if trip.where is Where.RUNNING and trip.version == version:
            self._lose(trip.worker)

    def _lose(self, worker: Worker) -> None:
        """A worker ends, or all of them; others are started."""
        now = self._clock.now
        for one in self._workers if self._loses_all else [worker]:
            lost, one.trips = one.trips, {}
            one.queue.clear()
            one.running = None
            one.ready_at = now + self._conditions.start_seconds * self._random.random()
            for trip in lost.values():
                trip.where = Where.LOST
                trip.stopped_at = now
                self._send_back(trip)
