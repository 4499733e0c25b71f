"""How arrays are taken apart for a parcel, and put together again.

numpy is not imported here: where it was not, there are no arrays of it.
"""

from __future__ import annotations

import array
import mmap
import os
import sys
from collections.abc import Callable, Hashable
from typing import Any, Protocol

__all__ = ["FileGoneError", "alone", "is_other_array_class", "key_of", "reducers"]


class _Parcel(Protocol):
    limit: int
    names_files: bool
    max_base_factor: int

    def place(self, data: memoryview, owner: object, key: Hashable = None) -> Any: ...

    def stand_in(self, location: Any) -> Any: ...

    def note(self, value: Any, key: Hashable) -> None: ...


def reducers(parcel: _Parcel) -> dict[type, Callable[[Any], Any]]:
    """Give the functions by which the arrays of known types are pickled."""
    found: dict[type, Callable[[Any], Any]] = {array.array: lambda value: _reduce_array(value, parcel)}
    numpy = _numpy()
    if numpy is not None:
        found[numpy.ndarray] = lambda value: _reduce_ndarray(value, parcel)
        found[numpy.memmap] = lambda value: _reduce_memmap(value, parcel)
    return found


def key_of(data: memoryview) -> Hashable:
    """Give by what bytes can be known again, whatever object offers them: their place in memory; None if unknown."""
    numpy = _numpy()
    return (_address(numpy.frombuffer(data, "u1")), data.nbytes) if numpy is not None else None


def is_other_array_class(kind: type) -> bool:
    """Tell whether a class is derived from that of numpy's arrays: masked arrays, matrices."""
    numpy = _numpy()
    return numpy is not None and issubclass(kind, numpy.ndarray) and kind is not numpy.ndarray


def _numpy() -> Any:
    """Give numpy if it has been imported, all of it; another thread may be about to."""
    numpy: Any = sys.modules.get("numpy")
    return numpy if hasattr(numpy, "ndarray") and hasattr(numpy, "memmap") else None


def alone(view: memoryview) -> memoryview:
    """Give the same bytes so that there is nothing else behind them; a copy where numpy is not there to do better."""
    numpy = _numpy()
    return memoryview(numpy.frombuffer(view, "u1") if numpy is not None else bytearray(view))


# -- array.array -------------------------------------------------------------------------------------------------------


def _reduce_array(value: array.array[Any], parcel: _Parcel) -> Any:
    n_bytes = len(value) * value.itemsize
    location = parcel.place(memoryview(value).cast("B"), value, id(value)) if n_bytes >= parcel.limit else None
    if location is None:
        return value.__reduce_ex__(4)
    return _make_array, (value.typecode, parcel.stand_in(location))


def _make_array(typecode: str, data: memoryview) -> array.array[Any]:
    made = array.array(typecode)
    made.frombytes(data)
    return made


# -- numpy -------------------------------------------------------------------------------------------------------------


def _reduce_ndarray(value: Any, parcel: _Parcel) -> Any:
    if value.nbytes >= parcel.limit and not value.dtype.hasobject:
        reduced = _reduce_large(value, parcel)
        if reduced is not None:
            return reduced
    parcel.note(value, (_address(value), value.nbytes))
    if not value.flags.writeable and _is_gapless(value):
        value = value.copy(order="K")  # or protocol 5 makes an array of it that can never be written
    return value.__reduce_ex__(5)


def _reduce_large(value: Any, parcel: _Parcel) -> Any:
    """Take an array apart that is in one piece, or a part of one that is; None if it is best left to numpy."""
    is_fortran = value.flags.fnc
    is_contiguous = is_fortran or value.flags.c_contiguous
    base = _base(value)
    offset = _address(value) - _address(base)
    if base.nbytes > parcel.max_base_factor * value.nbytes or offset % value.dtype.alignment:
        base, offset = value, 0
    if not is_contiguous and (base is value or not value.dtype.isnative or _is_gapless(value)):
        return None
    owner, key = (base, id(base)) if base.base is None else (base.base, (_address(base), base.nbytes))
    location = parcel.place(_bytes_of(base), owner, key)
    if location is None:
        return None
    order, strides = "F" if is_fortran else "C", None if is_contiguous else value.strides
    return _make_ndarray, (parcel.stand_in(location), value.dtype, value.shape, order, offset, strides)


