"""A world around the scheduler: an input, workers and a consumer, and what has to hold after each event.

The world keeps its own books, so that it can tell when the scheduler loses a task, runs it twice or goes too far.
Task ``i`` is `task(i)` and its result is `result(i)`; nothing runs.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from parallel._actions import Action, Deliver, Fail, Finish, GiveUp, Kill, Look, Submit
from parallel._batching import AdaptiveBatching, Batching, FixedBatching
from parallel._limits import Limits
from parallel._results import OrderedResults, UnorderedResults
from parallel._retry import ONCE, Retry
from parallel._scheduler import Faults, Scheduler, State, Window
from parallel._task import Batch, Kind


def task(index: int) -> tuple[str, int]:
    return "task", index


def result(index: int) -> tuple[str, int]:
    return "result", index


#: In longer calls what is held is not compared result by result after every event.
MAX_COMPARED = 300


class TaskError(Exception):
    """What the tasks of the simulation raise."""


class LostError(Exception):
    """What becomes of the tasks of a worker that ended."""


class LateError(Exception):
    """What becomes of a task that passed its limit: (index, seconds)."""


class CallLateError(Exception):
    """What becomes of a call that passed its limit: (seconds,)."""


def limits(task_seconds: float | None = None, call_seconds: float | None = None) -> Limits:
    return Limits(
        task_seconds,
        call_seconds,
        lambda batch, position, ran_seconds: LateError(batch.start + position, ran_seconds),
        lambda ran_seconds: CallLateError(ran_seconds),
    )


class WhimsicalBatching:
    """A policy that never says the same twice."""

    def __init__(self, seed: int, max_size: int, budget_seconds: float | None = 0.5) -> None:
        self._random = random.Random(seed)
        self.max_size = max_size
        self.budget_seconds = budget_seconds
        self.reads_ahead = seed % 4 > 0

    def next_size(self, remaining: int | None) -> int:
        return self._random.randint(1, self.max_size)

    def record(self, sent: int, done: int, seconds: float, round_trip_seconds: float | None) -> None:
        assert 0 <= done <= sent
        assert seconds >= 0
        assert round_trip_seconds is None or round_trip_seconds >= 0

    def queues(self) -> bool:
        return self._random.random() < 0.5


@dataclass(eq=False)
class Run:
    """A batch and the worker that has it."""

    batch: Batch
    sent_at: float
    #: Whether its one task is suspected to have ended a worker.
    is_alone: bool
    #: The task that runs, and since when; None until the worker has begun.
    position: int | None = None
    started_at: float = 0.0
    #: The task that passed its limit, and the error for it.
    late: tuple[int, LateError] | None = None
    #: Its worker is being ended for the sake of another batch.
    is_doomed: bool = False
    #: It was sent when starts were seen, and now they are not: nobody can say how long its task has run.
    is_unclear: bool = False


class Simulation:
    """Feeds a scheduler with events, performs its actions, and checks every promise of `parallel._scheduler`.

    Parameters
    ----------
    n_tasks
        Length of the input.
    max_size
        The largest batch that `batching` may ask for.
    knows_total
        Whether the scheduler is told the length of the input.
    replaces
        Whether a worker that is stuck is replaced by another one.
    """

    def __init__(
        self,
        *,
        n_tasks: int,
        n_jobs: int,
        batching: Batching,
        max_size: int,
        ordered: bool = True,
        pre_dispatch: int | None = 4,
        depth: int = 2,
        window: Window | None = None,
        knows_total: bool = False,
        return_exceptions: bool = False,
        retry: Retry = ONCE,
        faults: Faults | None = None,
        task_seconds: float | None = None,
        call_seconds: float | None = None,
        replaces: bool = False,
    ) -> None:
        self.n_tasks = n_tasks
        self.n_jobs = n_jobs
        self.batching = batching
        self.max_size = max_size
        self.ordered = ordered
        self.pre_dispatch = pre_dispatch
        self.depth = depth
        self.window = window
        self.return_exceptions = return_exceptions
        self.retry = retry
        self.faults = faults or Faults()
        self.sees_starts = self.faults.sees_starts
        self.task_seconds = task_seconds
        self.call_seconds = call_seconds
        self.replaces = replaces
        self.max_in_flight = n_jobs * depth if pre_dispatch is None else min(pre_dispatch, n_jobs * depth)
        self.scheduler = Scheduler(
            n_jobs=n_jobs,
            batching=batching,
            results=OrderedResults() if ordered else UnorderedResults(),
            pre_dispatch=pre_dispatch,
            depth=depth,
            window=window,
            total=n_tasks if knows_total else None,
            kind=Kind.ITEMS,
            function=result,
            limits=limits(task_seconds, call_seconds),
            retry=retry,
            faults=self.faults,
            return_exceptions=return_exceptions,
        )
        self.now = 0.0
        self.n_read = 0
        self.is_exhausted = False
        self.ready: set[int] = set()  # read, and with nobody
        self.once_delayed: set[int] = set()  # what had to wait for another attempt: others are read meanwhile
        self.delayed: dict[int, float] = {}  # of these, what has to wait, and until when
        self.suspects: set[int] = set()  # of these, what has to run alone
        self.singles: set[int] = set()  # what has to run in a batch of one
        self.sent_before: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.n_barren_losses = 0
        self.runs: dict[int, Run] = {}
        self.stuck: dict[int, Run] = {}  # given up
        self.gone: set[int] = set()  # their workers
        self.seen_ids: set[int] = set()
        self.landed: list[int] = []
        self.load: Counter[int] = Counter()
        self.accepted: dict[int, Any] = {}  # what came back, by task
        self.origin: dict[int, int] = {}  # the batch it came back in
        # What came back and was not delivered, start and length. Pieces are as small as they may be: a failure is one.
        self.pieces: dict[int, int] = {}
        self.delivered: dict[int, Any] = {}
        self.unconsumed: deque[tuple[int, int]] = deque()  # start and length of what was delivered
        self.end: Fail | Finish | None = None
        self._n_performing = 0
        self._are_all_doomed = False
        self._just_gone: set[int] = set()
        self._has_looked = False

    # -- what the books say ------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.end is not None

    @property
    def tasks_in_flight(self) -> int:
        return sum(len(run.batch) for run in self.runs.values())

    @property
    def held_tasks(self) -> int:
        """How many results came back and were not consumed."""
        return sum(self.pieces.values()) + sum(length for _, length in self.unconsumed)

    def goes_beyond_the_window(self, tasks: int) -> bool:
        """Whether another batch of so many tasks is more than the window has for certain."""
        if self.window is None:
            return False
        held = [*self.pieces.items(), *self.unconsumed]
        held_batches = {self.origin[index] for start, length in held for index in range(start, start + length)}
        return (
            len(self.runs) + len(held_batches) + 1 > self.window.batches
            or self.tasks_in_flight + self.held_tasks + tasks > self.window.tasks
        )

    def may_fill_the_window(self) -> bool:
        """Whether the window may be full: it counts fragments, of which there are as many as pieces at most."""
        if self.window is None:
            return False
        return (
            len(self.runs) + len(self.pieces) + len(self.unconsumed) >= self.window.batches
            or self.tasks_in_flight + self.held_tasks >= self.window.tasks
        )

    def tolerates(self, error: BaseException) -> bool:
        """Whether the call goes on after such an error."""
        return self.return_exceptions or (self.retry.attempts > 1 and isinstance(error, self.retry.on))

    def late_runs(self) -> set[int]:
        """The batches whose task has passed its limit."""
        limit = self.task_seconds
        if limit is None:
            return set()
        late = set()
        for batch_id, run in self.runs.items():
            if run.is_unclear or (self.sees_starts and run.position is None):
                continue
            began = run.started_at if self.sees_starts else run.sent_at
            if began + limit <= self.now:
                late.add(batch_id)
        return late

    # -- events: input and consumer ----------------------------------------------------------------------------------

    def read(self, count: int | None = None, tells_end: bool = True) -> None:
        """Read what is wanted, or less; a slow iterator says only the next time that it has no more."""
        wanted = self.scheduler.wanted()
        assert wanted >= 0
        if not wanted:
            return
        assert not self.is_over and not self.is_exhausted, "reads from an input that has ended"
        count = wanted if count is None else min(count, wanted)
        last = min(self.n_read + count, self.n_tasks)
        tasks = [task(i) for i in range(self.n_read, last)]
        is_exhausted = last == self.n_tasks and (tells_end or not tasks)
        self.ready.update(range(self.n_read, last))
        self.n_read = last
        self.is_exhausted = is_exhausted
        if self.pre_dispatch is not None:
            unfinished = self.n_read - len(self.accepted) - len(self.once_delayed - self.accepted.keys())
            assert unfinished <= self.pre_dispatch * self.max_size, "reads too far ahead"
            if self.window is not None and tasks:
                ahead = len(self.ready) + self.tasks_in_flight + self.held_tasks
                assert ahead <= self.window.tasks, "reads beyond the window"
        self._perform(self.scheduler.on_input(tasks, is_exhausted, self.now))

    def fail_to_read(self) -> None:
        """The input raises."""
        error = LookupError("input")
        self._perform(self.scheduler.on_input_failed(error, self.now), fails_with=error)

    def consume(self) -> None:
        """The consumer takes all of the oldest fragment that it was given."""
        self._perform(self.scheduler.on_consumed(self.unconsumed.popleft()[1], self.now))

    def close(self) -> None:
        """The consumer wants no more."""
        self._perform(self.scheduler.on_close(self.now))
        assert self.end == Finish(abort=True)
        assert self.scheduler.state is State.CLOSED

    # -- events: a batch comes back ----------------------------------------------------------------------------------

    def bring(
        self, batch_id: int, done: int | None = None, failing: frozenset[int] = frozenset(), seconds: float = 0.001
    ) -> None:
        """Let a batch come back: its first `done` tasks were run, and those at the positions `failing` failed.

        A position in `failing` that is not below `done` is a task that failed without those before it having run, as
        one does that cannot be pickled.
        """
        batch = self.runs[batch_id].batch
        done = len(batch) if done is None else done
        self.now += seconds
        values: list[Any] = [result(batch.start + position) for position in range(done)]
        failures = {position: TaskError(batch.start + position) for position in sorted(failing, reverse=True)}
        self._remove(batch_id)
        self.n_barren_losses = 0
        came: dict[int, Any] = {}
        fails_with = None
        for position in range(len(batch)):
            index = batch.start + position
            if position in failures:
                if position < done:
                    values[position] = None
                if self._charge(index, failures[position]):
                    continue
                if not self.return_exceptions:
                    fails_with = failures[position]
                    break
                came[index] = failures[position]
            elif position < done:
                came[index] = values[position]
        self._accept(batch_id, came)
        self._perform(
            self.scheduler.on_outcome(batch_id, list(values), failures, seconds, self.now), fails_with=fails_with
        )

    def bring_again(self, batch_id: int, length: int = 3) -> None:
        """Let a batch come back that is not, or no more, in flight."""
        assert batch_id not in self.runs and batch_id not in self.stuck
        assert self.scheduler.on_outcome(batch_id, ["twice"] * length, {}, 0.0, self.now) == []
        self.check()

    def blame_nobody(self, batch_id: int) -> None:
        """Let a batch come back that could not be unpickled, because of one of its tasks."""
        error = TaskError("unclear")
        run = self._remove(batch_id)
        self.n_barren_losses = 0
        batch, fails_with = run.batch, None
        if len(batch) > 1 and self.tolerates(error):
            self.singles.update(range(batch.start, batch.stop))
        elif not self._charge(batch.start, error):
            if self.return_exceptions:
                self._accept(batch_id, {batch.start: error})
            else:
                fails_with = error
        self._perform(self.scheduler.on_unclear(batch_id, error, self.now), fails_with=fails_with)

    def go_blind(self, batch_id: int) -> None:
        """A worker says that it cannot tell what it runs."""
        run = self._remove(batch_id)
        if run.is_alone:
            self.suspects.add(run.batch.start)
        self.sees_starts = False
        self.batching = FixedBatching(1)
        self.depth = 1
        for other in self.runs.values():
            other.is_unclear = True
            other.position = None
        self._perform(self.scheduler.on_refused(batch_id, self.now, is_blind=True))

    def come_back_late(self, batch_id: int) -> None:
        """A worker that was given up returns from its batch after all."""
        run = self.stuck.pop(batch_id)
        self.load[run.batch.lane] -= 1
        if all(other.batch.lane != run.batch.lane for other in self.stuck.values()):
            self.gone.discard(run.batch.lane)
        self.landed.append(batch_id)
        self._perform(self.scheduler.on_outcome(batch_id, [], {}, 0.0, self.now))

    # -- events: what happens to workers -----------------------------------------------------------------------------

    def begin(self, batch_id: int) -> None:
        """The worker begins a batch, or the next task of it, where that is seen."""
        if not self.sees_starts:
            return
        run = self.runs[batch_id]
        run.position = 0 if run.position is None else min(run.position + 1, len(run.batch) - 1)
        run.started_at = self.now

    def report_start(self, batch_id: int) -> None:
        """A backend that sees starts of batches reports one."""
        self.runs[batch_id].sent_at = self.now
        self._perform(self.scheduler.on_started(batch_id, self.now))

    def lose(self, batch_id: int, is_between_tasks: bool = False, is_deliberate: bool = False) -> None:
        """The worker of a batch ends; deliberately where another call has ended it."""
        run = self.runs[batch_id]
        run.is_doomed |= is_deliberate
        position = run.position if self.sees_starts else None
        is_running = position is not None and not is_between_tasks
        error = LostError(run.batch.start)
        self._remove(batch_id)
        fails_with = self._judge_loss(run, position, is_running, error)
        actions = self.scheduler.on_lost(batch_id, position, is_running, error, self.now, is_deliberate=is_deliberate)
        self._perform(actions, fails_with=fails_with)

    def _judge_loss(self, run: Run, position: int | None, is_running: bool, error: LostError) -> BaseException | None:
        """Say what has to become of the tasks; give the error that ends the call, if one does."""
        batch, faults = run.batch, self.faults
        if run.late is not None:
            return self._settle_late(run)
        if run.is_doomed:
            if run.is_alone:
                self.suspects.add(batch.start)
            return None
        if not faults.replaces_workers or not self.tolerates(error):
            return error
        if run.is_alone or (is_running and not faults.loses_all):
            self.n_barren_losses = 0
            culprit = batch.start + (position or 0)
            if self._charge(culprit, error):
                self.suspects.add(culprit)
            elif self.return_exceptions:
                self._accept(batch.batch_id, {culprit: error})
            else:
                return error
            return None
        self.n_barren_losses += 1
        if position is None and self.sees_starts:
            pass  # it had not begun
        elif position is not None and is_running:
            self.suspects.add(batch.start + position)
        else:
            self.suspects.update(range(batch.start, batch.stop))
        return error if self.n_barren_losses > max(3, self.retry.attempts) * self.max_in_flight else None

    def _settle_late(self, run: Run) -> BaseException | None:
        assert run.late is not None
        position, error = run.late
        index = run.batch.start + position
        self.n_barren_losses = 0
        if self._charge(index, error):
            return None
        if self.return_exceptions:
            self._accept(run.batch.batch_id, {index: error})
            return None
        return error

    def lose_for_good(self, batch_id: int) -> None:
        """The backend loses a batch, and cannot go on."""
        error = RuntimeError("lost")
        self._remove(batch_id)
        self._perform(self.scheduler.on_broken(batch_id, error, self.now), fails_with=error)

    def break_down(self) -> None:
        """The backend as a whole fails."""
        error = RuntimeError("broken")
        self._perform(self.scheduler.on_broken(None, error, self.now), fails_with=error)

    # -- events: time ------------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> None:
        """Let time pass and tell the scheduler; None for as long as nothing is due."""
        deadline = self.scheduler.next_deadline()
        if seconds is None:
            if deadline is None:
                return
            self.now = max(self.now, deadline)
        else:
            self.now += seconds
        late = self.late_runs()
        self.delayed = {index: at for index, at in self.delayed.items() if at > self.now}
        actions = self.scheduler.on_time(self.now)
        if self.call_seconds is not None and self.now >= self.call_seconds:
            assert isinstance(actions[0], Fail) and isinstance(actions[0].error, CallLateError)
            self._perform(actions, fails_with=actions[0].error)
            return
        error = next((action.error for action in actions if isinstance(action, Fail)), None)
        assert error is None or isinstance(error, LateError)
        self._perform(actions, fails_with=error)
        if late and not self.is_over:
            for batch_id in late & self.runs.keys():
                assert self.runs[batch_id].late is not None, "a task passed its limit and nobody noticed"
        after = self.scheduler.next_deadline()
        assert self.is_over or after is None or after > self.now, "the driver would spin"

    def _look(self, batch_id: int) -> None:
        assert self.sees_starts
        run = self.runs[batch_id]
        started_at = run.started_at if run.position is not None else None
        actions = self.scheduler.on_look(batch_id, run.position or 0, started_at, self.now)
        error = next((action.error for action in actions if isinstance(action, Fail)), None)
        self._perform(actions, fails_with=error)

    def _check_late(self, batch_id: int, error: BaseException) -> None:
        assert self.runs[batch_id].is_unclear or batch_id in self.late_runs(), "stopped before its limit"
        run = self.runs[batch_id]
        assert isinstance(error, LateError)
        assert error.args[0] == run.batch.start + (run.position or 0)

    def _kill(self, batch_id: int) -> None:
        assert self.faults.can_kill
        run = self.runs[batch_id]
        assert run.late is None, "killed twice"
        error = LateError(run.batch.start + (run.position or 0), self.now)
        self._check_late(batch_id, error)
        assert self.tolerates(error)
        # The scheduler has made the error; it is compared by its task.
        run.late = run.position or 0, error
        if self.faults.loses_all:
            for other in self.runs.values():
                other.is_doomed = True
            # Also what the scheduler had decided to submit when it was told of the look, and was not submitted yet.
            self._are_all_doomed = self._n_performing > 1

    def _give_up(self, batch_id: int) -> None:
        assert not self.faults.can_kill
        run = self.runs[batch_id]
        assert run.late is None
        victim = run.position or 0
        error = LateError(run.batch.start + victim, self.now)
        self._check_late(batch_id, error)
        assert self.tolerates(error)
        run.late = victim, error
        values = [result(run.batch.start + position) for position in range(victim)]
        if batch_id % 2:
            values = values[: victim // 2]  # what could be saved
        self._remove(batch_id)
        self._accept(batch_id, {run.batch.start + position: value for position, value in enumerate(values)})
        if not self.replaces:
            self.stuck[batch_id] = run
            self.load[run.batch.lane] += 1
            self.gone.add(run.batch.lane)
            self._just_gone.add(run.batch.lane)
            self.landed.remove(batch_id)
        fails_with = self._settle_late(run)
        is_done = self.is_exhausted and not self.runs and not self.ready
        if fails_with is None and len(self.gone) == self.n_jobs and not is_done:
            fails_with = error
        self._perform(
            self.scheduler.on_given_up(batch_id, list(values), self.replaces, self.now), fails_with=fails_with
        )

    # -- the end -----------------------------------------------------------------------------------------------------

    def trouble_the_dead(self) -> None:
        """Whatever comes after the end changes nothing."""
        assert self.is_over
        scheduler, now = self.scheduler, self.now
        for batch_id in [*self.runs, *self.stuck, *self.landed[-1:], 10**9]:
            assert scheduler.on_outcome(batch_id, ["late"], {}, 0.0, now) == []
            assert scheduler.on_started(batch_id, now) == []
            assert scheduler.on_look(batch_id, 0, -1e9, now) == []
            assert scheduler.on_given_up(batch_id, [], True, now) == []
            assert scheduler.on_unclear(batch_id, RuntimeError(), now) == []
            assert scheduler.on_refused(batch_id, now, is_blind=True) == []
            assert scheduler.on_lost(batch_id, 0, True, RuntimeError(), now) == []
            assert scheduler.on_broken(batch_id, RuntimeError(), now) == []
        assert scheduler.on_broken(None, RuntimeError(), now) == []
        assert scheduler.on_input([task(self.n_read)], True, now) == []
        assert scheduler.on_input_failed(RuntimeError(), now) == []
        assert scheduler.on_time(now + 1e9) == []
        while self.unconsumed:
            assert scheduler.on_consumed(self.unconsumed.popleft()[1], now) == []
        assert scheduler.on_close(now) == []
        assert scheduler.wanted() == 0
        assert scheduler.is_over

    def run_to_the_end(self) -> None:
        """Let all go well from now on, the consumer consume only when everything else has stopped; it must end."""
        while not self.is_over:
            if self.scheduler.wanted():
                self.read()
            elif self.runs:
                batch_id = min(self.runs)
                run = self.runs[batch_id]
                if run.late is not None or run.is_doomed:
                    self.lose(batch_id)
                else:
                    self.bring(batch_id)
            elif self.unconsumed:
                self.consume()
            else:
                assert self.delayed, "nothing will ever happen"
                self.wait()
        if isinstance(self.end, Finish) and not self.end.abort:
            assert len(self.delivered) == self.n_tasks
        self.trouble_the_dead()

    # -- actions -----------------------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action], fails_with: BaseException | None = None) -> None:
        """Perform as the driver does: what an action leads to comes before the actions behind it."""
        self._n_performing += 1
        is_ended_inside = False
        for action in actions:
            if is_ended_inside:
                break  # the driver does nothing more either
            assert self.end is None, f"{action} after the end"
            match action:
                case Submit(batch):
                    self._submit(batch)
                case Deliver(start, values):
                    self._deliver(start, values)
                case Look(batch_id):
                    self._has_looked = True
                    self._look(batch_id)
                    is_ended_inside = self.is_over
                case Kill(batch_id):
                    self._kill(batch_id)
                case GiveUp(batch_id):
                    self._has_looked = True
                    self._give_up(batch_id)
                    is_ended_inside = self.is_over
                case _:
                    self.end = action
        self._n_performing -= 1
        if fails_with is not None:
            assert isinstance(self.end, Fail), f"should have failed with {fails_with!r}"
            assert _is_same(self.end.error, fails_with), "another error than that of the first task that failed"
        if not self._n_performing:
            self._are_all_doomed = False
            self._just_gone.clear()
            self._has_looked = False
            self.check()

    def _submit(self, batch: Batch) -> None:
        indices = range(batch.start, batch.stop)
        lane = batch.lane
        assert 1 <= len(batch) <= self.max_size
        assert list(batch.tasks) == [task(i) for i in indices], "a batch with the wrong tasks"
        assert self.ready.issuperset(indices), f"{batch} has tasks that somebody else has, or that are done"
        assert not self.delayed.keys() & set(indices), "a task that runs before its delay is over"
        assert batch.batch_id not in self.seen_ids, "a batch id used twice"
        assert batch.kind is Kind.ITEMS and batch.function is result
        assert batch.budget_seconds == self.batching.budget_seconds
        assert 0 <= lane < self.n_jobs
        assert lane not in self.gone - self._just_gone, "for a worker that is stuck"
        if self.load[lane]:
            assert self.load[lane] < self.depth, "too much for one worker"
            # What was found out since the decision may have freed a worker.
            is_nobody_idle = all(self.load[lane] for lane in range(self.n_jobs))
            assert is_nobody_idle or self._has_looked, "queued although a worker has nothing to do"
        assert len(self.runs) < self.max_in_flight, "too much in flight"
        if self.goes_beyond_the_window(len(batch)):
            assert len(batch) == 1 and self.ordered, f"{batch} goes beyond the window"
            assert batch.start == len(self.delivered), "goes beyond the window, and not everything waits for it"
            assert batch.start in self.sent_before
        assert len(batch) == 1 or not self.singles.intersection(indices), "should have gone one by one"
        is_alone = not self.suspects.isdisjoint(indices)
        self._check_alone(batch, is_alone)
        self.seen_ids.add(batch.batch_id)
        self.ready.difference_update(indices)
        self.suspects.difference_update(indices)
        self.singles.difference_update(indices)
        self.sent_before.update(indices)
        self.runs[batch.batch_id] = Run(batch, self.now, is_alone, is_doomed=self._are_all_doomed)
        self.load[lane] += 1

    def _check_alone(self, batch: Batch, is_alone: bool) -> None:
        others_alone = [run for run in self.runs.values() if run.is_alone]
        if is_alone:
            assert len(batch) == 1, "a suspect with others in one batch"
            assert not self.load[batch.lane], "a suspect behind another batch"
            assert not self.runs or not self.faults.loses_all, "a suspect while others run that it would take along"
        if self.faults.loses_all:
            assert not others_alone, "joins a suspect that may take it along"
        assert all(run.batch.lane != batch.lane for run in others_alone), "behind a suspect"

    def _deliver(self, start: int, values: list[Any]) -> None:
        at = start
        while at < start + len(values):
            at += self.pieces.pop(at, 0) or self.n_tasks + 1
        assert at == start + len(values), "not as it came back, or not for the first time"
        if self.ordered:
            assert start == len(self.delivered), "out of order"
        for index, value in enumerate(values, start):
            assert index not in self.delivered, f"the result of task {index} was delivered twice"
            assert _is_same(value, self.accepted[index])
            self.delivered[index] = value
        if self.window is not None:
            self.unconsumed.append((start, len(values)))

    # -- the books ---------------------------------------------------------------------------------------------------

    def _remove(self, batch_id: int) -> Run:
        """Take a batch out of flight; until something else is said of its tasks, they are to be run again."""
        run = self.runs.pop(batch_id)
        self.load[run.batch.lane] -= 1
        self.landed.append(batch_id)
        self.ready.update(range(run.batch.start, run.batch.stop))
        return run

    def _charge(self, index: int, error: BaseException) -> bool:
        """Count a failed attempt; tell whether the task runs again."""
        self.attempts[index] += 1
        count = self.attempts[index]
        if count >= self.retry.attempts or not isinstance(error, self.retry.on):
            return False
        if self.retry.backoff_seconds:
            self.once_delayed.add(index)
            self.delayed[index] = self.now + self.retry.backoff_seconds * 2 ** (count - 1)
        return True

    def _accept(self, batch_id: int, values: dict[int, Any]) -> None:
        """These came back in a batch: the results, or what stands in their place."""
        last: int | None = None
        for index in sorted(values):
            assert index not in self.accepted
            self.ready.remove(index)
            is_joined = (
                last is not None
                and last + self.pieces[last] == index
                and not isinstance(values[index], Exception)
                and not isinstance(values[index - 1], Exception)
            )
            if is_joined:
                assert last is not None
                self.pieces[last] += 1
            else:
                self.pieces[index] = 1
                last = index
            self.origin[index] = batch_id
        self.accepted.update(values)

    # -- what has to hold --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what has to hold between events."""
        scheduler = self.scheduler
        assert scheduler.is_over == self.is_over
        assert scheduler.n_read == self.n_read
        assert scheduler.n_completed == len(self.accepted)
        if self.n_tasks <= MAX_COMPARED:
            held = scheduler.held_results()
            assert held.keys() == self.accepted.keys() - self.delivered.keys()
            assert all(_is_same(value, self.accepted[index]) for index, value in held.items())
        waiting = [start for start in self.pieces if not self.ordered or start == len(self.delivered)]
        assert not waiting, "results that could be delivered are held"
        if self.window is not None and not self.retry.backoff_seconds:
            run_ahead = len(self.sent_before) - len(self.delivered) + sum(length for _, length in self.unconsumed)
            assert run_ahead <= self.window.tasks, "more tasks run ahead of the consumer than the window has"
        if isinstance(self.end, Fail):
            assert scheduler.state is State.FAILED
        elif isinstance(self.end, Finish):
            assert scheduler.state is (State.CLOSED if self.end.abort else State.FINISHED)
            if not self.end.abort:
                assert self.is_exhausted and len(self.delivered) == self.n_read == self.n_tasks
                assert not self.runs
        else:
            self._check_alive()

    def _check_alive(self) -> None:
        scheduler = self.scheduler
        assert len(self.ready) + self.tasks_in_flight + len(self.accepted) == self.n_read, "a task is nowhere"
        assert scheduler.state is (State.DRAINING if self.is_exhausted else State.FEEDING)
        assert scheduler.in_flight == len(self.runs)
        assert scheduler.n_dispatched == self.tasks_in_flight + len(self.accepted)
        assert not (self.is_exhausted and len(self.accepted) == self.n_read), "all is done and the call goes on"
        someone_alone = self.suspects or any(run.is_alone for run in self.runs.values())
        if len(self.ready) > len(self.delayed) and not someone_alone and len(self.runs) < self.max_in_flight:
            idle = [lane for lane in range(self.n_jobs) if not self.load[lane]]
            assert not idle or self.may_fill_the_window(), f"workers {idle} have nothing to do though tasks wait"
        if not self.runs and not self.unconsumed:
            assert scheduler.wanted() > 0 or self.delayed, f"nothing will ever happen: {scheduler}"
        due = list(self.delayed.values())
        if self.task_seconds is not None:
            due += [
                (run.started_at if self.sees_starts else run.sent_at) + self.task_seconds
                for run in self.runs.values()
                if run.late is None and not run.is_unclear and (run.position is not None or not self.sees_starts)
            ]
        if due:
            deadline = scheduler.next_deadline()
            assert deadline is not None, "a limit or a delay that nobody sees to"
            assert deadline <= max(min(due), self.now)


