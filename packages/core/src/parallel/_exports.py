"""The caller's large buffers in memory that workers can map: one copy for all tasks of a call.

A buffer is known by its owner (the array that has the memory, not the slice that a task gets). It is written once and
kept while its owner lives; as workers map what is written, a buffer that was changed in place is written again,
elsewhere. Whether it was changed is looked up when it is seen again: all of a buffer of up to `FULL_CHECK_BYTES` is
compared, of a larger one both ends and some thousand bytes in between.

Used by the owner of a call only.
"""

from __future__ import annotations

import array
import contextlib
import os
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import Any

from parallel._arrays import is_other_array_class
from parallel._parcel import Location, Parcel
from parallel._region import Folder, Region, aligned, write_all

__all__ = ["Export", "Exports", "max_regions"]

FULL_CHECK_BYTES = 4 << 20

#: What is compared of a larger buffer: so much of each end, and about so many bytes in between.
_END_BYTES = 64 << 10
_N_SAMPLES = 4096

#: How much is read at a time to compare all of a buffer.
_READ_BYTES = 1 << 20

#: A buffer of at least this size has a region for itself; smaller ones of a batch share one.
_OWN_REGION_BYTES = 16 << 20

#: What can be changed in place, and pickles without being asked for its buffer.
_SILENT = (bytearray, array.array)

#: Owners that cannot be watched (bytearrays, say) are held, so that they are known when seen again: so much of them.
_MAX_HELD_BYTES = 256 << 20


class _Shelf:
    """A region, and how many copies are in it."""

    __slots__ = ("n_bytes", "n_copies", "region")

    def __init__(self, region: Region) -> None:
        self.region = region
        self.n_bytes = 0
        self.n_copies = 0


class _Copy:
    """A buffer that was written."""

    __slots__ = ("n_bytes", "n_users", "offset", "owner", "sample", "shelf", "watch")

    def __init__(self, shelf: _Shelf, offset: int, data: memoryview, keeps_all: bool) -> None:
        self.shelf = shelf
        self.offset = offset
        self.n_bytes = data.nbytes
        #: Of what was written; None where all of that can be read again.
        self.sample = _sample(data, keeps_all)
        #: Batches in flight that use it.
        self.n_users = 0
        #: Its owner, held or watched; neither once the copy is not to be used again.
        self.owner: object = None
        self.watch: weakref.ref[object] | None = None

    def is_same(self, data: memoryview) -> bool:
        """Tell whether the buffer that was written still is what it was."""
        if self.sample is not None:
            return _sample(data, keeps_all=True) == self.sample
        return self.has(data)

    def has(self, data: memoryview) -> bool:
        """Tell whether just these bytes were written."""
        descriptor, offset = self.shelf.region.descriptor, self.offset
        return all(
            _read(descriptor, offset + at, min(_READ_BYTES, data.nbytes - at)) == bytes(data[at : at + _READ_BYTES])
            for at in range(0, data.nbytes, _READ_BYTES)
        )


class Export(Parcel):
    """What one batch sends apart; `release` it when the batch is over."""

    names_files = True
    max_base_factor = 8  # others may be views of the same array

    def __init__(self, exports: Exports, limit: int) -> None:
        super().__init__(limit)
        self._exports = exports
        #: Batches that use it besides the one it is of, and whether there will be no more.
        self.n_holders = 0
        self.is_retired = False
        #: How much goes through it, also what was there already.
        self.n_bytes = 0
        self._used: dict[int, _Copy] = {}
        self._shelves: dict[int, int] = {}

    @property
    def has_written(self) -> bool:
        """Whether it refers to anything that was written."""
        return bool(self._used)

    def place(self, data: memoryview, owner: object, key: Hashable = None) -> Location | None:
        """Write bytes, if they are not there yet; see `Parcel`."""
        copy = self._exports.find(data, owner, key, self)
        self.n_bytes += data.nbytes
        if copy is None:
            return None
        if id(copy) not in self._used:
            self._used[id(copy)] = copy
            copy.n_users += 1
        number = self._shelves.get(id(copy.shelf))
        if number is None:
            number = self._shelves[id(copy.shelf)] = len(self.regions)
            self.regions.append(copy.shelf.region.address)
        return Location(number, copy.offset, copy.n_bytes)

    def note(self, value: Any, key: Hashable) -> None:
        """Look whether an array has changed since it was seen last; see `Parcel`."""
        self._exports.note(value, key)

    def watch(self, values: Sequence[object]) -> None:
        """Look at arguments that can be changed in place, and that pickle without showing it."""
        if self._exports.is_watching and not isinstance(values, range):
            # By type first: most batches have many values, of few types, and nothing to look at.
            kinds = {kind for kind in set(map(type, values)) if issubclass(kind, _SILENT) or is_other_array_class(kind)}
            for value in values if kinds else ():
                if type(value) in kinds:
                    self._exports.note(value, id(value))

    def release(self) -> None:
        """Nobody uses what was sent any more."""
        used, self._used = self._used, {}
        for copy in used.values():
            copy.n_users -= 1
        self._exports.tidy(used.values())


