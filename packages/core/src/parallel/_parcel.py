"""Takes large buffers out of a pickle: what is pickled names them, they travel apart.

Pickle protocol 5 hands over the buffers of whatever offers them. Three kinds get help, because they do not, or not as
well as they could: arrays of numpy (a read-only one would have to arrive read-only; slices of one array would each
bring a copy), ``array.array`` (which copies itself into the pickle), ``bytes`` and ``bytearray`` (which are written
into it by the pickler).
"""

from __future__ import annotations

import array
import contextlib
import copyreg
import io
import pickle
from collections.abc import Hashable, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple

from parallel import _arrays
from parallel._pickling import cloud_pickler, needs_value
from parallel._region import Address

__all__ = ["HAS_ARRAYS", "Location", "Packed", "Parcel", "loads", "pack", "part", "put_together"]

#: In the pickle of an array of numpy; not all of them offer their buffer.
HAS_ARRAYS = b"numpy"

#: How many objects are looked at in search of large bytes.
_SEARCH_LIMIT = 20_000


class Location(NamedTuple):
    """Where a buffer is: number of the region among those of its message, first byte, how many."""

    region: int
    offset: int
    n_bytes: int
    #: Whether its user may look behind it, and must find nothing else there.
    is_alone: bool = False


def part(region: memoryview, location: Location) -> memoryview:
    """Give the part of a mapped region that a location says."""
    view = region[location.offset : location.offset + location.n_bytes]
    return _arrays.alone(view) if location.is_alone else view


class Packed(NamedTuple):
    """A value that travels in parts: its pickle, or where that is, what it names, and where all that is found."""

    data: bytes | Location
    buffers: tuple[Location, ...]
    blobs: tuple[Location, ...]
    regions: tuple[Address, ...]


class Parcel:
    """What travels apart from one pickle; the base class lets nothing travel apart.

    Parameters
    ----------
    limit
        Fewest bytes of a buffer that travels apart.
    """

    #: Whether an array that is mapped from a file travels as the file's name.
    names_files = False
    #: A view brings the whole array that it is a view of along, if that is at most so many times as large.
    max_base_factor = 1

    def __init__(self, limit: int) -> None:
        self.limit = max(limit, 1)
        self.buffers: list[Location] = []
        self.blobs: list[Location] = []
        #: What locations count.
        self.regions: list[Address] = []
        # Stand-ins for arrays, by id, with where the array is: the pickler hands them to `offer` in their turn.
        self._stand_ins: dict[int, tuple[PickleBuffer, Location]] = {}
        self._blob_numbers: dict[int, tuple[int, object]] = {}

    def place(self, data: memoryview, owner: object, key: Hashable = None) -> Location | None:
        """Put bytes where the peer finds them.

        Parameters
        ----------
        data
            One dimension of bytes.
        owner
            What has the memory.
        key
            By what they are known if they are seen again: the id of an owner that others hold too, or anything else,
            which means that the owner may have been made for this pickle; None if only their content tells.

        Returns
        -------
        Location or None
            None if there is no room: then they travel in the pickle.
        """
        return None

    def note(self, value: Any, key: Hashable) -> None:
        """See an array that stays in the pickle."""

    def begin(self) -> None:
        """A pickle is begun (again)."""
        self.buffers.clear()
        self.blobs.clear()
        self._stand_ins.clear()
        self._blob_numbers.clear()

    # -- called by the pickler -----------------------------------------------------------------------------------------

    def offer(self, buffer: PickleBuffer) -> bool:
        """Take a buffer out of the pickle, or tell that it shall stay in."""
        known = self._stand_ins.get(id(buffer))
        if known is not None:
            self.buffers.append(known[1])
            return False
        with buffer.raw() as data:
            if data.nbytes < self.limit:
                return True
            location = self.place(data, data.obj, _arrays.key_of(data))
        if location is None:
            return True
        self.buffers.append(location._replace(is_alone=True))
        return False

    def stand_in(self, location: Location) -> PickleBuffer:
        """Give what stands in a pickle for bytes that were placed already."""
        # Writable: a read-only one is marked as such in the pickle, and what is made of it can then never be written.
        buffer = PickleBuffer(bytearray(1))
        self._stand_ins[id(buffer)] = buffer, location
        return buffer

    def blob(self, value: bytes | bytearray) -> int | None:
        """Take bytes out of the pickle; give their number, or None if they stay in."""
        known = self._blob_numbers.get(id(value))
        if known is None:
            with memoryview(value) as data:
                location = self.place(data, value, ("bytes", id(value)))
            if location is None:
                return None
            known = self._blob_numbers[id(value)] = len(self.blobs), value
            self.blobs.append(location)
        return known[0]


