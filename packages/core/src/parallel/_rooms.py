"""Large results in memory that the caller has made: written by the worker, mapped by the caller, copied once.

The caller sends a room along with each batch. What is in it survives the worker, and is the caller's alone: it is
mapped privately, so that a fork of the caller can do it no harm, and without a descriptor, so that thousands of results
can be kept. A room that was used is not used again; the results have its memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from parallel._parcel import Location, Packed, Parcel, put_together
from parallel._region import Address, Folder, Region, aligned, map_privately, open_region, write_all

__all__ = ["ResultParcel", "Rooms", "unpack_result"]


#: How many rooms one call leaves to the next.
MAX_SPARE = 8


class Rooms:
    """The caller's side: regions for results.

    Parameters
    ----------
    folder
        For files, where memory cannot be anonymous.
    most
        Tells how many there may be at a time.
    spare
        Rooms that earlier calls on the same workers have left, for this call to use and to leave some itself; calls in
        several threads may have it in common.
    """

    def __init__(self, folder: Folder, most: Callable[[], int], spare: list[Region] | None = None) -> None:
        self._folder = folder
        self._most = most
        self._spare = spare
        self._n_out = 0
        self._free: list[Region] = []

    def take(self) -> Region | None:
        """Give a room for the results of a batch; None if there is none to be had, and they travel in the pipe."""
        room = self._free.pop() if self._free else self._take_spare() or self._make()
        if room is not None:
            self._n_out += 1
        return room

    def _take_spare(self) -> Region | None:
        try:
            return self._spare.pop() if self._spare else None
        except IndexError:  # another thread was faster
            return None

    def _make(self) -> Region | None:
        if self._n_out >= self._most():
            return None
        try:
            return Region("results", self._folder)
        except OSError:
            return None

    def give_back(self, room: Region, *, is_clean: bool) -> None:
        """A batch is over; `is_clean` if nothing was written and its worker is done with the room."""
        self._n_out -= 1
        if is_clean and room.is_open:
            self._free.append(room)
        else:
            room.close()

    def close(self) -> None:
        """Give all that are free back, but for some without a file that later calls may use."""
        free, self._free = self._free, []
        spare, self._spare = self._spare, None
        for room in free:
            if spare is not None and len(spare) < MAX_SPARE and room.address.process:
                spare.append(room)
            else:
                room.close()


class ResultParcel(Parcel):
    """The worker's side: what of the results of one batch travels apart.

    Parameters
    ----------
    limit
        Fewest bytes of a buffer that travels apart.
    room
        Where to write; None for nowhere.
    """

    def __init__(self, limit: int, room: Address | None) -> None:
        super().__init__(limit)
        self._room = room
        self._descriptor: int | None = None
        #: How much of the room was written to.
        self.extent = 0
        #: Why something large is not in there; empty where all is.
        self.refusal = ""

    def begin(self) -> None:
        """Begin a pickle, again from the start of the room; see `Parcel`."""
        super().begin()
        self.extent = 0
        self.refusal = ""

    def place(self, data: memoryview, owner: object, key: Hashable = None) -> Location | None:
        """Write bytes; see `Parcel`."""
        if self._descriptor is None and self._room is not None:
            self._descriptor = open_region(self._room)
        if self._descriptor is None:
            self._room = None
            self.refusal = "there is no memory for results"
            return None
        offset = aligned(self.extent)
        try:
            write_all(self._descriptor, data, offset)
        except OSError as error:
            self.refusal = str(error)
            return None
        self.extent = offset + data.nbytes
        return Location(0, offset, data.nbytes)

    def close(self) -> None:
        """Let go of the room."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def unpack_result(packed: Packed, room: Region, extent: int) -> object:
    """Unpickle results; those that are in the room are mapped, and have its memory from now on. Closes the room.

    Raises
    ------
    Exception
        Whatever the unpickling of a user's object raises.
    """
    memory = _map(room, extent)
    room.close()
    return put_together(packed, [memory])


#: Most results that are kept in mappings of their own: systems have a limit (65,530 on Linux).
MAX_MAPPED = 20_000

#: Those that there are.
_mapped: weakref.WeakSet[Any] = weakref.WeakSet()


def _map(room: Region, extent: int) -> memoryview:
    try:
        if len(_mapped) < MAX_MAPPED:
            memory = map_privately(room.descriptor, extent)
            _mapped.add(memory)
            return memoryview(memory)
    except (OSError, ValueError):  # no address space, too many mappings: a copy will do
        pass
    content = bytearray(extent)
    with open(room.descriptor, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        at = 0
        while at < extent:
            at += file.readinto(memoryview(content)[at:]) or _fail(at, extent)
    return memoryview(content)


def _fail(at: int, extent: int) -> int:
    raise EOFError(f"a worker has written {at} of {extent} bytes of its results")