class Exports:
    """All that a call has written.

    Parameters
    ----------
    limit
        Fewest bytes of a buffer that travels apart.
    folder
        For files, where memory cannot be anonymous.
    warn
        Called with the reason when something does not fit, and travels through the pipe instead.
    mode
        How workers map what was written. Where they may write to it, buffers of equal content stay apart; and with
        "r+" what was written does not show what it was.
    """

    def __init__(self, limit: int, folder: Folder, warn: Callable[[str], None], *, mode: str | None = "r") -> None:
        self.limit = limit
        self._is_changed_by_tasks = mode == "r+"
        self._is_read_only = mode == "r"
        #: Whether buffers were seen at all, and one that had changed since it was seen before.
        self.has_seen_array = False
        self.has_seen_change = False
        #: Whether it still matters what changes: then what stays in the pickle is looked at, too.
        self.is_watching = True
        # Small arrays, and what they had in them, by key.
        self._noted: dict[Hashable, tuple[object, int]] = {}
        self._folder = folder
        self._warn = warn
        self._max_bytes = _max_bytes()
        self._n_bytes = self._n_held = 0
        # Held here until nothing in them is used, though nobody else may know them: a batch refers to their addresses.
        self._shelves: set[_Shelf] = set()
        # By key, least recently used first: while its owner is held or watched, nothing else has that key.
        self._copies: OrderedDict[Hashable, _Copy] = OrderedDict()
        # Key of a buffer to the key by which its copy is found by content.
        self._aliases: dict[Hashable, Hashable] = {}
        # Keys of owners that are gone; filled by whichever thread drops the last reference.
        self._gone: deque[Hashable] = deque()
        self._open_shelf: tuple[Export, _Shelf] | None = None

    def new_export(self, limit: int | None = None) -> Export:
        """Begin a batch; with a `limit` of its own, or that of all."""
        return Export(self, self.limit if limit is None else limit)

    def find(self, data: memoryview, owner: object, key: Hashable, export: Export) -> _Copy | None:
        """Give the copy of a buffer, made now if there is none, or if the buffer has changed since; None for no room.

        What may have been made for this pickle only is looked for by its content, too.
        """
        self._forget_gone()
        kept_as = self._aliases.get(key, key)
        copy = self._copies.get(kept_as) if key is not None else None
        if copy is not None:
            if copy.n_bytes == data.nbytes and (_is_constant(owner) or copy.is_same(data)):
                self._copies.move_to_end(kept_as)
                return copy
            self._drop(kept_as)
            self.has_seen_change = True
        if key is None and not self._is_read_only:
            key = ("unknown", id(data), len(self._copies))
        if type(key) is not int and self._is_read_only:
            key, alias = ("content", data.nbytes, hash(_sample(data, keeps_all=True))), key
            copy = self._copies.get(key)
            if copy is not None:
                if copy.has(data):
                    self._copies.move_to_end(key)
                    return copy
                self._drop(key)
            if alias is not None:
                self._aliases[alias] = key
        self.has_seen_array = True
        copy = self.write(data, export)
        if copy is not None:
            self._keep(key, copy, owner)
        else:
            self.has_seen_change = True  # there is nothing to compare it with when it is seen again
        return copy

    def note(self, value: Any, key: Hashable) -> None:
        """See an array that stays in the pickle: its change counts like that of others, as long as that matters."""
        self.has_seen_array = True
        if self.has_seen_change or not self.is_watching:
            self._noted.clear()
            return
        content = hash(bytes(value) if isinstance(value, bytearray) else value.tobytes())
        _, before = self._noted.setdefault(key, (value, content))
        self.has_seen_change = before != content

    def write(self, data: memoryview, export: Export) -> _Copy | None:
        """Write a buffer; None if there is no room for it."""
        try:
            shelf = self._shelf(data.nbytes, export)
            offset = aligned(shelf.n_bytes)
            try:
                write_all(shelf.region.descriptor, data, offset)
            except OSError:
                if not shelf.n_copies:
                    self._close(shelf)
                raise
        except OSError as error:
            self._warn(str(error))
            return None
        self._n_bytes += offset + data.nbytes - shelf.n_bytes
        shelf.n_bytes = offset + data.nbytes
        shelf.n_copies += 1
        return _Copy(shelf, offset, data, self._is_changed_by_tasks)

    def tidy(self, copies: Iterable[_Copy]) -> None:
        """Give back what nobody uses: copies that were released, and those whose owner is gone."""
        self._open_shelf = None
        for copy in copies:
            self._free_if_unused(copy)
        self._forget_gone()

    def close(self) -> None:
        """Give everything back."""
        self._copies.clear()
        self._aliases.clear()
        shelves, self._shelves = self._shelves, set()
        for shelf in shelves:
            shelf.region.close()

    # -- keeping -------------------------------------------------------------------------------------------------------

    def _keep(self, key: Hashable, copy: _Copy, owner: object) -> None:
        gone = self._gone
        if type(key) is int:
            with contextlib.suppress(TypeError):
                copy.watch = weakref.ref(owner, lambda _: gone.append(key))
        if copy.watch is None:
            copy.owner = owner
            self._n_held += copy.n_bytes
        self._copies[key] = copy
        if self._n_held > _MAX_HELD_BYTES:
            for other_key, other in list(self._copies.items()):
                if other.watch is None and other_key != key and self._n_held > _MAX_HELD_BYTES:
                    self._drop(other_key)

    def _forget_gone(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            copy = self._copies.get(key)
            if copy is not None and copy.watch is not None and copy.watch() is None:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        copy = self._copies.pop(key)
        for alias in [alias for alias, known in self._aliases.items() if known == key]:
            del self._aliases[alias]
        if copy.watch is None:
            self._n_held -= copy.n_bytes
        copy.watch = copy.owner = None
        self._free_if_unused(copy)

    def _free_if_unused(self, copy: _Copy) -> None:
        if copy.n_users or copy.watch is not None or copy.owner is not None:
            return
        shelf = copy.shelf
        shelf.n_copies -= 1
        if not shelf.n_copies:
            self._close(shelf)

    # -- regions -------------------------------------------------------------------------------------------------------

    def _shelf(self, n_bytes: int, export: Export) -> _Shelf:
        is_own = n_bytes >= _OWN_REGION_BYTES
        if not is_own and self._open_shelf is not None and self._open_shelf[0] is export:
            return self._open_shelf[1]
        self._make_room(n_bytes)
        shelf = _Shelf(Region("data", self._folder))
        self._shelves.add(shelf)
        if not is_own:
            self._open_shelf = export, shelf
        return shelf

    def _make_room(self, n_bytes: int) -> None:
        most = max_regions()
        for key, copy in list(self._copies.items()):
            if self._n_bytes + n_bytes <= self._max_bytes and len(self._shelves) < most:
                return
            if not copy.n_users:
                self._drop(key)
        if self._n_bytes + n_bytes > self._max_bytes or len(self._shelves) >= most:
            raise OSError(f"{len(self._shelves)} buffers of {self._n_bytes >> 20} MiB are shared by this call already")

    def _close(self, shelf: _Shelf) -> None:
        self._n_bytes -= shelf.n_bytes
        self._shelves.discard(shelf)
        if self._open_shelf is not None and self._open_shelf[1] is shelf:
            self._open_shelf = None
        shelf.region.close()


def _is_constant(owner: Any) -> bool:
    """Tell whether nobody can change a buffer: it is read-only down to the bytes that own the memory."""
    while owner is not None:
        if type(owner) is bytes:
            return True
        if isinstance(owner, memoryview):
            is_writable, owner = not owner.readonly, owner.obj
        else:
            is_writable, owner = getattr(getattr(owner, "flags", None), "writeable", True), getattr(owner, "base", None)
        if is_writable:
            return False
    return False  # an array that owns its memory can be made writable again


def _sample(data: memoryview, keeps_all: bool) -> bytes | None:
    if data.nbytes <= FULL_CHECK_BYTES:
        return bytes(data) if keeps_all else None
    # An odd step, so that each byte of an item has its turn.
    step = (data.nbytes // _N_SAMPLES) | 1
    return b"".join((data[:_END_BYTES], bytes(data[::step]), data[-_END_BYTES:]))


def _read(descriptor: int, offset: int, count: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


@cache
def _max_bytes() -> int:
    """Half of the machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def max_regions() -> int:
    """Give the number of descriptors that a call may use for its data: a small part of those that there are."""
    if sys.platform == "win32":
        return 64
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(min(soft // 8, 256), 2)
