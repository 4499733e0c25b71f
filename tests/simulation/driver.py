"""Drives a scheduler as `parallel._call` does, in a cluster with a virtual clock.

The same inbox and the same order: deadlines that have passed, once the events that came before are through; then what
is wanted of the input; then one event, or the next deadline. Nothing waits for real.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.clock import Clock
from tests.simulation.conditions import Conditions
from tests.simulation.workers import How, TimedWorkers, Trip, Where
from tests.simulation.world import World

#: As in `parallel._call`: when nothing has arrived for this long, the futures are looked at.
STALL_SECONDS = 0.5

#: A call that is not over after so many steps for each task, and for as many tasks more, is not going to be.
STEPS_PER_TASK = 150
FREE_TASKS = 40


class Cluster:
    """One call on a simulated cluster.

    Parameters
    ----------
    conditions
        See `Conditions`.
    settings
        See `tests.simulation.books.Settings`.
    """

    def __init__(self, conditions: Conditions, choose: random.Random, **settings: Any) -> None:
        self.clock = Clock()
        self.conditions = conditions
        faults = settings["faults"]
        retries = settings["retry"].attempts > 1
        self.workers = TimedWorkers(
            self.clock,
            choose,
            conditions,
            settings["n_jobs"],
            loses_all=faults.loses_all,
            replaces=settings["replaces"],
            stops_on_failure=not settings["return_exceptions"] and not retries,
            arrive=self._came_back,
            start=self._started,
        )
        self.world = World(workers=self.workers, **settings)
        self.workers.begun = self._begun
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...], float]] = deque()
        self._random = choose
        self._is_consuming = False
        self._has_limits = settings["task_seconds"] is not None or settings["call_seconds"] is not None
        self._quiet_since = 0.0
        self.n_steps = 0
        if conditions.closes_at is not None:
            self.clock.plan(conditions.closes_at, self._put, self.world.close)

    # -- from the workers and the consumer; only put events ----------------------------------------------------------

    def _put(self, handle: Callable[..., None], *arguments: Any) -> None:
        self._inbox.append((handle, arguments, self.clock.now))

    def _came_back(self, trip: Trip) -> None:
        self._put(self._on_back, trip)

    def _started(self, trip: Trip) -> None:
        trip.reported_at = self.clock.now
        self._put(self._on_started, trip.batch.batch_id)

    def _begun(self, batch_id: int) -> None:
        if batch_id in self.world.runs and self.world.sees_starts:
            self.world.watch(batch_id)

    # -- the owner ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the call to its end."""
        while not self.world.is_over:
            self._count_step()
            self._see_to_deadlines()
            self._go_on()
        self.world.trouble_the_dead()

    def _go_on(self) -> None:
        """Read what is wanted, or wait for what happens next."""
        if self.world.is_over:
            return
        wanted = 0 if self._inbox else self.world.scheduler.wanted()
        if wanted:
            self._read(wanted)
        else:
            self._wait()

    def _count_step(self) -> None:
        self.n_steps += 1
        most = STEPS_PER_TASK * (self.world.settings.n_tasks + FREE_TASKS)
        assert self.n_steps <= most, f"not over after {most} steps: {self.world.scheduler}"

    def _see_to_deadlines(self) -> None:
        deadline = self.world.scheduler.next_deadline()
        if deadline is not None and deadline <= self.clock.now:
            for _ in range(len(self._inbox)):
                self._handle()
            if not self.world.is_over:
                self._tick()

    def _tick(self) -> None:
        self.world.now = self.clock.now
        self.world.tick()
        self._let_consume()

    def _handle(self) -> None:
        handle, arguments, self.world.now = self._inbox.popleft()
        self._quiet_since = self.clock.now
        if not self.world.is_over:
            handle(*arguments)
            self._let_consume()

    def _wait(self) -> None:
        """Take one event, or notice that a deadline has passed or that nothing has arrived for a while."""
        clock, deadline = self.clock, self.world.scheduler.next_deadline()
        while not self._inbox:
            self._count_step()
            looks_at = self._quiet_since + STALL_SECONDS if self.workers.silent else None
            until = min((at for at in (deadline, looks_at) if at is not None), default=None)
            upcoming = clock.next
            if upcoming is not None and (until is None or upcoming <= until):
                clock.go_on()
            elif until is not None:
                clock.go_to(until)
                if until == looks_at:
                    self._look_at_futures()
                return
            else:
                raise AssertionError(f"nothing will happen any more, and the call is not over: {self.world.scheduler}")
        self._handle()

    def _look_at_futures(self) -> None:
        self._quiet_since = self.clock.now
        silent, self.workers.silent = self.workers.silent, {}
        for trip in silent.values():
            if trip.batch.batch_id in self.world.runs:
                self._came_back(trip)

    # -- input and consumer ------------------------------------------------------------------------------------------

    def _read(self, wanted: int) -> None:
        world, conditions = self.world, self.conditions
        if conditions.reading:
            self._spend_in_input(self.clock.now + conditions.reading * self._random.random())
        count = wanted if conditions.reads_at_most is None else min(wanted, conditions.reads_at_most)
        fails_at = conditions.fails_at
        fails = fails_at is not None and world.n_read + count > fails_at
        if fails and fails_at is not None:
            count = fails_at - world.n_read
        world.now = self.clock.now
        if count:
            world.read(count, conditions.tells_end)
        if fails and not world.is_over:
            world.fail_to_read()
        self._let_consume()

    def _spend_in_input(self, until: float) -> None:
        """Let time pass while the owner cannot act; what is late is ended for it."""
        deadline = self.world.scheduler.next_deadline() if self._has_limits else None
        while deadline is not None and deadline <= until:
            self._count_step()
            self.clock.go_to(deadline)
            deadline = self._end_late()
        self.clock.go_to(until)

    def _end_late(self) -> float | None:
        """End what is late, and put that as an event; give the next deadline."""
        world, now = self.world, self.clock.now
        call_until, limit = world.settings.call_seconds, world.settings.task_seconds
        is_late = call_until is not None and call_until <= now
        next_deadline = None if is_late else call_until
        for batch_id, run in list(world.runs.items()):
            # What was reported counts at once, though the owner is not there to hear of it.
            position, started_at = 0, max(run.sent_at, self.workers.trips[batch_id].reported_at)
            if world.sees_starts:
                world.see(run)
                is_running = run.position is not None and not run.is_idle
                position, started_at = (run.position or 0, run.started_at) if is_running else (0, now)
            if is_late or (limit is not None and started_at + limit <= now):
                self._put(world.tell_late, batch_id, position, started_at)
                if world.faults.can_kill:
                    self.workers.kill(batch_id)
            elif limit is not None:
                due = started_at + limit
                next_deadline = due if next_deadline is None else min(due, next_deadline)
        return next_deadline

    def _let_consume(self) -> None:
        if self.world.unconsumed and not self._is_consuming:
            self._is_consuming = True
            self.clock.plan(
                self.clock.now + self.conditions.consuming * self._random.random(), self._put, self._on_taken
            )

    # -- events ------------------------------------------------------------------------------------------------------

    def _on_taken(self) -> None:
        self._is_consuming = False
        self.world.take()

    def _on_started(self, batch_id: int) -> None:
        if batch_id in self.world.runs:
            self.world.report_start(batch_id)

    def _on_back(self, trip: Trip) -> None:
        world, batch_id = self.world, trip.batch.batch_id
        if batch_id in world.stuck:
            world.come_back_late(batch_id)
        elif batch_id not in world.runs:
            world.bring_again(batch_id)  # the driver would not even ask; it must be as well without that
        elif trip.where is Where.LOST:
            world.lose(batch_id, is_deliberate=trip.is_deliberate)
        elif trip.how is How.UNCLEAR:
            world.blame_nobody(batch_id)
        elif trip.how is How.BLIND and world.sees_starts:
            world.go_blind(batch_id)
        elif trip.how is not How.RESULTS:
            world.refuse(batch_id)
        else:
            world.come_back(batch_id, trip.done, trip.failing, trip.seconds)
