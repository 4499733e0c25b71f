"""What travels apart from a pickle, and what comes out of it again; the peer is a list of bytes."""

from __future__ import annotations

import array
import os
import pickle
import threading
from collections.abc import Hashable
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parallel._arrays import FileGoneError
from parallel._parcel import Location, Packed, Parcel, loads, pack, part

LIMIT = 1000


class Shelf(Parcel):
    """Keeps in memory what travels apart, each buffer once; `room` is how many it has room for."""

    max_base_factor = 8

    def __init__(self, limit: int = LIMIT, room: int = 1000) -> None:
        super().__init__(limit)
        self.room = room
        self.content: list[bytes] = []
        self.known: dict[Hashable, tuple[Location, object]] = {}

    def place(self, data: memoryview, owner: object, key: Hashable = None) -> Location | None:
        if key is not None and key in self.known:
            return self.known[key][0]
        if len(self.content) == self.room:
            return None
        location = Location(0, sum(map(len, self.content)), data.nbytes)
        self.content.append(bytes(data))
        if key is not None:
            self.known[key] = location, owner
        return location


class FileShelf(Shelf):
    names_files = True


def unpack(packed: bytes | Packed, shelf: Shelf, *, writable: bool = True) -> Any:
    if isinstance(packed, bytes):
        return pickle.loads(packed)
    region = memoryview(bytearray(b"".join(shelf.content)))
    if not writable:
        region = region.toreadonly()
    data = packed.data if isinstance(packed.data, bytes) else part(region, packed.data)
    return loads(data, [part(region, at) for at in packed.buffers], [part(region, at) for at in packed.blobs])


def trip(value: object, shelf: Shelf | None = None, *, writable: bool = True) -> Any:
    shelf = shelf or Shelf()
    return unpack(pack(value, shelf)[0], shelf, writable=writable)


def apart(value: object) -> list[int]:
    """Sizes of what travels apart."""
    shelf = Shelf()
    pack(value, shelf)
    return [len(content) for content in shelf.content]


