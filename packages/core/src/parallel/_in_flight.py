"""The jobs that are with the backend, by batch and by what `submit` gave for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parallel._task import Job

__all__ = ["InFlight"]


class InFlight:
    """Jobs and their futures, while the scheduler has their batches in flight.

    Changed by the owner; other threads may ask for the job of a future meanwhile.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Job, Any]] = {}
        # By identity, as nothing is asked of futures; each is kept by its entry, so its id is its own.
        self._batch_ids: dict[int, int] = {}

    def add(self, batch_id: int, job: Job) -> None:
        """A job is about to be submitted."""
        self._entries[batch_id] = job, None

    def set_future(self, batch_id: int, future: Any) -> None:
        """Note what `submit` gave for a job, unless it has come back meanwhile."""
        entry = self._entries.get(batch_id)
        if entry is not None:
            self._entries[batch_id] = entry[0], future
            if future is not None:
                self._batch_ids[id(future)] = batch_id

    def get(self, batch_id: int) -> tuple[Job, Any] | None:
        """Give a job and its future."""
        return self._entries.get(batch_id)

    def pop(self, batch_id: int) -> tuple[Job, Any] | None:
        """Give a job and its future, and forget them."""
        entry = self._entries.pop(batch_id, None)
        if entry is not None:
            self._batch_ids.pop(id(entry[1]), None)
        return entry

    def batch_of(self, future: Any) -> int | None:
        """Tell for which batch `submit` gave this; None if that is over, or it gave something else. From any thread."""
        return self._batch_ids.get(id(future))

    def items(self) -> list[tuple[int, tuple[Job, Any]]]:
        """Give all of them, by batch id. From any thread."""
        return list(self._entries.items())

    def take_all(self) -> list[tuple[Job, Any]]:
        """Give all of them, and forget them."""
        entries, self._entries, self._batch_ids = self._entries, {}, {}
        return list(entries.values())

    def done(self) -> Iterable[tuple[int, Any]]:
        """Give batch id and future of those whose futures say that they are done."""
        for batch_id, (_, future) in self.items():
            done = getattr(future, "done", None)
            if callable(done) and done():
                yield batch_id, future

    def __repr__(self) -> str:
        return f"<InFlight {sorted(self._entries)}>"
