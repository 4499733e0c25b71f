"""The state machine of one call: events in, actions out.

No thread, no lock, no clock, no I/O: every event carries its time, and what is to be done comes back as a list of
actions for the driver (`_call`). Every decision of a call is made here, so it can be run for a million random
schedules without a worker.

What it keeps to, after every event:

- each task is in exactly one place: with the input, pending, in flight, or done; so each result is delivered once;
- at most `pre_dispatch` batches are in flight, and at most `depth` for one worker;
- with a window, no more than that runs beyond what was consumed, but for the one task that everything else waits for:
  it may always go, or a call whose window is full of later results would never end;
- a terminal state is never left, and nothing is submitted or delivered in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from parallel._actions import Action, Deliver, Fail, Finish, GiveUp, Kill, Look, Submit
from parallel._batching import Batching
from parallel._dispatch import Dispatch, Flight, Window
from parallel._limits import NO_LIMITS, Limits, Watch
from parallel._results import Results
from parallel._retry import ONCE, Attempts, Retry
from parallel._states import TERMINAL, Faults, State
from parallel._task import Batch, Kind

__all__ = ["Faults", "Scheduler", "State", "Window"]

Failures = Mapping[int, BaseException]

#: After this many rounds of workers that were lost before they began anything, or as many as a task has attempts, the
#: call is given up.
_BARREN_ROUNDS = 3


class Scheduler:
    """Decides what runs next in one call.

    Parameters
    ----------
    n_jobs
        Number of workers.
    batching
        The policy for sizes.
    results
        The buffer that orders what is delivered.
    pre_dispatch
        Most batches in flight or read ahead of being sent; None to read the whole input first.
    depth
        Most batches with one worker at a time.
    window
        Limit of what runs beyond what was consumed; None where results are not handed out one by one.
    total
        Length of the input, if known; only a hint for sizes.
    kind, function
        Form of the tasks, for the batches.
    limits, retry, faults
        The policies on top; by default no limit, one attempt, and workers that are never lost.
    return_exceptions
        Whether the exception of a failed task takes the place of its result instead of ending the call.
    began_at
        When the call began, for its own limit.
    """

    def __init__(
        self,
        *,
        n_jobs: int,
        batching: Batching,
        results: Results,
        pre_dispatch: int | None,
        depth: int = 2,
        window: Window | None = None,
        total: int | None = None,
        kind: Kind = Kind.CALLS,
        function: Callable[..., Any] | None = None,
        limits: Limits | None = None,
        retry: Retry = ONCE,
        faults: Faults | None = None,
        return_exceptions: bool = False,
        began_at: float = 0.0,
    ) -> None:
        self.state = State.FEEDING
        #: Whether a terminal state was reached.
        self.is_over = False
        self._faults = faults or Faults()
        self._attempts = Attempts(retry)
        self._dispatch = Dispatch(
            n_jobs=n_jobs,
            batching=batching,
            pre_dispatch=pre_dispatch,
            depth=depth,
            window=window,
            total=total,
            kind=kind,
            function=function,
            loses_all=self._faults.loses_all,
            attempts=self._attempts,
        )
        self._results = results
        self._limits = limits or NO_LIMITS
        self._watch = Watch()
        self._return_exceptions = return_exceptions
        self._began_at = began_at
        self._call_until = None if self._limits.call_seconds is None else began_at + self._limits.call_seconds
        self._given_up: dict[int, int] = {}  # batch id to its lane, which comes back if the batch does
        # Losses since anything came back or was charged to a task: workers that cannot even start are no reason to go
        # on for ever.
        self._barren_losses = 0
        self.n_completed = 0
        self.n_given_up = 0

    # -- what the driver asks ------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many batches are with the backend."""
        return len(self._dispatch.flights)

    @property
    def n_read(self) -> int:
        """How many tasks were taken from the input."""
        return self._dispatch.pending.n_read

    @property
    def n_dispatched(self) -> int:
        """How many tasks were given to the backend and not given back unrun."""
        return self._dispatch.n_dispatched

    def held_results(self, *, forget: bool = False) -> dict[int, Any]:
        """Give the results that wait for earlier ones, by index; and `forget` them, when the call is over."""
        return dict(self._results.waiting(forget=forget))

    def wanted(self) -> int:
        """Tell how many tasks to read from the input now; 0 for none."""
        return 0 if self.is_over else self._dispatch.wanted()

    def next_deadline(self) -> float | None:
        """Tell when `on_time` must be called at the latest, if nothing else happens."""
        times = self._call_until, self._watch.next(self._dispatch.flights), self._dispatch.pending.next_due()
        return None if times == (None, None, None) else min(at for at in times if at is not None)

    # -- events --------------------------------------------------------------------------------------------------------

    def on_input(self, tasks: list[Any] | range, exhausted: bool, now: float) -> list[Action]:
        """Tasks were read from the input, the last of them if `exhausted`."""
        if self.is_over:
            return []
        if tasks:
            self._dispatch.pending.read(tasks)
        if exhausted:
            self.state = State.DRAINING
            self._dispatch.is_exhausted = True
        return self._go_on([], now)

    def on_input_failed(self, error: BaseException, now: float) -> list[Action]:
        """Reading the input raised."""
        return self._fail([], error)

    def on_outcome(
        self, batch_id: int, values: list[Any], failures: Failures, seconds: float, now: float, handling: float = 0.0
    ) -> list[Action]:
        """A batch came back: results of its first tasks, and failures by position.

        It ran for so many `seconds`; pickling and transport took `handling` besides. A task that has neither result nor
        failure was not run: it is given to whoever is free. A batch that is not in flight (reported twice, or after the
        end) is ignored; if it was given up, its worker is free again.
        """
        flight = self._land(batch_id)
        if flight is None:
            return self._regain(batch_id, now)
        self._barren_losses = 0
        round_trip = None if flight.queued else max(now - flight.submitted_at - seconds - handling, 0.0)
        self._dispatch.batching.record(len(flight.batch), len(values), seconds, round_trip)
        actions: list[Action] = []
        self._settle(actions, flight.batch, values, failures, now)
        return self._go_on(actions, now)

    def on_refused(self, batch_id: int, now: float, *, is_blind: bool) -> list[Action]:
        """A worker could not run a batch here; if it cannot note what it runs (`is_blind`), batches of one from now."""
        flight = self._land(batch_id)
        if flight is None:
            return []
        if is_blind:
            self._faults = self._faults.blind()
            self._dispatch.go_blind()
        self._dispatch.put_back(flight.batch, 0, len(flight.batch), flight.alone)
        return self._go_on([], now)

    def on_unclear(self, batch_id: int, error: BaseException, now: float) -> list[Action]:
        """A batch failed as a whole because of one of its tasks, nobody knows which: they run again one by one."""
        flight = self._land(batch_id)
        if flight is None:
            return self._regain(batch_id, now)
        self._barren_losses = 0
        actions: list[Action] = []
        batch = flight.batch
        if len(batch) > 1 and self._tolerates(error):
            for position in range(len(batch)):
                self._dispatch.put_back(batch, position, position + 1)
        else:
            self._dispatch.put_back(batch, 1, len(batch))
            self._fail_task(actions, batch, 0, error, now)
        return self._go_on(actions, now)

    def on_started(self, batch_id: int, now: float) -> list[Action]:
        """A worker began to run a batch: its limit counts from here."""
        flight = self._dispatch.flights.get(batch_id)
        if flight is not None and self._limits.task_seconds is not None:
            flight.submitted_at = now
            self._watch.set(batch_id, now + self._limits.task_seconds)
        return []

    def on_lost(
        self,
        batch_id: int,
        position: int | None,
        running: bool,
        error: BaseException,
        now: float,
        is_deliberate: bool = False,
    ) -> list[Action]:
        """The worker of a batch ended.

        Parameters
        ----------
        position, running
            Position within the batch of the task that it noted last, None if none, and whether that was running.
        error
            What to raise for a task that was lost by it.
        is_deliberate
            Whether it was ended for another task's sake.
        """
        flight = self._land(batch_id)
        if flight is None:
            return self._regain(batch_id, now)
        batch = flight.batch
        actions: list[Action] = []
        if flight.expired is not None:
            victim, timeout_error = flight.expired
            self._dispatch.put_back(batch, 0, victim)
            self._dispatch.put_back(batch, victim + 1, len(batch))
            self._fail_task(actions, batch, victim, timeout_error, now)
        elif flight.is_collateral or is_deliberate:
            self._dispatch.put_back(batch, 0, len(batch), flight.alone)
        elif not self._faults.replaces_workers or not self._tolerates(error):
            return self._fail([], error)
        elif self._faults.sees_starts and position is None and not flight.alone:
            self._barren_losses += 1
            self._dispatch.put_back(batch, 0, len(batch))  # it had not begun
        elif flight.alone or (running and position is not None and not self._faults.loses_all):
            culprit = position or 0
            self._dispatch.put_back(batch, 0, culprit)
            self._dispatch.put_back(batch, culprit + 1, len(batch))
            self._fail_task(actions, batch, culprit, error, now, alone=True)
        elif running and position is not None:
            self._barren_losses += 1
            self._dispatch.put_back(batch, 0, position)
            self._dispatch.put_back(batch, position, position + 1, alone=True)  # it, or what ran on another worker
            self._dispatch.put_back(batch, position + 1, len(batch))
        else:
            self._barren_losses += 1
            self._dispatch.put_back(batch, 0, len(batch), alone=True)
        if self._barren_losses > max(_BARREN_ROUNDS, self._attempts.retry.attempts) * self._dispatch.max_in_flight:
            return self._fail(actions, error)
        return self._go_on(actions, now)

    def on_broken(self, batch_id: int | None, error: BaseException, now: float) -> list[Action]:
        """The infrastructure failed: a batch (or none in particular) will not come back."""
        if batch_id is not None and self._land(batch_id) is None:
            return []
        return self._fail([], error)

    def on_time(self, now: float) -> list[Action]:
        """Time has passed: see to the deadlines."""
        if self.is_over:
            return []
        if self._call_until is not None and now >= self._call_until:
            assert self._limits.call_error is not None
            return self._fail([], self._limits.call_error(now - self._began_at))
        actions: list[Action] = []
        for batch_id in self._watch.take(now, self._dispatch.flights):
            if self.state in TERMINAL:  # by the one before
                break
            if self._faults.sees_starts:
                actions.append(Look(batch_id))
            else:
                actions += self.on_look(batch_id, 0, self._dispatch.flights[batch_id].submitted_at, now)
        self._dispatch.pending.ripen(now)
        return self._go_on(actions, now)

    def on_look(self, batch_id: int, position: int, started_at: float | None, now: float) -> list[Action]:
        """The worker of a batch runs the task at `position` since `started_at`; None if it runs none."""
        flight = self._dispatch.flights.get(batch_id)
        limit = self._limits.task_seconds
        if flight is None or limit is None or flight.expired is not None or self.is_over:
            return []
        if started_at is None or now < started_at + limit:
            self._watch.set(batch_id, (now if started_at is None else started_at) + limit)
            return []
        assert self._limits.task_error is not None
        error = self._limits.task_error(flight.batch, position, now - started_at)
        if not self._tolerates(error):
            return self._fail([], error)
        flight.expired = (position, error)
        if not self._faults.can_kill:
            return [GiveUp(batch_id)]
        if self._faults.loses_all:
            for other in self._dispatch.flights.values():
                other.is_collateral = True
        return [Kill(batch_id)]

    def on_given_up(self, batch_id: int, values: list[Any], replaced: bool, now: float) -> list[Action]:
        """A batch was left to its worker: `values` are the results of its first tasks, where they could be had.

        `replaced` says whether the backend has put another worker into the place of the one that is stuck.
        """
        flight = self._dispatch.flights.get(batch_id)
        if flight is None or flight.expired is None or self.is_over:
            return []
        self.n_given_up += 1
        batch, (victim, error) = flight.batch, flight.expired
        if replaced:
            self._dispatch.land(batch_id)
        else:
            self._dispatch.leave(batch_id)
            self._given_up[batch_id] = batch.lane
        actions: list[Action] = []
        self._accept(actions, batch.start, values := values[:victim])
        self._dispatch.put_back(batch, len(values), victim)
        self._dispatch.put_back(batch, victim + 1, len(batch))
        self._fail_task(actions, batch, victim, error, now)
        # Each holds a worker, not always that of its lane: where all share one queue, any takes a batch.
        if len(self._given_up) >= self._dispatch.lanes.count and not self._is_done():
            error.add_note("every worker is held by a task that passed its limit and cannot be killed")
            return self._fail(actions, error)
        return self._go_on(actions, now)

    def on_consumed(self, tasks: int, now: float) -> list[Action]:
        """The consumer took all results of one delivered fragment of `tasks` results."""
        self._dispatch.consume(tasks)
        return self._go_on([], now)

    def on_close(self, now: float) -> list[Action]:
        """The consumer wants no more."""
        if self.is_over:
            return []
        self._end(State.CLOSED)
        return [Finish(abort=True)]

    # -- what becomes of a batch ---------------------------------------------------------------------------------------

    def _settle(self, actions: list[Action], batch: Batch, values: list[Any], failures: Failures, now: float) -> None:
        """Accept the results of a batch around its failures, and put back what was not run."""
        start, done = batch.start, len(values)
        begin = 0  # of the results that were not accepted yet; neighbours go out as one fragment
        for position in sorted(failures):
            error = failures[position]
            if position < done and self._return_exceptions and not self._runs_again(batch, position, error, now):
                values[position] = error
                continue
            self._accept(actions, start + begin, values[begin:position])
            self._dispatch.put_back(batch, max(begin, done), position)
            begin = position + 1
            if position < done and self._return_exceptions:
                continue  # it runs again
            self._fail_task(actions, batch, position, error, now)
            if self.is_over:
                return
        self._accept(actions, start + begin, values[begin:] if begin else values)
        self._dispatch.put_back(batch, max(begin, done), len(batch))

    def _fail_task(
        self, actions: list[Action], batch: Batch, position: int, error: BaseException, now: float, alone: bool = False
    ) -> None:
        """Count a failed attempt: the task runs again, or its failure stands."""
        if self._runs_again(batch, position, error, now, alone):
            return
        if self._return_exceptions:
            self._accept(actions, batch.start + position, [error])
        else:
            self._fail(actions, error)

    def _runs_again(self, batch: Batch, position: int, error: BaseException, now: float, alone: bool = False) -> bool:
        """Count a failed attempt and tell whether there is another one; if so, the task waits for it."""
        self._barren_losses = 0
        delay = self._attempts.fail(batch.start + position, error)
        if delay is None:
            return False
        if delay > 0:
            self._dispatch.delay(batch, position, now + delay, alone)
        else:
            self._dispatch.put_back(batch, position, position + 1, alone)
        return True

    def _tolerates(self, error: BaseException) -> bool:
        """Tell whether a call goes on after such a failure, be it by another attempt."""
        retry = self._attempts.retry
        return self._return_exceptions or (retry.attempts > 1 and retry.covers(error))

    def _accept(self, actions: list[Action], start: int, values: list[Any]) -> None:
        if not values:
            return
        self.n_completed += len(values)
        self._attempts.succeed(start, start + len(values))
        self._dispatch.hold(len(values))
        actions += [Deliver(at, fragment) for at, fragment in self._results.add(start, values)]

    def _fail(self, actions: list[Action], error: BaseException) -> list[Action]:
        if not self.is_over:
            self._end(State.FAILED)
            actions.append(Fail(error))
        return actions

    def _regain(self, batch_id: int, now: float) -> list[Action]:
        lane = self._given_up.pop(batch_id, None)
        if lane is None or self.is_over:
            return []
        self._dispatch.lanes.regain(lane)
        return self._go_on([], now)

    # -- what goes out -------------------------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        return self.state is State.DRAINING and self._dispatch.is_empty

    def _go_on(self, actions: list[Action], now: float) -> list[Action]:
        """Submit what can be submitted, and finish when nothing is left."""
        if self.is_over:
            return actions
        while (batch := self._dispatch.launch_next(now, self._results.is_next)) is not None:
            if self._limits.task_seconds is not None:
                self._watch.set(batch.batch_id, now + self._limits.task_seconds)
            actions.append(Submit(batch))
        if self._is_done():
            self._end(State.FINISHED)
            actions.append(Finish())
        return actions

    def _end(self, state: State) -> None:
        self.state, self.is_over = state, True

    def _land(self, batch_id: int) -> Flight | None:
        return None if self.is_over else self._dispatch.land(batch_id)

    def __repr__(self) -> str:
        return f"<Scheduler {self.state.value}: {self._dispatch!r}, {self.n_completed} completed>"
