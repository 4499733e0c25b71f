"""A call of no more tasks than there are workers, as long as all goes well.

Each task goes to a worker of its own at once, so there is nothing to decide; what remains is to submit and to wait, and
that takes half as long without a scheduler. Whatever else happens (a failure, a lost worker, Ctrl-C, nothing for a
while) is not dealt with here: `ShortCall.run` gives up, and a `Call` takes over, whose scheduler is told what has
happened so far. Where a task lasts that long anyhow, this costs nothing that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from parallel._actions import Submit
from parallel._batching import TELLING_SECONDS
from parallel._call import STALL_SECONDS, Call
from parallel._experience import Key, are_small, key_of, known_of, remember
from parallel._explain import keep_partial
from parallel._jobs import fetch
from parallel._outlets import ClosedInbox, Inbox
from parallel._pickling import brings_nothing
from parallel._plan import CallPlan, carrier_of
from parallel._source import Source
from parallel._task import Batch, Job, Outcome
from parallel.errors import TaskPicklingError

__all__ = ["ShortCall", "begin_short"]


def begin_short(plan: CallPlan, source: Source) -> ShortCall | None:
    """Begin a call of few tasks, if that is what this is, and if nobody wants to know what happens to it meanwhile."""
    if plan.return_as != "list" or plan.needs_sight or plan.call_seconds is not None:
        return None
    if plan.prints or plan.hook is not None:
        return None
    if plan.batch_size is not None or plan.backend.compute_batch_size() is not None:
        return None
    sharing = plan.sharing_used

    def knows(function: object, args: Iterable[Any]) -> bool:
        # Where tasks are longer, the first may have to run before the input can go on.
        known = known_of(key_of(plan.backend_name, function))
        if known is None or known[0] >= known[1] or not are_small(args):
            return False
        return sharing is None or (sharing.mode != "c" and brings_nothing(function))

    most = plan.n_jobs if plan.pre_dispatch is None else min(plan.n_jobs, plan.pre_dispatch)
    tasks = source.take_few(most, knows, are_small)
    if tasks is None:
        return None
    function = source.function if source.function is not None else tasks[0][0]
    key = key_of(plan.backend_name, function)
    known = known_of(key) if len(tasks) > 1 else None
    if known is not None and known[0] * len(tasks) < known[1]:
        source.give_back(tasks)  # together they take less than a round trip
        return None
    short = ShortCall(plan, source, tasks, key)
    plan.backend.attach(short)
    plan.backend.start_call()
    return short


class ShortCall:
    """The call, for its owner; and what its backend reports to.

    Parameters
    ----------
    plan
        The call's.
    source
        The input.
    tasks
        All of it.
    key
        Under what the function of the first is remembered.
    """

    def __init__(self, plan: CallPlan, source: Source, tasks: list[Any], key: Key | None) -> None:
        self.key = key
        self.carrier = carrier_of(plan)
        if self.carrier.memory is not None and not source.is_plain:
            self.carrier.memory.trust(True)
        #: Where events come in, for the `Call` too.
        self.inbox: Inbox = SimpleQueue()
        self._plan = plan
        self._backend = plan.backend
        self._source = source
        self._tasks = tasks
        self._began_at = 0.0
        # By index: what was submitted, with what `submit` gave; and what has come back, with the time.
        self._jobs: dict[int, tuple[Job, Any]] = {}
        self._outcomes: dict[int, tuple[Outcome, float]] = {}
        # What went otherwise: what to tell the `Call` when it has taken over, of which task if that is back or was not
        # submitted, and an error to raise there.
        self._news: Callable[[Call], None] | None = None
        self._back: int | None = None
        self._refused: int | None = None
        self._error: BaseException | None = None
        self._call: Call | None = None

    # -- from any thread; only put events ------------------------------------------------------------------------------

    def started(self, future: Any) -> None:
        """A worker has begun; see `parallel.backend.Report`. Of no interest where there are no limits."""

    def lost(self, future: Any, exit_code: int | None = None, signal: int | None = None) -> None:
        """A worker ended; see `parallel.backend.Report`."""
        self.inbox.put((self._on_lost, (future, exit_code, signal), monotonic()))

    def _arrived(self, index: int, brought: Any = None) -> None:
        self.inbox.put((self._on_arrived, (index, brought), monotonic()))

    # -- the owner -----------------------------------------------------------------------------------------------------

    def run(self) -> list[Any] | None:
        """Run the tasks and give their results; blocks. None if something else has happened: then `take_over` is next.

        To be followed by `close`, after a call that has taken over too.
        """
        count = len(self._tasks)
        outcomes, inbox, parallel = self._outcomes, self.inbox, self._plan.parallel
        try:
            self._submit_all()
            parallel.n_dispatched_tasks = parallel.n_dispatched_batches = len(self._jobs)
            while self._news is None and len(outcomes) < count:
                try:
                    handle, arguments, at = inbox.get(timeout=STALL_SECONDS)
                except Empty:
                    return None
                handle(*arguments, at)
                parallel.n_completed_tasks = len(outcomes)
            if self._news is not None:
                return None
            parallel.n_completed_tasks = parallel.n_tasks = count
            self._remember()
            return [outcomes[index][0].values[0] for index in range(count)]
        except BaseException as error:  # Ctrl-C, or a backend that raised
            self._error = error
            return None

    def _submit_all(self) -> None:
        carrier, backend, source, inbox = self.carrier, self._backend, self._source, self.inbox
        is_bytes = backend.wire == "bytes"
        self._began_at = monotonic()
        for index, task in enumerate(self._tasks):
            while self._news is None and not inbox.empty():
                handle, arguments, at = inbox.get()
                handle(*arguments, at)
            if self._news is not None:
                return
            job = Job(Batch(index, index, [task], source.kind, source.function, index), carrier)
            if is_bytes:
                try:
                    job.make_payload(monotonic)
                except TaskPicklingError as error:
                    carrier.release(index)
                    self._jobs[index], self._refused = (job, None), index
                    inbox.put((self._on_unsendable, (job, error), monotonic()))
                    return
            job.submitted_at = monotonic()
            self._jobs[index] = job, None
            try:
                future = backend.submit(job, partial(self._arrived, index))
            except Exception as error:
                self._refused = index
                self._news = partial(Call.not_taken, job=job, error=error)
                return
            self._jobs[index] = job, future

    def _on_arrived(self, index: int, brought: Any, at: float) -> None:
        if self._call is not None:
            self._call.on_arrived(index, brought, at)
            return
        if index in self._outcomes:
            return  # a second callback for one batch
        job, future = self._jobs[index]
        self._back = index
        try:
            outcome = fetch(self._backend, self._plan.backend_name, self.carrier, job, future, brought)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._news = partial(Call.cannot_fetch, job=job, error=error, now=at)
            return
        if outcome.failures or len(outcome.values) != 1:
            self._news = partial(Call.fetched, job=job, outcome=outcome, now=at)
            return
        outcome.handling_seconds += job.sending_seconds
        self.carrier.release(index, is_clean=True)
        self._backend.batch_completed(1, outcome.seconds)
        self._outcomes[index] = outcome, at

    def _on_lost(self, future: Any, exit_code: int | None, signal: int | None, at: float) -> None:
        if self._call is not None:
            self._call.on_lost(future, exit_code, signal, at)
        elif any(future is known for index, (_, known) in self._jobs.items() if index not in self._outcomes):
            self._news = partial(Call.on_lost, future=future, exit_code=exit_code, signal=signal, now=at)

    def _on_unsendable(self, job: Job, error: TaskPicklingError, at: float) -> None:
        if self._call is not None:
            self._call.cannot_send(job, error, at)
        else:
            self._news = partial(Call.cannot_send, job=job, error=error, now=at)

    def _remember(self) -> None:
        task_seconds, round_trip_seconds = 1e-8, STALL_SECONDS
        for index, (outcome, at) in self._outcomes.items():
            task_seconds = max(task_seconds, outcome.seconds)
            round_trip = at - self._jobs[index][0].submitted_at - outcome.seconds - outcome.handling_seconds
            round_trip_seconds = min(round_trip_seconds, round_trip)
        known = known_of(self.key)
        if known is not None and task_seconds < TELLING_SECONDS:
            task_seconds = min(task_seconds, known[0])
        remember(self.key, task_seconds, max(round_trip_seconds, 1e-5))

    def give_up(self, error: BaseException) -> None:
        """End what runs because of an error, unless a `Call` has taken over, which does that."""
        if self._call is None:
            keep_partial(error, {index: outcome.values[0] for index, (outcome, _) in self._outcomes.items()})
            self._plan.abort()

    def close(self) -> None:
        """Give back what the call has used, unless a `Call` does."""
        # What comes from now on would lead back here: not freed before garbage is collected.
        self.inbox = ClosedInbox()
        for outcome, _ in self._outcomes.values():
            outcome.values = []  # whoever has run it may keep it
        self._jobs, self._outcomes, self._tasks = {}, {}, []
        if self._call is None:
            try:
                self.carrier.close()
            finally:
                self._backend.stop_call()

    # -- when something else has happened ------------------------------------------------------------------------------

    def take_over(self, call: Call) -> None:
        """Tell a `Call` what has happened; called by its `run`, in which the same events come in from now on.

        Raises
        ------
        BaseException
            What interrupted `run`.
        """
        news, error = self._news, self._error
        self._news = self._error = None
        self._call = call
        self._plan.parallel.n_dispatched_batches = 0  # they are counted again
        waiting: list[Batch] = []
        for action in call.scheduler.on_input(self._tasks, True, self._began_at):
            assert isinstance(action, Submit)
            batch = action.batch
            index = batch.batch_id
            if index not in self._jobs:
                waiting.append(batch)
                continue
            job, future = self._jobs[index]
            job.batch = batch
            if index != self._refused:
                call.adopt(job, future, is_back=index in self._outcomes or index == self._back)
        for index, (outcome, at) in self._outcomes.items():
            call.settle(self._jobs[index][0].batch, outcome, {}, at)
        self._jobs, self._outcomes = {}, {}
        if error is not None:
            try:
                raise error
            finally:
                error = None  # no cycle between the error, its traceback and this frame
        if news is not None:
            news(call)
        for batch in waiting:
            if not call.scheduler.is_over:
                call.submit(batch)
