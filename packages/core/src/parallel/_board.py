"""One shared page per call, on which workers note what they are running since when.

The owner reads it when a deadline may have passed and when a worker is lost. Each batch in flight has a slot of four
numbers; before each task the worker writes two of them, which costs 0.06 µs. A batch that runs
in the caller's own process has such a slot for itself.

On Linux the page is anonymous memory: workers open it through ``/proc/<pid>/fd/<n>``, so it has no name, and the kernel
frees it with the last process that has it. Where there is no such thing there is no board, and a limit means batches of
one task.
"""

from __future__ import annotations

import math
import mmap
import os
from typing import Any, NamedTuple

from parallel._region import Address, Region, has_anonymous, open_region

__all__ = [
    "BATCH",
    "POSITION",
    "PROCESS",
    "STARTED",
    "Board",
    "Note",
    "Slot",
    "is_available",
    "new_slot",
    "open_slot",
    "read_slot",
]

#: Numbers of a slot: the position within the batch of the task that runs; when it began (monotonic seconds, inf while
#: none runs); the batch; the process.
POSITION, STARTED, BATCH, PROCESS = range(4)
_SLOT_BYTES = 4 * 8

Slot = Any  # a memoryview of four doubles: memoryview is not generic before Python 3.14


class Note(NamedTuple):
    """What a worker has noted about a batch."""

    #: Position within the batch of the task that runs, or ran last.
    position: int
    #: When it began; inf if none runs, because the last has ended or the first has not begun.
    started_at: float
    #: The process that runs it.
    process: int

    @property
    def is_running(self) -> bool:
        """Whether a task runs."""
        return self.started_at < math.inf


def is_available() -> bool:
    """Tell whether this system has boards."""
    return has_anonymous()


def new_slot() -> Slot:
    """Make a slot of its own for a batch that runs in this process."""
    slot = memoryview(bytearray(_SLOT_BYTES)).cast("d")
    slot[BATCH] = -1.0
    return slot


class Board:
    """The caller's side: makes the page and reads it.

    Parameters
    ----------
    n_slots
        Batches in flight at a time, at first; there will be more slots if more are needed.

    Raises
    ------
    OSError
        If the system has no memory or descriptor left.
    """

    def __init__(self, n_slots: int) -> None:
        self._region = Region("board")
        self.address = self._region.address
        self._n_slots = 0
        self._free: list[int] = []
        self._grow(n_slots)

    def _grow(self, n_slots: int) -> None:
        n_bytes = n_slots * _SLOT_BYTES
        os.ftruncate(self._region.descriptor, n_bytes)
        self._map = mmap.mmap(self._region.descriptor, n_bytes)
        new = range(self._n_slots, n_slots)
        self._n_slots = n_slots
        for number in reversed(new):
            slot = self._slot(number)
            slot[BATCH] = -1.0  # fresh memory reads as batch 0, begun at 0.0
            slot.release()
            self._free.append(number)

    def take_slot(self) -> int:
        """Give a slot to a batch.

        Raises
        ------
        OSError
            If there is none left, and the system has no memory for more.
        """
        if not self._free:
            self._grow(2 * self._n_slots)
        return self._free.pop()

    def read(self, number: int, batch_id: int) -> Note | None:
        """Read what was noted about a batch; None if no worker has begun it."""
        slot = self._slot(number)
        try:
            return read_slot(slot, batch_id)
        finally:
            slot.release()

    def free_slot(self, number: int) -> None:
        """Take a slot back."""
        slot = self._slot(number)
        slot[BATCH] = -1.0
        slot.release()
        self._free.append(number)

    def _slot(self, number: int) -> Slot:
        return memoryview(self._map)[number * _SLOT_BYTES : (number + 1) * _SLOT_BYTES].cast("d")

    def close(self) -> None:
        """Give the page back; workers that still have it keep theirs until their batch ends."""
        self._map.close()
        self._region.close()


def read_slot(slot: Slot, batch_id: int) -> Note | None:
    """Read a slot while its worker may be writing: the worker writes the time first, then the position.

    So a position that is the same before and after the time was read goes with that time, or with a later one of the
    same task, never with an earlier one: a task is never taken for older than it is.
    """
    while True:
        if slot[BATCH] != batch_id:
            return None
        position, started_at, process = slot[POSITION], slot[STARTED], slot[PROCESS]
        if slot[POSITION] == position and slot[BATCH] == batch_id:
            return Note(int(position), started_at, int(process))


class _OpenSlot:
    """A slot of another process's board, mapped for the time of one batch."""

    def __init__(self, page: mmap.mmap, slot: Slot) -> None:
        self._page = page
        self.slot = slot

    def __enter__(self) -> Slot:
        return self.slot

    def __exit__(self, *_: object) -> None:
        self.slot.release()
        self._page.close()


def open_slot(address: Address, number: int) -> _OpenSlot | None:
    """Map a slot of a call's board in a worker; None if that cannot be, or if what is found is something else."""
    descriptor = open_region(address)
    if descriptor is None:  # another host or namespace, or the caller is gone
        return None
    try:
        page = mmap.mmap(descriptor, 0)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
    view = memoryview(page)
    slot = view[number * _SLOT_BYTES : (number + 1) * _SLOT_BYTES].cast("d")
    view.release()
    return _OpenSlot(page, slot)
