"""Performs what a scheduler wants done, as the driver does, in a world where nothing runs."""

from __future__ import annotations

from typing import Any

from parallel._actions import Action, Deliver, Fail, GiveUp, Kill, Look, Submit
from parallel._results import OrderedResults, UnorderedResults
from parallel._scheduler import Scheduler
from parallel._task import Batch, Kind
from tests.simulation.books import Books, Run, Settings
from tests.simulation.checks import check, check_batch, check_fragment, check_late
from tests.simulation.facts import LateError, is_same, limits, result


class Workers:
    """What the workers of a world do by themselves. These do nothing: somebody else says what happens to them."""

    def submit(self, batch: Batch) -> BaseException | None:
        """Take a batch; or give the error with which it is refused."""
        return None

    def see(self, run: Run) -> None:
        """Bring up to date what the worker of a batch runs."""

    def kill(self, batch_id: int) -> None:
        """End the worker of a batch."""

    def leave(self, batch_id: int, done: int) -> int:
        """Leave a worker to itself; give how many of the `done` results before the task that is late can be saved."""
        return done // 2 if batch_id % 2 else done


class Performer(Books):
    """A scheduler, its books, and what becomes of its actions.

    Parameters
    ----------
    workers
        Those of the world, if they do anything by themselves.
    settings
        See `Settings`.
    """

    def __init__(self, *, workers: Workers | None = None, **settings: Any) -> None:
        made = Settings(**settings)
        super().__init__(made)
        self.workers = workers or Workers()
        self.scheduler = Scheduler(
            n_jobs=made.n_jobs,
            batching=made.batching,
            results=OrderedResults() if made.ordered else UnorderedResults(),
            pre_dispatch=made.pre_dispatch,
            depth=made.depth,
            window=made.window,
            total=made.n_tasks if made.knows_total else None,
            kind=Kind.ITEMS,
            function=result,
            limits=limits(made.task_seconds, made.call_seconds),
            retry=made.retry,
            faults=made.faults,
            return_exceptions=made.return_exceptions,
        )
        self._n_performing = 0
        self._are_all_doomed = False

    def see(self, run: Run) -> None:
        """Bring up to date what a worker runs."""
        if not run.is_told:
            self.workers.see(run)

    def perform(self, actions: list[Action], fails_with: BaseException | None = None) -> None:
        """Perform as the driver does: what an action leads to comes before the actions behind it.

        `fails_with` is the error that has to end the call, if one does.
        """
        self._n_performing += 1
        is_ended_inside = False
        for action in actions:
            if is_ended_inside:
                break  # the driver does nothing more either
            assert self.end is None, f"{action} after the end"
            match action:
                case Submit(batch):
                    self._submit(batch)
                    is_ended_inside = self.is_over
                case Deliver(start, values):
                    self._deliver(start, values)
                case Look(batch_id):
                    self.has_looked = True
                    self._look(batch_id)
                    is_ended_inside = self.is_over
                case Kill(batch_id):
                    self._kill(batch_id)
                case GiveUp(batch_id):
                    self.has_looked = True
                    self._give_up(batch_id)
                    is_ended_inside = self.is_over
                case Fail(error):
                    assert fails_with is not None, f"failed with {error!r}, which is no reason to"
                    self.end = action
                case _:
                    self.end = action
        self._n_performing -= 1
        if fails_with is not None:
            assert isinstance(self.end, Fail), f"should have failed with {fails_with!r}"
            assert is_same(self.end.error, fails_with), f"failed with {self.end.error!r}, not first with {fails_with!r}"
        if not self._n_performing:
            self._are_all_doomed = False
            self.just_gone.clear()
            self.has_looked = False
            check(self, self.scheduler)

    def settle_late(self, run: Run) -> BaseException | None:
        """Say what has to become of a task that passed its limit; give the error if it ends the call."""
        assert run.late is not None
        position, error = run.late
        index = run.batch.start + position
        self.n_barren_losses = 0
        if self.charge(index, error):
            return None
        if self.settings.return_exceptions:
            self.accept(run.batch.batch_id, {index: error})
            return None
        return error

    def _submit(self, batch: Batch) -> None:
        is_alone = check_batch(self, batch)
        self.add(batch, is_alone, self._are_all_doomed)
        error = self.workers.submit(batch)
        if error is not None:
            self.remove(batch.batch_id)
            self.perform(self.scheduler.on_broken(batch.batch_id, error, self.now), fails_with=error)

    def _deliver(self, start: int, values: list[Any]) -> None:
        check_fragment(self, start, values)
        self.deliver(start, values)

    def _look(self, batch_id: int) -> None:
        assert self.sees_starts, "looks where nothing can be seen"
        assert batch_id in self.runs, f"looks at batch {batch_id}, which is not in flight"
        run = self.runs[batch_id]
        self.see(run)
        started_at = run.started_at if run.position is not None and not run.is_idle else None
        self.look(run, run.position or 0, started_at)

    def look(self, run: Run, position: int, started_at: float | None) -> None:
        """Tell the scheduler what a worker runs since when."""
        actions = self.scheduler.on_look(run.batch.batch_id, position, started_at, self.now)
        error = next((action.error for action in actions if isinstance(action, Fail)), None)
        if error is not None:
            check_late(self, run, error)
        self.perform(actions, fails_with=error)

    def _kill(self, batch_id: int) -> None:
        assert self.faults.can_kill, "kills where nothing can be killed"
        run, error = self._stop(batch_id)
        # The scheduler has made the error; it is compared by its task.
        run.late = run.position or 0, error
        if self.faults.loses_all:
            for other in self.runs.values():
                other.is_doomed = True
            # Also what the scheduler had decided to submit when it was told of the look, and was not submitted yet.
            self._are_all_doomed = self._n_performing > 1
        self.workers.kill(batch_id)

    def _stop(self, batch_id: int) -> tuple[Run, LateError]:
        assert batch_id in self.runs, f"stops batch {batch_id}, which is not in flight"
        run = self.runs[batch_id]
        assert run.late is None, f"batch {batch_id} is stopped twice"
        self.see(run)
        error = LateError(run.batch.start + (run.position or 0), self.now)
        check_late(self, run, error)
        assert self.tolerates(error), "goes on after an error that should have ended the call"
        return run, error

    def _give_up(self, batch_id: int) -> None:
        assert not self.faults.can_kill, "gives up a worker that could be killed"
        run, error = self._stop(batch_id)
        self.n_given_up += 1
        batch, victim = run.batch, run.position or 0
        run.late = victim, error
        saved = self.workers.leave(batch_id, victim if self.sees_starts and not run.is_unclear else 0)
        values = [result(batch.start + position) for position in range(saved)]
        self.remove(batch_id)
        self.accept(batch_id, {batch.start + position: value for position, value in enumerate(values)})
        if not self.settings.replaces:
            self.stuck[batch_id] = run
            self.burden(batch.lane, 1)
            self.gone[batch.lane] += 1
            self.just_gone.add(batch.lane)
            self.landed.remove(batch_id)
        fails_with = self.settle_late(run)
        is_done = self.is_exhausted and not self.runs and not self.ready
        if fails_with is None and len(self.stuck) >= self.n_jobs and not is_done:
            fails_with = error
        replaced = self.settings.replaces
        self.perform(self.scheduler.on_given_up(batch_id, values, replaced, self.now), fails_with=fails_with)