def _is_gapless(value: Any) -> bool:
    """Tell whether an array is in one piece, with its axes in whatever order: a pickle keeps that."""
    axes = sorted(range(value.ndim), key=lambda axis: value.strides[axis], reverse=True)
    return bool(value.transpose(axes).flags.c_contiguous)


def _make_ndarray(
    data: memoryview, dtype: Any, shape: tuple[int, ...], order: Any, offset: int, strides: tuple[int, ...] | None
) -> Any:
    import numpy as np

    if strides is None:
        return np.ndarray(shape, dtype, data, offset, order=order)
    # As a pickle would have it: without gaps, so in a copy.
    made = np.ndarray(shape, dtype, data, offset, strides).copy(order="C")
    made.flags.writeable = not data.readonly
    return made


def _base(value: Any) -> Any:
    """Give the array whose memory the views share, if that is in one piece; else the array itself."""
    base = value
    while type(base.base) is type(value):
        base = base.base
    if not (base.flags.c_contiguous or base.flags.f_contiguous):
        return value
    low = high = _address(value)
    for count, stride in zip(value.shape, value.strides, strict=True):
        low, high = low + min((count - 1) * stride, 0), high + max((count - 1) * stride, 0)
    begin = _address(base)
    return base if begin <= low and high + value.itemsize <= begin + base.nbytes else value


def _address(value: Any) -> int:
    return int(value.__array_interface__["data"][0])


def _bytes_of(value: Any) -> memoryview:
    """Give the bytes of an array that is in one piece, in the order in which they are."""
    return memoryview(value.ravel(order="K").view("u1"))


# -- arrays that are mapped from a file --------------------------------------------------------------------------------


class FileGoneError(Exception):
    """The file of an array is not there, or is another one, where the array was to be mapped again."""


def _reduce_memmap(value: Any, parcel: _Parcel) -> Any:
    place = _place_in_file(value) if parcel.names_files else None
    if place is not None:
        return _map_again, place
    import numpy as np

    if value.nbytes < parcel.limit:
        return value.__reduce_ex__(4)
    return np.ndarray.view, (np.asarray(value), type(value))


def _place_in_file(value: Any) -> tuple[Any, ...] | None:
    """Give what it takes to map an array again; None if that would not give the same."""
    import numpy as np

    memory, name = getattr(value, "_mmap", None), getattr(value, "filename", None)
    order = "F" if value.flags.fnc else "C"
    is_contiguous = order == "F" or value.flags.c_contiguous
    if memory is None or name is None or value.mode == "c" or not is_contiguous or not value.size:
        return None
    start = _address(np.frombuffer(memory, "u1"))
    try:
        identity = os.stat(name)
    except OSError:
        return None
    if _inode_at(start) not in (None, identity.st_ino):
        return None  # another file has got the name since it was mapped
    offset = value.offset - value.offset % mmap.ALLOCATIONGRANULARITY + _address(value) - start
    mode = "r" if value.mode == "r" else "r+"
    return os.path.abspath(name), identity.st_ino, value.dtype, mode, offset, value.shape, order


def _map_again(name: str, inode: int, dtype: Any, mode: Any, offset: int, shape: tuple[int, ...], order: Any) -> Any:
    import numpy as np

    try:
        with open(name, "rb" if mode == "r" else "r+b") as file:
            if os.fstat(file.fileno()).st_ino != inode:  # of the very file that is mapped: names change any time
                raise FileGoneError(name)
            return np.memmap(file, dtype, mode, offset, shape, order)
    except (OSError, ValueError) as error:
        raise FileGoneError(name) from error


def _inode_at(address: int) -> int | None:
    """Tell what file is mapped at an address, where the system tells that."""
    try:
        with open("/proc/self/maps") as lines:
            for line in lines:
                begin, _, end = line.split(None, 1)[0].partition("-")
                if int(begin, 16) <= address < int(end, 16):
                    return int(line.split(None, 5)[4])
    except (OSError, ValueError):
        pass
    return None