def _is_same(value: Any, expected: Any) -> bool:
    if isinstance(expected, LateError):  # made by the scheduler
        return isinstance(value, LateError) and value.args[0] == expected.args[0]
    return value is expected if isinstance(expected, BaseException) else bool(value == expected)


def simulate(seed: int, max_tasks: int, *, with_faults: bool = False) -> Simulation:
    """Run one call of up to `max_tasks` tasks with everything chosen by `seed`; give it when it has ended."""
    choose = random.Random(seed)
    max_size = choose.choice([1, 2, 7, max(max_tasks // 10, 1), max_tasks + 1])
    batching: Batching = choose.choice(
        [FixedBatching(max_size), AdaptiveBatching(4, max_size), WhimsicalBatching(seed, max_size)]
    )
    n_jobs = choose.randint(1, 6)
    window = None
    if choose.random() < 0.6:
        window = Window(choose.randint(1, 4 * n_jobs), choose.choice([1, 5, max_size, 2 * max_tasks]))
    options: dict[str, Any] = {
        "n_tasks": choose.randint(0, max_tasks),
        "n_jobs": n_jobs,
        "batching": batching,
        "max_size": max_size,
        "ordered": choose.random() < 0.6,
        "pre_dispatch": choose.choice([None, 1, 2, 2 * n_jobs, 50]),
        "depth": choose.randint(1, 3),
        "window": window,
        "knows_total": choose.random() < 0.5,
        "return_exceptions": choose.random() < 0.5,
    }
    if with_faults:
        options |= _choose_faults(choose)
    world = Simulation(**options)
    cuts, fails, consumes = choose.choice([0.0, 0.1, 0.6]), choose.choice([0.0, 0.02, 0.3]), choose.random()
    ends = 0.01 if choose.random() < 0.3 else 0.0
    hurts = choose.choice([0.02, 0.3, 0.7]) if with_faults else 0.0
    if not world.tolerates(TaskError()) and choose.random() < 0.8:
        fails = 0.0
    while not world.is_over:
        # Each round does at least one of these, else the world would stand still.
        if world.scheduler.wanted() and choose.random() < 0.7:
            world.read(choose.choice([None, 1, choose.randint(1, max_tasks + 1)]), choose.random() < 0.5)
        elif world.unconsumed and (choose.random() < consumes or not world.runs):
            world.consume()
        elif world.runs and choose.random() < hurts:
            _hurt_some(world, choose)
        elif world.runs:
            _bring_some(world, choose, cuts, fails)
        elif world.delayed:
            world.wait()
        elif world.landed:
            world.bring_again(choose.choice(world.landed))
        if not world.is_over and choose.random() < ends:
            choose.choice([world.close, world.break_down, world.fail_to_read])()
    world.trouble_the_dead()
    return world


def _choose_faults(choose: random.Random) -> dict[str, Any]:
    sees_starts = choose.random() < 0.7
    return {
        "retry": Retry(
            attempts=choose.choice([1, 2, 5, 1000]),
            on=choose.choice([(Exception,), (TaskError, LostError), (LateError,)]),
            backoff_seconds=choose.choice([0.0, 0.0, 0.5]),
        ),
        "faults": Faults(
            can_kill=choose.random() < 0.5,
            replaces_workers=choose.random() < 0.9,
            loses_all=choose.random() < 0.4,
            sees_starts=sees_starts,
        ),
        "task_seconds": choose.choice([None, 1.0]),
        "call_seconds": choose.choice([None, None, None, 50.0]),
        "replaces": choose.random() < 0.5,
        # Where starts are not seen, the driver sends one task at a time, and one batch to a worker.
        **({} if sees_starts else {"max_size": 1, "batching": FixedBatching(1), "depth": 1}),
    }


def _bring_some(world: Simulation, choose: random.Random, cuts: float, fails: float) -> None:
    batch_id = choose.choice(list(world.runs))
    size = len(world.runs[batch_id].batch)
    done = choose.randint(1, size) if choose.random() < cuts else size
    failing: frozenset[int] = frozenset()
    if choose.random() < fails:
        failing = frozenset(choose.sample(range(size), choose.randint(1, min(size, 3))))
        if choose.random() < 0.2:
            done = 0
    world.bring(batch_id, done, failing, seconds=choose.choice([0.0, 1e-6, 0.001, 0.3]))


def _hurt_some(world: Simulation, choose: random.Random) -> None:
    batch_id = choose.choice(list(world.runs))
    what = choose.random()
    if what < 0.3:
        world.begin(batch_id)
    elif what < 0.5:
        world.lose(batch_id, choose.random() < 0.2, choose.random() < 0.2)
    elif what < 0.6:
        world.report_start(batch_id)
    elif what < 0.75:
        world.wait(choose.choice([None, 0.1, 0.4, 1.0]))
    elif what < 0.85 and (world.tolerates(LateError()) or choose.random() < 0.1):
        for _ in range(choose.randint(1, len(world.runs[batch_id].batch))):
            world.begin(batch_id)
        world.wait(1.0)
    elif what < 0.9:
        world.blame_nobody(batch_id)
    elif what < 0.92 and world.sees_starts:
        world.go_blind(batch_id)
    elif world.stuck:
        world.come_back_late(choose.choice(list(world.stuck)))