def pack(value: object, parcel: Parcel, by_value: bool = False) -> tuple[bytes | Packed, bool]:
    """Pickle by cloudpickle's rules what does not travel apart; tell whether cloudpickle was needed.

    What is given is bytes where nothing travels apart.

    Parameters
    ----------
    by_value
        Whether to ask cloudpickle at once, because it was needed for the last value.

    Raises
    ------
    Exception
        Whatever the pickling of a user's object raises.
    """
    is_plain = False
    if not by_value:
        offered: list[PickleBuffer] = []
        try:
            data = pickle.dumps(value, 5, buffer_callback=offered.append)
        except Exception:
            by_value = True
        else:
            by_value = needs_value(data)
            is_plain = not by_value and not offered and HAS_ARRAYS not in data
            if is_plain and len(data) < parcel.limit:
                return data, False  # most values: nothing in them is large
    parcel.begin()
    dump = _dump_by_value if by_value else _dump
    if not is_plain:
        data = dump(value, parcel, False)
    if len(data) >= parcel.limit and _has_large_bytes(value, parcel.limit):
        data = dump(value, parcel, True)
    where = parcel.place(memoryview(data), data) if len(data) >= parcel.limit else None
    if where is None and not parcel.buffers and not parcel.blobs:
        return data, by_value
    return Packed(where or data, tuple(parcel.buffers), tuple(parcel.blobs), tuple(parcel.regions)), by_value


def put_together(packed: Packed, regions: Sequence[memoryview]) -> Any:
    """Unpickle what `pack` made, once its regions are mapped."""

    def at(location: Location) -> memoryview:
        return part(regions[location.region], location)

    data = packed.data if isinstance(packed.data, bytes) else at(packed.data)
    return loads(data, [at(location) for location in packed.buffers], [at(location) for location in packed.blobs])


def loads(data: bytes | memoryview, buffers: Sequence[memoryview], blobs: Sequence[memoryview]) -> Any:
    """Unpickle what `pack` made, with what has travelled apart."""
    if not blobs:
        return pickle.loads(data, buffers=buffers)  # noqa: S301 - from our own peer
    return _Unpickler(data, buffers, blobs).load()


# -- picklers ----------------------------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Hands large bytes to the parcel too; asks about every object, so only for what is known to hold some."""

    parcel: Parcel

    def persistent_id(self, value: object) -> object:
        return _blob_number(value, self.parcel)


def _blob_number(value: object, parcel: Parcel) -> tuple[int, bool] | None:
    kind = type(value)
    if (kind is bytes or kind is bytearray) and len(value) >= parcel.limit:  # type: ignore[arg-type]
        number = parcel.blob(value)  # type: ignore[arg-type]
        if number is not None:
            return number, kind is bytearray
    return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes | memoryview, buffers: Sequence[memoryview], blobs: Sequence[memoryview]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._blobs = blobs
        self._made: dict[int, bytes | bytearray] = {}

    def persistent_load(self, pid: Any) -> Any:
        number, is_mutable = pid
        if number not in self._made:
            self._made[number] = (bytearray if is_mutable else bytes)(self._blobs[number])
        return self._made[number]


def _dump(value: object, parcel: Parcel, takes_bytes: bool) -> bytes:
    parcel.begin()
    file = io.BytesIO()
    pickler: pickle.Pickler
    if takes_bytes:
        pickler = own = _Pickler(file, 5, buffer_callback=parcel.offer)
        own.parcel = parcel
    else:
        pickler = pickle.Pickler(file, 5, buffer_callback=parcel.offer)
    pickler.dispatch_table = {**copyreg.dispatch_table, **_arrays.reducers(parcel)}
    pickler.dump(value)
    return file.getvalue()


def _dump_by_value(value: object, parcel: Parcel, takes_bytes: bool) -> bytes:
    parcel.begin()
    file = io.BytesIO()
    methods = {"persistent_id": lambda _, item: _blob_number(item, parcel)} if takes_bytes else {}
    cloud_pickler(file, _arrays.reducers(parcel), methods, buffer_callback=parcel.offer).dump(value)
    return file.getvalue()


def _has_large_bytes(value: object, limit: int) -> bool:
    """Search containers and the attributes of objects for what does not offer its bytes; gives up after a while."""
    seen: set[int] = set()
    waiting: list[Any] = [value]
    while waiting and len(seen) < _SEARCH_LIMIT:
        item = waiting.pop()
        if isinstance(item, bytes | bytearray | array.array):
            if memoryview(item).nbytes >= limit:
                return True
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        with contextlib.suppress(Exception):  # a class of the user's may do anything
            if isinstance(item, dict):
                waiting.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                waiting.extend(item)  # not by +=, which may give what the item's class likes
            elif not isinstance(item, type | str | int | float):
                waiting.extend(vars(item).values())
    return False
