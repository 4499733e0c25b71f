"""A world around the scheduler: what may happen in it.

Each event is told to the books and to the scheduler, and what the scheduler wants done is performed and checked. Who
decides what happens is somebody else: a schedule, a test, a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parallel._actions import Fail, Finish
from parallel._batching import FixedBatching
from parallel._scheduler import State
from tests.simulation.books import Run
from tests.simulation.checks import check
from tests.simulation.facts import CallLateError, LateError, LostError, TaskError, is_same, result, task
from tests.simulation.performing import Performer

#: A call that is not over after so many events for each task, and for some tasks more, is not going to be: the longest
#: of ten thousand took seven.
EVENTS_PER_TASK = 100
FREE_TASKS = 10


class World(Performer):
    """Feeds a scheduler with events, and checks every promise of `parallel._scheduler`."""

    # -- input and consumer ------------------------------------------------------------------------------------------

    def read(self, count: int | None = None, tells_end: bool = True) -> None:
        """Read what is wanted, or less; a slow iterator says only the next time that it has no more."""
        wanted = self.scheduler.wanted()
        assert wanted >= 0, f"wants {wanted} tasks"
        if not wanted:
            return
        assert not self.is_over and not self.is_exhausted, "reads from an input that has ended"
        settings = self.settings
        count = wanted if count is None else min(count, wanted)
        last = min(self.n_read + count, settings.n_tasks)
        tasks = [task(i) for i in range(self.n_read, last)]
        is_exhausted = last == settings.n_tasks and (tells_end or not tasks)
        self.ready.update(range(self.n_read, last))
        self.n_read = last
        self.is_exhausted = is_exhausted
        if settings.pre_dispatch is not None:
            unfinished = self.n_read - len(self.accepted) - len(self.once_delayed)
            assert unfinished <= settings.pre_dispatch * settings.max_size, "reads too far ahead"
            if self.window is not None and tasks:
                ahead = len(self.ready) + self.tasks_in_flight + self.held_tasks
                assert ahead <= self.window.tasks, "reads beyond the window"
                batches = len(self.runs) + len(self.n_held_of)
                assert batches < self.window.batches, "reads for another batch than the window has"
        self.perform(self.scheduler.on_input(tasks, is_exhausted, self.now))

    def fail_to_read(self) -> None:
        """The input raises."""
        error = LookupError("input")
        self.perform(self.scheduler.on_input_failed(error, self.now), fails_with=error)

    def take(self) -> None:
        """The consumer takes all of the oldest fragment that it was given."""
        self.perform(self.scheduler.on_consumed(self.consume(), self.now))

    def close(self) -> None:
        """The consumer wants no more."""
        self.perform(self.scheduler.on_close(self.now))
        assert self.end == Finish(abort=True), "closed, and goes on"
        assert self.scheduler.state is State.CLOSED, f"closed, but {self.scheduler}"

    # -- a batch comes back ------------------------------------------------------------------------------------------

    def bring(
        self, batch_id: int, done: int | None = None, failing: frozenset[int] = frozenset(), seconds: float = 0.001
    ) -> None:
        """Let a batch come back after so many seconds; see `come_back`."""
        self.now += seconds
        self.come_back(batch_id, done, failing, seconds)

    def come_back(
        self, batch_id: int, done: int | None = None, failing: frozenset[int] = frozenset(), seconds: float = 0.001
    ) -> None:
        """Let a batch come back: its first `done` tasks were run, and those at the positions `failing` failed.

        A position in `failing` that is not below `done` is a task that failed without those before it having run, as
        one does that cannot be pickled. `seconds` is how long the worker was busy.
        """
        batch = self.runs[batch_id].batch
        done = len(batch) if done is None else done
        values: list[Any] = [result(batch.start + position) for position in range(done)]
        failures = {position: TaskError(batch.start + position) for position in sorted(failing, reverse=True)}
        self.remove(batch_id)
        self.n_barren_losses = 0
        came: dict[int, Any] = {}
        fails_with = None
        for position in range(len(batch)) if failures else ():
            index = batch.start + position
            if position in failures:
                if position < done:
                    values[position] = None
                if self.charge(index, failures[position]):
                    continue
                if not self.settings.return_exceptions:
                    fails_with = failures[position]
                    break
                came[index] = failures[position]
            elif position < done:
                came[index] = values[position]
        self.accept(batch_id, came if failures else dict(enumerate(values, batch.start)))
        self.perform(
            self.scheduler.on_outcome(batch_id, list(values), failures, seconds, self.now), fails_with=fails_with
        )

    def bring_again(self, batch_id: int, length: int = 3) -> None:
        """Let a batch come back that is not, or no more, in flight."""
        assert batch_id not in self.runs and batch_id not in self.stuck
        actions = self.scheduler.on_outcome(batch_id, ["twice"] * length, {}, 0.0, self.now)
        assert actions == [], f"batch {batch_id} came back a second time, and that led to {actions}"
        check(self, self.scheduler)

    def blame_nobody(self, batch_id: int) -> None:
        """Let a batch come back that could not be unpickled, because of one of its tasks."""
        error = TaskError("unclear")
        run = self.remove(batch_id)
        self.n_barren_losses = 0
        batch, fails_with = run.batch, None
        if len(batch) > 1 and self.tolerates(error):
            self.singles.update(range(batch.start, batch.stop))
        elif not self.charge(batch.start, error):
            if self.settings.return_exceptions:
                self.accept(batch_id, {batch.start: error})
            else:
                fails_with = error
        self.perform(self.scheduler.on_unclear(batch_id, error, self.now), fails_with=fails_with)

    def go_blind(self, batch_id: int) -> None:
        """A worker says that it cannot tell what it runs."""
        self._take_back(batch_id)
        self.batching = FixedBatching(1)
        self.depth = 1
        if self.sees_starts:
            for other in self.runs.values():
                other.is_unclear = True
                other.position = None
        self.sees_starts = False
        self.perform(self.scheduler.on_refused(batch_id, self.now, is_blind=True))

    def refuse(self, batch_id: int) -> None:
        """A worker says that it has no access to something that the caller shares, and has run nothing."""
        self._take_back(batch_id)
        self.perform(self.scheduler.on_refused(batch_id, self.now, is_blind=False))

    def _take_back(self, batch_id: int) -> None:
        run = self.remove(batch_id)
        if run.is_alone:
            self.suspects.add(run.batch.start)

    def come_back_late(self, batch_id: int) -> None:
        """A worker that was given up returns from its batch after all."""
        lane = self.stuck.pop(batch_id).batch.lane
        self.burden(lane, -1)
        self.gone[lane] -= 1
        if not self.gone[lane]:
            del self.gone[lane]
        self.landed.append(batch_id)
        self.perform(self.scheduler.on_outcome(batch_id, [], {}, 0.0, self.now))

    # -- what happens to workers -------------------------------------------------------------------------------------

    def begin(self, batch_id: int) -> None:
        """The worker begins a batch, or the next task of it, where that is seen."""
        if not self.sees_starts:
            return
        run = self.runs[batch_id]
        run.position = 0 if run.position is None else min(run.position + 1, len(run.batch) - 1)
        run.started_at = self.now
        self.watch(batch_id)

    def report_start(self, batch_id: int) -> None:
        """A backend that sees starts of batches reports one."""
        self.runs[batch_id].sent_at = self.now
        self.perform(self.scheduler.on_started(batch_id, self.now))

    def lose(self, batch_id: int, is_between_tasks: bool = False, is_deliberate: bool = False) -> None:
        """The worker of a batch ends; deliberately where another call has ended it."""
        run = self.runs[batch_id]
        run.is_doomed |= is_deliberate
        if self.sees_starts:
            self.see(run)
        position = run.position if self.sees_starts else None
        is_running = position is not None and not run.is_idle and not is_between_tasks
        error = LostError(run.batch.start)
        self.remove(batch_id)
        fails_with = self._judge_loss(run, position, is_running, error)
        actions = self.scheduler.on_lost(batch_id, position, is_running, error, self.now, is_deliberate=is_deliberate)
        self.perform(actions, fails_with=fails_with)

    def _judge_loss(self, run: Run, position: int | None, is_running: bool, error: LostError) -> BaseException | None:
        """Say what has to become of the tasks; give the error that ends the call, if one does."""
        batch, faults = run.batch, self.faults
        if run.late is not None:
            return self.settle_late(run)
        if run.is_doomed:
            if run.is_alone:
                self.suspects.add(batch.start)
            return None
        if not faults.replaces_workers or not self.tolerates(error):
            return error
        if self.sees_starts and position is None and not run.is_alone:
            self.n_barren_losses += 1  # it had not begun
        elif run.is_alone or (is_running and not faults.loses_all):
            self.n_barren_losses = 0
            culprit = batch.start + (position or 0)
            if self.charge(culprit, error):
                self.suspects.add(culprit)
            elif self.settings.return_exceptions:
                self.accept(batch.batch_id, {culprit: error})
            else:
                return error
            return None
        else:
            self.n_barren_losses += 1
            is_one = position is not None and is_running
            self.suspects.update([batch.start + (position or 0)] if is_one else batch.indices)
        return error if self.n_barren_losses > max(3, self.retry.attempts) * self.max_in_flight else None

    def lose_for_good(self, batch_id: int) -> None:
        """The backend loses a batch, and cannot go on."""
        error = RuntimeError("lost")
        self.remove(batch_id)
        self.perform(self.scheduler.on_broken(batch_id, error, self.now), fails_with=error)

    def break_down(self) -> None:
        """The backend as a whole fails."""
        error = RuntimeError("broken")
        self.perform(self.scheduler.on_broken(None, error, self.now), fails_with=error)

    # -- time --------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float | None = None) -> None:
        """Let time pass and tell the scheduler; None for as long as nothing is due."""
        deadline = self.scheduler.next_deadline()
        if seconds is None:
            if deadline is None:
                return
            self.now = max(self.now, deadline)
        else:
            self.now += seconds
        self.tick()

    def tick(self) -> None:
        """Tell the scheduler the time."""
        self.ripen()
        actions = self.scheduler.on_time(self.now)
        error = next((action.error for action in actions if isinstance(action, Fail)), None)
        call_seconds = self.settings.call_seconds
        if call_seconds is not None and self.now >= call_seconds:
            assert isinstance(error, CallLateError), "the call passed its limit and nobody noticed"
            self.perform(actions, fails_with=error)
            return
        assert error is None or isinstance(error, LateError), f"{error!r} because time has passed"
        if error is not None:
            late = [run for run in self.runs.values() if is_same(error, LateError(run.batch.start))]
            due = [self.due(run) for run in late if not run.is_unclear]
            assert late and all(at is not None and at <= self.now for at in due), f"{error!r} before its limit"
        self.perform(actions, fails_with=error)
        if not self.is_over:
            due_next, deadline = self.next_due(), self.scheduler.next_deadline()
            assert due_next is None or due_next > self.now, "a task passed its limit and nobody noticed"
            assert deadline is None or deadline > self.now, "the driver would spin"

    def tell_late(self, batch_id: int, position: int, started_at: float) -> None:
        """Somebody has seen that a task is late while the owner could not act, and has ended its worker."""
        self.tick()  # first: it may have been ended because the whole call is late
        run = self.runs.get(batch_id)
        if self.is_over:
            return
        if run is None:
            actions = self.scheduler.on_look(batch_id, position, started_at, self.now)
            assert actions == [], f"batch {batch_id} is not in flight, and is late: {actions}"
        elif run.late is None:
            if self.sees_starts and not run.is_unclear:
                run.position, run.started_at, run.is_idle, run.is_told = position, started_at, False, True
            self.look(run, position, started_at)
        if not self.is_over:
            self.tick()

    # -- the end -----------------------------------------------------------------------------------------------------

    def trouble_the_dead(self) -> None:
        """Whatever comes after the end changes nothing."""
        assert self.is_over
        scheduler, now = self.scheduler, self.now
        for batch_id in [*self.runs, *self.stuck, *self.landed[-1:], 10**9]:
            assert scheduler.on_outcome(batch_id, ["late"], {}, 0.0, now) == [], "an outcome after the end"
            assert scheduler.on_started(batch_id, now) == [], "a start after the end"
            assert scheduler.on_look(batch_id, 0, -1e9, now) == [], "a look after the end"
            assert scheduler.on_given_up(batch_id, [], True, now) == [], "a worker given up after the end"
            assert scheduler.on_unclear(batch_id, RuntimeError(), now) == [], "a failure after the end"
            assert scheduler.on_refused(batch_id, now, is_blind=True) == [], "a refusal after the end"
            assert scheduler.on_lost(batch_id, 0, True, RuntimeError(), now) == [], "a loss after the end"
            assert scheduler.on_broken(batch_id, RuntimeError(), now) == [], "a broken backend after the end"
        assert scheduler.on_broken(None, RuntimeError(), now) == [], "a broken backend after the end"
        assert scheduler.on_input([task(self.n_read)], True, now) == [], "input after the end"
        assert scheduler.on_input_failed(RuntimeError(), now) == [], "an input that fails after the end"
        assert scheduler.on_time(now + 1e9) == [], "a deadline after the end"
        while self.unconsumed:
            assert scheduler.on_consumed(self.consume(), now) == [], "work after the end, because something is consumed"
        assert scheduler.on_close(now) == [], "closed after the end"
        assert scheduler.wanted() == 0, "reads after the end"
        assert scheduler.is_over, "a terminal state was left"

    def until_over(self) -> Iterator[None]:
        """Go on until the call is over; raises if that takes too long."""
        most = EVENTS_PER_TASK * (self.settings.n_tasks + FREE_TASKS)
        for _ in range(most):
            if self.is_over:
                return
            yield
        assert self.is_over, f"not over after {most} events: {self.scheduler}"

    def run_to_the_end(self) -> None:
        """Let all go well from now on, the consumer consume only when everything else has stopped; it must end."""
        for _ in self.until_over():
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
                self.take()
            else:
                assert self.delayed, "nothing will ever happen"
                self.wait()
        if isinstance(self.end, Finish) and not self.end.abort:
            assert len(self.delivered) == self.settings.n_tasks
        self.trouble_the_dead()
