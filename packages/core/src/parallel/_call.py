"""The driver of one call: one inbox, one owner; performs what the scheduler decides.

Everything that happens is put into the inbox as an event with its time. The owner (the one thread in `run`) takes
events out, hands them to the scheduler and performs the actions that come back. Callbacks of a backend only put an
event: they run no user code, submit nothing and take no lock, so there is no lock here and nothing to wait for but the
inbox.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from parallel import _explain
from parallel._actions import Action, Deliver, Fail, Finish, GiveUp, Kill, Look, Submit
from parallel._carrier import CallCarrier
from parallel._in_flight import InFlight
from parallel._jobs import end_jobs, fetch
from parallel._late import LateWatch
from parallel._outlets import ClosedInbox, Inbox, Listener, Sink
from parallel._scheduler import Scheduler
from parallel._sight import Sight
from parallel._source import Source
from parallel._task import Batch, Failure, Job, Outcome
from parallel.backend import ParallelBackendBase
from parallel.errors import TaskPicklingError, WorkerLostError

__all__ = ["STALL_SECONDS", "Call"]

#: When nothing has arrived for this long, the owner looks at the futures in flight, for backends that forget to call
#: back. An event that was lost costs this much, once; no event is ever found late because of it.
STALL_SECONDS = 0.5


class Call:
    """One ``Parallel(...)(tasks)`` under way.

    Parameters
    ----------
    backend, backend_name
        Where jobs go; configured.
    scheduler
        Decides.
    source
        The input.
    carrier
        What all jobs share.
    sight
        Tells what workers run since when, as far as it can.
    sink
        Where results go.
    listener
        Who is told, or None.
    abort_backend
        Called once if the call ends while something may be running, after its jobs were cancelled; False if it could
        not, for the sake of another call.
    may_be_closed
        Whether there is a consumer in another thread, who may close the call at any time.
    clock
        Monotonic seconds.
    inbox
        Where events come in already, if the call was begun by somebody else.
    """

    def __init__(
        self,
        *,
        backend: ParallelBackendBase,
        backend_name: str,
        scheduler: Scheduler,
        source: Source,
        carrier: CallCarrier,
        sight: Sight,
        sink: Sink,
        listener: Listener | None,
        abort_backend: Callable[[], bool],
        may_be_closed: bool = False,
        clock: Callable[[], float] = monotonic,
        inbox: Inbox | None = None,
    ) -> None:
        self.scheduler = scheduler
        self._backend = backend
        self._backend_name = backend_name
        self._source = source
        self._carrier = carrier
        self._sight = sight
        self._sink = sink
        self._listener = listener
        self._abort_backend = abort_backend
        self._may_be_closed = may_be_closed
        self._clock = clock
        self._inbox: Inbox = SimpleQueue() if inbox is None else inbox
        self._jobs = InFlight()
        # Batches that were left to workers which are stuck in them.
        self._stuck: dict[int, Job] = {}
        self._late = LateWatch(self._look_for_late, self._end_all, clock)
        self._error: BaseException | None = None
        self._is_aborted = False
        self._as_of: float | None = None  # the time of an event that is about the past
        self._quiet_until = clock() + STALL_SECONDS

    # -- from any thread; only put events ------------------------------------------------------------------------------

    def consumed(self, tasks: int) -> None:
        """The consumer took all of one delivered fragment."""
        self._put(self._on_consumed, tasks)

    def close(self) -> None:
        """The consumer wants no more."""
        self._put(self._on_close)
        self._late.close()

    def started(self, future: Any) -> None:
        """A worker has begun; see `parallel.backend.Report`."""
        self._note_start(future, self._clock())  # at once, for who acts for the owner while that is in the input
        self._put(self._on_started, future)

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        """A worker ended; see `parallel.backend.Report`."""
        self._put(self.on_lost, future, exit_code, signal)

    def _arrived(self, batch_id: int, brought: Any = None) -> None:
        self._put(self.on_arrived, batch_id, brought)

    def _put(self, handle: Callable[..., None], *arguments: Any) -> None:
        self._inbox.put((handle, arguments, self._clock()))

    # -- the owner -----------------------------------------------------------------------------------------------------

    def run(self, take_over: Callable[[Call], None] | None = None) -> None:
        """Drive the call to its end. Blocks; the calling thread is the owner.

        Parameters
        ----------
        take_over
            Tells first what of the call has happened already.

        Raises
        ------
        BaseException
            What ended the call: a task's own exception, one of `parallel.errors`, what the input raised, or what
            interrupted this thread.
        """
        scheduler = self.scheduler
        try:
            if take_over is not None:
                take_over(self)
            while not scheduler.is_over:
                deadline = scheduler.next_deadline()
                if deadline is not None and deadline <= self._clock():
                    self._pass_deadlines()
                    deadline = scheduler.next_deadline()
                if self._inbox.empty() and (wanted := scheduler.wanted()):
                    self._read(wanted, deadline)
                else:
                    self._wait(deadline)
        except BaseException:  # Ctrl-C, or a listener that raised
            scheduler.on_close(self._clock())
            self._abort()
            raise
        finally:
            self._late.stop()
            self._sight.close()
            self._carrier.close()
            # What comes from now on, and who listens, would lead back here: not freed before garbage is collected.
            self._inbox, self._listener = ClosedInbox(), None
        if scheduler.n_given_up:
            _explain.warn_given_up(self._backend_name, scheduler.n_given_up, len(self._stuck))
        if self._error is not None:
            # Not to be had by way of this frame, which it has: nobody would free all that before garbage is collected.
            raise self._error_taken()

    def adopt(self, job: Job, future: Any, *, is_back: bool) -> None:
        """Take over a job that somebody else has submitted."""
        if not is_back:
            self._jobs.add(job.batch.batch_id, job)
            self._jobs.set_future(job.batch.batch_id, future)
        if self._listener is not None:
            self._listener.batch_submitted(job.batch)

    def settle(self, batch: Batch, outcome: Outcome, failures: dict[int, BaseException], now: float) -> None:
        """Hand an outcome on of which the backend knows."""
        seconds, handling = outcome.seconds, outcome.handling_seconds
        self._perform(self.scheduler.on_outcome(batch.batch_id, outcome.values, failures, seconds, now, handling))
        listener = self._listener
        if listener is not None:
            for position, error in failures.items():
                listener.task_failed(batch.start + position, error)
            listener.batch_done(batch, outcome)
        outcome.values, outcome.failures = [], {}  # whoever has run it may keep it for as long as an error of it lives

    def _error_taken(self) -> BaseException:
        error, self._error = self._error, None
        assert error is not None
        return error

    def _pass_deadlines(self) -> None:
        """Act on deadlines that have passed, once the events that came before are through."""
        for _ in range(self._inbox.qsize()):
            handle, arguments, at = self._inbox.get()
            handle(*arguments, at)
        self._perform(self.scheduler.on_time(self._clock()))

    def _wait(self, deadline: float | None) -> None:
        """Take one event, or notice that a deadline has passed or that nothing has arrived for a while."""
        if self.scheduler.is_over:  # by a deadline
            return
        until = self._quiet_until if deadline is None else min(self._quiet_until, deadline)
        try:
            handle, arguments, at = self._inbox.get(timeout=max(until - self._clock(), 0.0))
        except Empty:
            now = self._clock()
            if now >= self._quiet_until:
                self._quiet_until = now + STALL_SECONDS
                for batch_id, future in self._jobs.done():
                    self._arrived(batch_id, future)
            return
        self._quiet_until = at + STALL_SECONDS
        handle(*arguments, at)

    def _read(self, count: int, deadline: float | None) -> None:
        self._late.enter(deadline, self._may_be_closed and not self._source.is_plain)
        try:
            tasks, exhausted, error = self._source.read(count)
        finally:
            self._late.leave()
        now = self._clock()
        if tasks or exhausted:
            self._perform(self.scheduler.on_input(tasks, exhausted, now))
        if error is not None:
            self._perform(self.scheduler.on_input_failed(error, now))
            error = None  # no cycle between it, its traceback and this frame

    # -- events --------------------------------------------------------------------------------------------------------

    def _on_consumed(self, tasks: int, now: float) -> None:
        self._perform(self.scheduler.on_consumed(tasks, now))

    def _on_close(self, now: float) -> None:
        self._perform(self.scheduler.on_close(now))

    def _note_start(self, future: Any, now: float) -> int | None:
        """Note when a job has begun; give its batch id, or None if it is over."""
        batch_id = self._jobs.batch_of(future)
        entry = self._jobs.get(batch_id) if batch_id is not None else None
        if entry is None:
            return None
        entry[0].submitted_at = now
        return batch_id

    def _on_started(self, future: Any, now: float) -> None:
        batch_id = self._note_start(future, now)
        if batch_id is not None:
            self._perform(self.scheduler.on_started(batch_id, now))

    def on_lost(self, future: Any, exit_code: int | None, signal: int | None, now: float) -> None:
        """A worker has ended."""
        batch_id = self._jobs.batch_of(future)
        entry = self._jobs.pop(batch_id) if batch_id is not None else None
        if batch_id is not None and entry is not None:
            self._lose(batch_id, entry[0], _explain.ended_error(self._backend_name, exit_code, signal), now)

    def on_arrived(self, batch_id: int, brought: Any, now: float) -> None:
        """A batch has come back; `brought` is what its callback got."""
        entry = self._jobs.pop(batch_id)
        if entry is None:
            # A second callback for one batch, one that comes after the end, or the end of a batch that was given up.
            stuck = self._stuck.pop(batch_id, None)
            if stuck is not None:
                self._forget(stuck)
                self._perform(self.scheduler.on_outcome(batch_id, [], {}, 0.0, now))
            return
        job, future = entry
        try:
            outcome = fetch(self._backend, self._backend_name, self._carrier, job, future, brought)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.cannot_fetch(job, error, now)
        else:
            self.fetched(job, outcome, now)

    def cannot_fetch(self, job: Job, error: BaseException, now: float) -> None:
        """What a job brought could not be had."""
        batch = job.batch
        if isinstance(error, WorkerLostError):
            self._lose(batch.batch_id, job, error, now)
            return
        self._forget(job)
        failed = _explain.backend_error(self._backend_name, "lost", batch.indices, error)
        self._perform(self.scheduler.on_broken(batch.batch_id, failed, now))

    def fetched(self, job: Job, outcome: Outcome, now: float) -> None:
        """A job has brought its outcome."""
        batch = job.batch
        if outcome.is_out_of_reach and not self._carrier.refuse(job):
            outcome = _explain.out_of_reach(batch)
        self._forget(job, is_done=outcome.unclear is None)
        if outcome.is_blind:
            if not outcome.is_out_of_reach:
                self._sight.go_blind()
            self._perform(self.scheduler.on_refused(batch.batch_id, now, is_blind=not outcome.is_out_of_reach))
        elif outcome.unclear is not None:
            blamed = _explain.unclear_error(batch, outcome.unclear, self._backend_name)
            self._perform(self.scheduler.on_unclear(batch.batch_id, blamed, now))
        else:
            outcome.handling_seconds += job.sending_seconds
            self._took(batch, outcome, now)

    def cannot_send(self, job: Job, error: TaskPicklingError, now: float) -> None:
        """One of the tasks of a job that was not submitted cannot be pickled."""
        self._took(job.batch, Outcome([], {error.task_index - job.batch.start: Failure(error)}, 0.0), now)

    def _took(self, batch: Batch, outcome: Outcome, now: float) -> None:
        failures = {
            position: _explain.task_error(batch, position, failure, self._backend_name)
            for position, failure in outcome.failures.items()
        }
        self._backend.batch_completed(len(outcome.values), outcome.seconds)
        self.settle(batch, outcome, failures, now)

    def _lose(self, batch_id: int, job: Job, error: WorkerLostError, now: float) -> None:
        note = self._sight.look(job)
        self._forget(job)
        indices, position = job.batch.indices, note.position if note is not None else None
        is_running = note is not None and note.is_running and not error.is_culprit_unclear
        if is_running and position is not None:
            indices = indices[position : position + 1]
        lost = _explain.lost_error(self._backend_name, indices, error)
        deliberate = error.is_deliberate
        self._perform(self.scheduler.on_lost(batch_id, position, is_running, lost, now, is_deliberate=deliberate))

    def _forget(self, job: Job, *, is_done: bool = False) -> None:
        """Give back what was at a job's disposal; `is_done` if its worker has finished with it in good order."""
        self._sight.forget(job)
        self._carrier.release(job.batch.batch_id, is_clean=is_done)

    # -- actions -------------------------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Submit(batch):
                    if not self.scheduler.is_over:  # an earlier action of the list may have ended the call
                        self.submit(batch)
                case Deliver(start, values):
                    self._sink.deliver(start, values)
                case Look(batch_id):
                    self._look(batch_id)
                case Kill(batch_id):
                    self._kill(batch_id)
                case GiveUp(batch_id):
                    self._give_up(batch_id)
                case Fail(error):
                    self._error = _explain.raisable(error)
                    self._abort()
                case Finish(abort):
                    if abort or self._stuck:
                        self._abort()

    def submit(self, batch: Batch) -> None:
        """Give a batch to the backend."""
        job = Job(batch, self._carrier)
        self._sight.follow(job)
        if self._backend.wire == "bytes":
            try:
                job.make_payload(self._clock)  # here, so that an error is the task's and not the pool's
            except TaskPicklingError as error:
                # As an event, not at once: the next batch may be as bad, and so on, each one call deeper.
                self._forget(job)
                self._put(self.cannot_send, job, error)
                return
        self._jobs.add(batch.batch_id, job)
        try:
            future = self._backend.submit(job, partial(self._arrived, batch.batch_id))
        except Exception as error:
            self.not_taken(job, error)
            return
        self._jobs.set_future(batch.batch_id, future)
        if self._listener is not None:
            self._listener.batch_submitted(batch)

    def not_taken(self, job: Job, error: Exception) -> None:
        """The backend has refused a job."""
        batch = job.batch
        self._jobs.pop(batch.batch_id)
        self._forget(job)
        failed = _explain.backend_error(self._backend_name, "did not take", batch.indices, error)
        self._perform(self.scheduler.on_broken(batch.batch_id, failed, self._clock()))

    def _look(self, batch_id: int) -> None:
        entry = self._jobs.get(batch_id)
        if entry is not None:
            note = self._sight.look(entry[0])
            started_at = note.started_at if note is not None and note.is_running else None
            position = note.position if note is not None else 0
            now = self._clock() if self._as_of is None else self._as_of
            self._perform(self.scheduler.on_look(batch_id, position, started_at, now))

    def _kill(self, batch_id: int) -> None:
        entry = self._jobs.get(batch_id)
        if entry is not None:
            self._backend.kill(entry[1])

    def _give_up(self, batch_id: int) -> None:
        entry = self._jobs.pop(batch_id)
        if entry is not None:
            job, future = entry
            job.cancelled = True
            self._stuck[batch_id] = job
            replaced = self._backend.replace(future)
            self._perform(self.scheduler.on_given_up(batch_id, list(job.values), replaced, self._clock()))

    def _abort(self) -> None:
        if self._is_aborted:
            return
        self._is_aborted = True
        end_jobs(self._backend, self._jobs.take_all(), self._abort_backend)

    # -- the thread of `_late`, while the owner is in the user's iterator and changes nothing --------------------------

    def _look_for_late(self) -> float | None:
        """Kill what is late, and tell the owner; give the next deadline."""
        return self._sight.end_late(self._jobs.items(), self._clock(), self._kill_late)

    def _end_all(self) -> None:
        """End what runs, because the call was closed."""
        for _, (job, future) in self._jobs.items():
            job.cancelled = True
            if self._backend.supports_kill and future is not None:
                self._backend.kill(future)

    def _kill_late(self, batch_id: int, position: int, started_at: float) -> None:
        entry = self._jobs.get(batch_id)
        if entry is None:
            return
        self._put(self._on_late, batch_id, position, started_at)
        if self._backend.supports_kill:
            self._backend.kill(entry[1])

    def _on_late(self, batch_id: int, position: int, started_at: float, now: float) -> None:
        self._as_of = now  # what this leads to looking at has ended by now
        self._perform(self.scheduler.on_time(now))  # first: it may have been ended because the whole call is late
        self._perform(self.scheduler.on_look(batch_id, position, started_at, now))
        # It may be the limit of the call that has passed: say so before the news of the killed worker come.
        self._perform(self.scheduler.on_time(now))
        self._as_of = None