def assert_same_array(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


# -- what travels apart ------------------------------------------------------------------------------------------------


def test_what_has_nothing_large_is_a_plain_pickle() -> None:
    value = {"a": [1, b"x" * 500], "b": np.arange(10), "c": bytearray(10), "d": array.array("i", [1])}
    packed, by_value = pack(value, Shelf())
    assert isinstance(packed, bytes)
    assert not by_value
    found = pickle.loads(packed)
    assert_same_array(found.pop("b"), value.pop("b"))
    assert found == value


BIG = np.arange(500.0)


@pytest.mark.parametrize(
    "value",
    [
        BIG,
        b"x" * 4000,
        bytearray(4000),
        array.array("d", range(500)),
        PickleBuffer(bytearray(4000)),
        pa.py_buffer(b"x" * 4000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_buffers_travel_apart(value: object) -> None:
    assert apart(value) == [4000]
    assert apart({"a": [(value,)]}) == [4000]


def test_large_bytes_are_found_in_attributes_and_keys_of_nothing_else() -> None:
    class Holder:
        pass

    holder = Holder()
    holder.content = [{"a": b"x" * 4000}]  # type: ignore[attr-defined]
    shelf = Shelf()
    packed, by_value = pack(holder, shelf)  # a local class: by cloudpickle's rules
    assert by_value
    assert b"x" * 4000 in shelf.content
    assert unpack(packed, shelf).content == [{"a": b"x" * 4000}]


def test_a_large_pickle_travels_apart_as_a_whole() -> None:
    value = ["x" * 5000]
    shelf = Shelf()
    packed, _ = pack(value, shelf)
    assert isinstance(packed, Packed)
    assert isinstance(packed.data, Location)
    assert unpack(packed, shelf) == value


def test_the_columns_of_a_frame_travel_apart() -> None:
    frame = pd.DataFrame({"a": np.arange(500), "b": np.arange(500.0), "c": pd.Categorical(["x", "y"] * 250)})
    assert sorted(apart(frame))[-2:] == [4000, 4000]
    pd.testing.assert_frame_equal(trip(frame), frame)


def test_slices_of_a_table_share_its_buffers() -> None:
    table = pa.table({"a": np.arange(1000), "b": [f"item {i}" for i in range(1000)]})
    shelf = Shelf()
    found = trip([table.slice(0, 500), table.slice(500)], shelf)
    assert found[0].equals(table.slice(0, 500))
    assert found[1].equals(table.slice(500))
    assert len(shelf.content) == 3  # values, offsets, text


def test_an_object_that_is_referred_to_twice_travels_once_and_is_one_object() -> None:
    for value in (BIG, b"x" * 4000, bytearray(4000), array.array("d", range(500))):
        shelf = Shelf()
        first, second = trip([value, value], shelf)
        assert first is second
        assert len(shelf.content) == 1


def test_equal_bytearrays_stay_two() -> None:
    first, second = trip([bytearray(4000), bytearray(4000)])
    first[0] = 1
    assert second[0] == 0


def test_views_bring_their_base_once() -> None:
    shelf = Shelf()
    views = [BIG[:250], BIG[200:450], BIG[::2], BIG[::-1], BIG.reshape(20, 25).T]
    for found, view in zip(trip(views, shelf), views, strict=True):
        assert_same_array(found, view)
    assert [len(content) for content in shelf.content] == [4000]


def test_a_small_part_of_something_large_comes_without_the_rest() -> None:
    base = np.zeros((1000, 1000))
    assert apart(base[5]) == [8000]
    assert sum(apart(base[:, 5])) < 10_000


def test_a_view_comes_without_its_base_where_nobody_shares_that() -> None:
    class Alone(Shelf):
        max_base_factor = 1

    shelf = Alone()
    assert_same_array(trip(BIG[100:300], shelf), BIG[100:300])
    assert [len(content) for content in shelf.content] == [1600]


def test_arrays_inside_an_array_of_objects_travel_apart() -> None:
    value = np.empty(2, object)
    value[:] = [BIG, {"a": BIG + 1}]
    shelf = Shelf()
    found = trip(value, shelf)
    assert_same_array(found[0], BIG)
    assert_same_array(found[1]["a"], BIG + 1)
    assert len(shelf.content) == 2


def test_a_function_brings_what_it_closes_over() -> None:
    content, text = BIG.copy(), b"x" * 4000
    shelf = Shelf()
    packed, by_value = pack(lambda: (content.sum(), len(text)), shelf)
    assert by_value
    assert unpack(packed, shelf)() == (BIG.sum(), 4000)
    assert 4000 in map(len, shelf.content)


# -- no room -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(5))
def test_what_there_is_no_room_for_stays_in_the_pickle(room: int) -> None:
    shelf = Shelf(room=room)
    value = [BIG, b"x" * 4000, bytearray(b"y" * 4000), array.array("d", range(500)), BIG + 1]
    packed, _ = pack(value, shelf)
    assert isinstance(packed, bytes) == (room == 0)
    found = unpack(packed, shelf)
    assert_same_array(found[0], value[0])
    assert found[1:4] == value[1:4]
    assert_same_array(found[4], value[4])


def test_the_base_class_lets_nothing_travel_apart() -> None:
    packed, _ = pack([BIG, b"x" * 4000], Parcel(1))
    assert isinstance(packed, bytes)


def test_what_cannot_be_pickled_is_an_error() -> None:
    with pytest.raises(TypeError, match="lock"):
        pack([BIG, threading.Lock()], Shelf())


def test_cloudpickle_can_be_asked_at_once() -> None:
    shelf = Shelf()
    packed, by_value = pack([BIG, b"x" * 4000], shelf, by_value=True)
    assert by_value
    assert_same_array(unpack(packed, shelf)[0], BIG)


# -- what may be written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("was_writable", [True, False])
@pytest.mark.parametrize("value", [BIG.copy(), BIG[::2].copy(), np.arange(2.0)], ids=["large", "strided", "small"])
def test_arrays_can_be_written_if_the_memory_can(value: Any, was_writable: bool) -> None:
    value.flags.writeable = was_writable
    assert trip(value).flags.writeable
    assert trip(value, writable=False).flags.writeable == (value.nbytes < LIMIT)


def test_a_gap_does_not_make_an_array_writable() -> None:
    assert not trip(BIG[::2], writable=False).flags.writeable


@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 2, 2)], ids=["large", "small"])
def test_a_read_only_array_with_its_axes_permuted_can_be_written_too(shape: tuple[int, ...]) -> None:
    value = np.zeros(shape).transpose(1, 0, 2)
    value.flags.writeable = False
    found = trip(value)
    assert_same_array(found, value)
    assert found.flags.writeable


def test_bytearrays_and_arrays_of_the_standard_library_are_the_receivers_own() -> None:
    blob, numbers = trip([bytearray(4000), array.array("d", [0.0] * 500)], writable=False)
    blob[0], numbers[0] = 1, 1.0
    numbers.append(2.0)
    assert len(blob) == 4000


# -- classes of the user's ---------------------------------------------------------------------------------------------


class Frame:
    """Offers its buffer to protocol 5."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Frame, (PickleBuffer(self.content),)


class ZeroCopy(bytearray):
    """The example of Python's documentation: looks behind the buffer it is given."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self)._reconstruct, (PickleBuffer(self),), None

    @classmethod
    def _reconstruct(cls, given: Any) -> Any:
        with memoryview(given) as view:
            behind = view.obj
            return behind if type(behind) is cls else cls(behind)


def test_a_class_that_offers_its_buffer() -> None:
    shelf = Shelf()
    found = trip([Frame(bytearray(b"a" * 4000)), Frame(bytearray(b"b" * 4000))], shelf)
    assert [bytes(frame.content) for frame in found] == [b"a" * 4000, b"b" * 4000]
    assert [len(content) for content in shelf.content] == [4000, 4000]


@pytest.mark.parametrize("writable", [True, False])
def test_a_class_that_looks_behind_its_buffer_finds_its_own_only(writable: bool) -> None:
    values = [ZeroCopy(b"a" * 4000), ZeroCopy(b"b" * 4000)]
    assert trip(values, writable=writable) == values


# -- arrays that are mapped from a file --------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    name = str(tmp_path / "numbers")
    np.arange(1000.0).tofile(name)
    return np.memmap(name, "f8", "r+")


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_mapped_file_travels_as_its_name(mapped: Any, mode: Any) -> None:
    value = np.memmap(mapped.filename, "f8", mode, offset=80, shape=(10, 80))
    for view in (value, value[3:], value[2, 5:], value.T, value[:1]):
        shelf = FileShelf()
        found = trip(view, shelf)
        assert shelf.content == []
        assert_same_array(found, view)
        assert (found.filename, found.mode) == (mapped.filename, mode)


def test_what_a_receiver_writes_into_a_mapped_file_is_in_the_file(mapped: Any) -> None:
    trip(mapped, FileShelf())[5] = -1
    assert mapped[5] == -1


def test_a_private_mapping_travels_by_value(mapped: Any) -> None:
    value = np.memmap(mapped.filename, "f8", "c")
    value[0] = 99
    assert_same_array(trip(value, FileShelf()), value)
    assert mapped[0] == 0


def test_a_file_that_was_replaced_or_removed_travels_by_value(mapped: Any) -> None:
    expected = np.array(mapped)
    os.rename(mapped.filename, mapped.filename + ".old")
    assert (trip(mapped, FileShelf()) == expected).all()
    np.zeros(1000).tofile(mapped.filename)
    assert (trip(mapped, FileShelf()) == expected).all()


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_file_that_goes_on_the_way_is_an_error(mapped: Any, is_replaced: bool) -> None:
    shelf = FileShelf()
    packed, _ = pack(mapped, shelf)
    os.rename(mapped.filename, mapped.filename + ".old")
    if is_replaced:
        np.zeros(1000).tofile(mapped.filename)
    with pytest.raises(FileGoneError):
        unpack(packed, shelf)


# -- any value ---------------------------------------------------------------------------------------------------------

#: Without those that numpy itself brings back in another byte order.
dtypes = st.one_of(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.kind not in "Mm" or dtype.isnative),
    hnp.array_dtypes(hnp.scalar_dtypes().filter(lambda dtype: dtype.kind not in "Mm"), allow_subarrays=True),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Draw an array, or a view of one: a slice, reversed, transposed, repeated, read-only, a window moving over it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    dtype = draw(dtypes)
    content = draw(st.integers(0, 255))
    n_bytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
    raw = bytearray((i * 7 + content) % 251 for i in range(n_bytes))
    if dtype.kind in "?USO" or dtype.names or dtype.subdtype or dtype.hasobject:
        raw = bytearray(n_bytes)
    value: Any = np.ndarray(shape, dtype, raw, order=draw(st.sampled_from("CF")))
    if draw(st.booleans()):
        value = value.copy(order="K")
    if value.ndim and draw(st.booleans()):
        value = value[draw(hnp.basic_indices(value.shape, allow_newaxis=True))]
        value = np.asarray(value)
    match draw(st.integers(0, 4)):
        case 0:
            value = value.T
        case 1:
            value = np.broadcast_to(value, (2, *value.shape))
        case 2 if value.ndim and value.shape[-1] > 1:
            value = np.lib.stride_tricks.sliding_window_view(value, 2, axis=-1)
        case 3:
            value = value.view()
            value.flags.writeable = False
    return value


def is_plain(value: Any) -> bool:
    """Tell whether an array is in one piece, along the first or the last axis."""
    return bool(value.flags.c_contiguous or value.flags.f_contiguous)


@given(arrays(), st.sampled_from([1, 16, 1000]), st.booleans())
def test_any_array_is_what_a_plain_pickle_makes_of_it(value: Any, limit: int, writable: bool) -> None:
    found = trip(value, Shelf(limit), writable=writable)
    expected = pickle.loads(pickle.dumps(value, 5))
    assert_same_array(found, expected)
    assert found.flags.writeable or not writable
    if is_plain(value):
        assert found.flags.writeable == (writable or value.nbytes < limit)
        assert found.strides == expected.strides
        assert found.dtype.str == expected.dtype.str


nested = st.recursive(
    st.one_of(
        st.integers(),
        st.binary(max_size=40),
        st.binary(max_size=40).map(bytearray),
        st.text(max_size=40),
        st.lists(st.integers(-100, 100), max_size=20).map(lambda items: array.array("h", items)),
    ),
    lambda items: st.one_of(st.lists(items), st.tuples(items, items), st.dictionaries(st.binary(max_size=20), items)),
)


@given(nested, st.sampled_from([1, 8, 1000]), st.integers(0, 6), st.booleans())
def test_anything_nested_comes_out_equal(value: Any, limit: int, room: int, by_value: bool) -> None:
    shelf = Shelf(limit, room)
    assert unpack(pack(value, shelf, by_value)[0], shelf) == value


def test_cloudpickle_too_takes_arrays_apart_and_keeps_them_writable() -> None:
    shelf = Shelf()
    small, views = np.zeros(3), [BIG[:250], BIG[::2]]
    small.flags.writeable = False
    packed, by_value = pack((lambda: 1, small, views), shelf)
    assert by_value
    function, found, found_views = unpack(packed, shelf)
    assert function() == 1
    assert found.flags.writeable
    assert all(np.array_equal(got, view) for got, view in zip(found_views, views, strict=True))
    assert [len(content) for content in shelf.content] == [4000]
