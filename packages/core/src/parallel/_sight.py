"""What the workers of a call run since when, as far as that can be seen from the caller.

On a board of the call where workers are processes of this host; in the job itself where they are threads of this
process; not at all elsewhere: then a batch of one task counts as running from its submission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from parallel._board import Board, Note, new_slot, read_slot
from parallel._region import Address
from parallel._task import Job

__all__ = ["BoardSight", "Sight", "ThreadSight"]


class Sight:
    """What can be seen of the workers; the base class sees nothing.

    `follow`, `forget` and `look` are called by the owner; `end_late` by the thread that acts for it.

    Parameters
    ----------
    task_seconds, call_until
        Limit of a task, and the time at which the whole call is late; None for no limit.
    clock
        Monotonic seconds.
    """

    #: Whether starts of tasks are seen, so that batches may hold several under a limit.
    sees_starts = False
    #: Where workers write, for the header of the call.
    address: Address | None = None

    def __init__(self, task_seconds: float | None, call_until: float | None, clock: Callable[[], float]) -> None:
        self._task_seconds = task_seconds
        self._call_until = call_until
        self._clock = clock

    def follow(self, job: Job) -> None:
        """A job is about to be submitted."""
        job.submitted_at = self._clock()

    def forget(self, job: Job) -> None:
        """A job came back, or will not."""

    def look(self, job: Job) -> Note | None:
        """Tell what the worker of a job runs; None if it has not begun, or if nobody knows."""
        return None

    def go_blind(self) -> None:
        """A worker cannot be seen: from now on nothing is, and a limit counts from the submission."""

    def close(self) -> None:
        """The call is over."""

    def end_late(
        self, jobs: Iterable[tuple[int, tuple[Job, Any]]], now: float, end: Callable[[int, int, float], None]
    ) -> float | None:
        """Call `end` with batch id, position and start of each task that is late; give the next deadline.

        When the whole call is late, all that run are.
        """
        next_deadline = self._call_until if self._call_until is not None and self._call_until > now else None
        is_late = self._call_until is not None and self._call_until <= now
        limit = self._task_seconds
        for batch_id, (job, _) in jobs:
            note = self._running(job)
            if is_late:
                end(batch_id, note.position if note else 0, note.started_at if note else now)
            elif limit is not None:
                due = (note.started_at if note else now) + limit
                if due <= now and note is not None:
                    end(batch_id, note.position, note.started_at)
                else:
                    next_deadline = due if next_deadline is None else min(due, next_deadline)
        return next_deadline

    def _running(self, job: Job) -> Note | None:
        if not self.sees_starts:
            return Note(0, job.submitted_at, 0)
        note = self.look(job)
        return note if note is not None and note.is_running else None


class ThreadSight(Sight):
    """Where jobs run in this process: each brings a slot of its own along."""

    sees_starts = True

    def follow(self, job: Job) -> None:
        """Give the job a slot; see `Sight`."""
        super().follow(job)
        job.note = new_slot()

    def look(self, job: Job) -> Note | None:
        """Read the job's slot; see `Sight`."""
        return read_slot(job.note, job.batch.batch_id)


class BoardSight(Sight):
    """Where jobs run in processes of this host: each has a slot on the call's board."""

    sees_starts = True

    def __init__(
        self, task_seconds: float | None, call_until: float | None, clock: Callable[[], float], n_slots: int
    ) -> None:
        super().__init__(task_seconds, call_until, clock)
        self._board: Board | None = Board(n_slots)
        self.address = self._board.address

    def follow(self, job: Job) -> None:
        """Give the job a slot; see `Sight`."""
        super().follow(job)
        if self.sees_starts:
            assert self._board is not None
            job.slot = self._board.take_slot()

    def forget(self, job: Job) -> None:
        """Take the slot back; see `Sight`."""
        if job.slot is not None and self._board is not None:
            self._board.free_slot(job.slot)
            job.slot = None

    def look(self, job: Job) -> Note | None:
        """Read the job's slot; see `Sight`."""
        if job.slot is None or self._board is None:
            return None
        return self._board.read(job.slot, job.batch.batch_id)

    def go_blind(self) -> None:
        """Give no more slots; see `Sight`."""
        self.sees_starts = False

    def close(self) -> None:
        """Give the board back; see `Sight`."""
        board, self._board = self._board, None
        if board is not None:
            board.close()
