"""What a world knows of its own: where each task is, what each worker has, what was promised when.

Kept apart from the scheduler, so that it can be told when that loses a task, runs it twice or goes too far. All is
counted as it happens: what has to hold is checked after each event, also in a world of ten thousand workers.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from parallel._actions import Fail, Finish
from parallel._batching import Batching
from parallel._retry import ONCE, Retry
from parallel._scheduler import Faults, Window
from parallel._task import Batch
from tests.simulation.facts import LateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a call is asked for, and what its backend does.

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

    n_tasks: int
    n_jobs: int
    batching: Batching
    max_size: int
    ordered: bool = True
    pre_dispatch: int | None = 4
    depth: int = 2
    window: Window | None = None
    knows_total: bool = False
    return_exceptions: bool = False
    retry: Retry = ONCE
    faults: Faults = Faults()  # noqa: RUF009 - frozen
    task_seconds: float | None = None
    call_seconds: float | None = None
    replaces: bool = False


@dataclass(eq=False, slots=True)
class Run:
    """A batch and the worker that has it."""

    batch: Batch
    #: Or when a backend reported that it had started.
    sent_at: float
    #: Whether its one task is suspected to have ended a worker.
    is_alone: bool
    #: The task that was begun last, and when; None until the worker has begun.
    position: int | None = None
    started_at: float = 0.0
    #: Whether that one has ended, and no other has begun.
    is_idle: bool = False
    #: Whether this is what somebody has seen earlier, in place of the owner.
    is_told: bool = False
    #: The task that passed its limit, and the error for it.
    late: tuple[int, LateError] | None = None
    #: Its worker is being ended for the sake of another batch.
    is_doomed: bool = False
    #: It was sent when starts were seen, and now they are not: nobody can say how long its task has run.
    is_unclear: bool = False


class Books:
    """The books of one call."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.n_jobs = settings.n_jobs
        self.batching = settings.batching
        self.depth = settings.depth
        self.window = settings.window
        self.retry = settings.retry
        self.faults = settings.faults
        self.sees_starts = settings.faults.sees_starts
        most = settings.n_jobs * settings.depth
        self.max_in_flight = most if settings.pre_dispatch is None else min(settings.pre_dispatch, most)
        self.now = 0.0
        self.end: Fail | Finish | None = None
        # -- tasks
        self.n_read = 0
        self.is_exhausted = False
        self.ready: set[int] = set()  # read, and with nobody
        self.once_delayed: set[int] = set()  # not done, and had to wait for another attempt: others are read meanwhile
        # Of `ready`, what may have to wait, and until when at most; and the earliest time for each that ever had to.
        self.delayed: dict[int, float] = {}
        self.not_before: dict[int, float] = {}
        self.suspects: set[int] = set()  # of these, what has to run alone
        self.singles: set[int] = set()  # what has to run in a batch of one
        self.sent_before: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.failed: set[int] = set()  # what has failed, and is not done
        self._delayed_until: list[tuple[float, int]] = []  # a heap of `delayed`, and of what was
        # -- batches and workers
        self.runs: dict[int, Run] = {}
        self.tasks_in_flight = 0
        self.stuck: dict[int, Run] = {}  # given up
        self.seen_ids: set[int] = set()
        self.landed: list[int] = []
        self.load = [0] * settings.n_jobs
        self.n_idle = settings.n_jobs
        self.alone: dict[int, int] = {}  # the lanes of suspects to their batches
        self.gone: Counter[int] = Counter()  # the lanes of `stuck`
        self.n_barren_losses = 0
        self.n_given_up = 0
        self._due: list[
            tuple[float, int]
        ] = []  # a heap: the batches that have limits, with a time that is not too late
        # What was found out about workers while actions are performed, which were decided before.
        self.has_looked = False
        self.just_gone: set[int] = set()
        # -- results
        self.accepted: dict[int, Any] = {}  # what came back, by task
        self.delivered: dict[int, Any] = {}
        # What came back and was not delivered, start and length. Pieces are as small as they may be: a failure is one.
        self.pieces: dict[int, int] = {}
        self.n_in_pieces = 0
        self.unconsumed: deque[tuple[int, int]] = deque()  # start and length of what was delivered
        self.n_unconsumed = 0
        self._origin: dict[int, int] = {}  # the batch in which a task came back that is not consumed; with a window
        self.n_held_of: Counter[int] = Counter()  # and how many of these each batch has

    @property
    def is_over(self) -> bool:
        return self.end is not None

    @property
    def held_tasks(self) -> int:
        """How many results came back and were not consumed."""
        return self.n_in_pieces + self.n_unconsumed

    @property
    def n_free(self) -> int:
        """How many more batches the workers may have that are not stuck."""
        n_with_others = len(self.runs) + len(self.stuck) - sum(self.load[lane] for lane in self.gone)
        return self.depth * (self.n_jobs - len(self.gone)) - n_with_others

    # -- what they say -----------------------------------------------------------------------------------------------

    def goes_beyond_the_window(self, tasks: int) -> bool:
        """Whether another batch of so many tasks is more than the window has for certain."""
        return self.window is not None and (
            len(self.runs) + len(self.n_held_of) + 1 > self.window.batches
            or self.tasks_in_flight + self.held_tasks + tasks > self.window.tasks
        )

    def may_fill_the_window(self) -> bool:
        """Whether the window may be full: it counts fragments, of which there are as many as pieces at most."""
        return self.window is not None and (
            len(self.runs) + len(self.pieces) + len(self.unconsumed) >= self.window.batches
            or self.tasks_in_flight + self.held_tasks >= self.window.tasks
        )

    def tolerates(self, error: BaseException) -> bool:
        """Whether the call goes on after such an error."""
        is_retried = self.retry.attempts > 1 and isinstance(error, self.retry.on)
        return self.settings.return_exceptions or is_retried

    def due(self, run: Run) -> float | None:
        """When the task that a worker runs passes its limit; None if there is none, or if nobody can say."""
        limit = self.settings.task_seconds
        if limit is None or run.is_unclear or run.late is not None:
            return None
        if not self.sees_starts:
            return run.sent_at + limit
        self.see(run)
        return None if run.position is None or run.is_idle else run.started_at + limit

    def see(self, run: Run) -> None:
        """Bring up to date what a worker runs, where nobody tells at every start."""

    def next_due(self) -> float | None:
        """When the next task passes its limit."""
        while self._due:
            at, batch_id = self._due[0]
            run = self.runs.get(batch_id)
            due = self.due(run) if run is not None else None
            if due is None:
                heapq.heappop(self._due)
            elif due > at:  # it has begun another task since
                heapq.heapreplace(self._due, (due, batch_id))
            else:
                return due
        return None

    def next_delayed(self) -> float | None:
        """When the next task may have another attempt."""
        while self._delayed_until and self.delayed.get(self._delayed_until[0][1]) != self._delayed_until[0][0]:
            heapq.heappop(self._delayed_until)
        return self._delayed_until[0][0] if self._delayed_until else None

    # -- what happens ------------------------------------------------------------------------------------------------

    def watch(self, batch_id: int) -> None:
        """A task began that may pass its limit."""
        if self.settings.task_seconds is not None:
            due = self.due(self.runs[batch_id])
            if due is not None:
                heapq.heappush(self._due, (due, batch_id))

    def ripen(self) -> None:
        """Forget the delays that are over."""
        while (at := self.next_delayed()) is not None and at <= self.now:
            del self.delayed[heapq.heappop(self._delayed_until)[1]]

    def add(self, batch: Batch, is_alone: bool, is_doomed: bool) -> None:
        """A batch was sent."""
        indices = batch.indices
        self.seen_ids.add(batch.batch_id)
        self.ready.difference_update(indices)
        self.suspects.difference_update(indices)
        self.singles.difference_update(indices)
        self.sent_before.update(indices)
        if self.delayed:
            for index in indices:
                self.delayed.pop(index, None)  # by chance its delay was shorter than it might have been
        self.runs[batch.batch_id] = Run(batch, self.now, is_alone, is_doomed=is_doomed)
        self.tasks_in_flight += len(batch)
        self.burden(batch.lane, 1)
        if is_alone:
            self.alone[batch.lane] = batch.batch_id
        self.watch(batch.batch_id)

    def remove(self, batch_id: int) -> Run:
        """Take a batch out of flight; until something else is said of its tasks, they are to be run again."""
        run = self.runs.pop(batch_id)
        self.tasks_in_flight -= len(run.batch)
        self.burden(run.batch.lane, -1)
        if run.is_alone:
            del self.alone[run.batch.lane]
        self.landed.append(batch_id)
        self.ready.update(run.batch.indices)
        return run

    def burden(self, lane: int, batches: int) -> None:
        """A worker has so many more batches."""
        before = self.load[lane]
        self.load[lane] = before + batches
        self.n_idle += (before + batches == 0) - (before == 0)

    def charge(self, index: int, error: BaseException) -> bool:
        """Count a failed attempt; tell whether the task runs again."""
        self.attempts[index] += 1
        self.failed.add(index)
        count = self.attempts[index]
        if count >= self.retry.attempts or not isinstance(error, self.retry.on):
            return False
        if self.retry.backoff_seconds:
            self.once_delayed.add(index)
            delay = self.retry.backoff_seconds * 2 ** (count - 1)
            until = self.now + delay * (1 + self.retry.jitter)
            self.not_before[index] = self.now + delay * (1 - self.retry.jitter)
            self.delayed[index] = until
            heapq.heappush(self._delayed_until, (until, index))
        return True

    def accept(self, batch_id: int, values: dict[int, Any]) -> None:
        """These came back in a batch: the results, or what stands in their place."""
        last: int | None = None
        for index in sorted(values):
            assert index not in self.accepted, f"task {index} came back a second time"
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
        self.n_in_pieces += len(values)
        self.accepted.update(values)
        self.once_delayed.difference_update(values)
        if self.failed:
            self.failed.difference_update(values)
        if self.window is not None and values:
            self._origin.update(dict.fromkeys(values, batch_id))
            self.n_held_of[batch_id] += len(values)

    def deliver(self, start: int, values: list[Any]) -> None:
        """A fragment went to the consumer."""
        for at in range(start, start + len(values)):
            self.n_in_pieces -= self.pieces.pop(at, 0)
        self.delivered.update(enumerate(values, start))
        if self.window is not None:
            self.unconsumed.append((start, len(values)))
            self.n_unconsumed += len(values)

    def consume(self) -> int:
        """The consumer took the oldest fragment: give its length."""
        start, length = self.unconsumed.popleft()
        self.n_unconsumed -= length
        for index in range(start, start + length):
            batch_id = self._origin.pop(index)
            self.n_held_of[batch_id] -= 1
            if not self.n_held_of[batch_id]:
                del self.n_held_of[batch_id]
        return length
