"""Results in memory that the caller has made, written and read in one process."""

from __future__ import annotations

import errno
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel import _region, _rooms
from parallel._parcel import Packed, pack
from parallel._region import Folder, Region
from parallel._rooms import ResultParcel, Rooms, unpack_result
from tests.files import open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors")

LIMIT = 1000


@pytest.fixture(params=["anonymous", "file"])
def rooms(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rooms]:
    if request.param == "file":
        monkeypatch.setattr(_region, "has_anonymous", lambda: False)
    folder = Folder(tmp_path)
    made = Rooms(folder, lambda: 3)
    yield made
    made.close()
    folder.close()
    assert list(tmp_path.iterdir()) == []


def take(rooms: Rooms) -> Region:
    room = rooms.take()
    assert room is not None
    return room


def work(room: Region | None, value: object) -> tuple[bytes | Packed, int]:
    """What a worker does with its results."""
    parcel = ResultParcel(LIMIT, room.address if room is not None else None)
    try:
        return pack(value, parcel)[0], parcel.extent
    finally:
        parcel.close()


def bring(rooms: Rooms, value: object) -> Any:
    """A result, all the way."""
    room = take(rooms)
    packed, extent = work(room, value)
    if not isinstance(packed, Packed):
        rooms.give_back(room, is_clean=True)
        return pickle.loads(packed)
    result = unpack_result(packed, room, extent)
    rooms.give_back(room, is_clean=True)
    return result


def refuse(*_: Any) -> Any:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


VALUE: Any = {"a": np.arange(500.0), "b": b"x" * 4000, "c": [bytearray(b"y" * 4000), np.arange(3)], "d": "z" * 4000}


def assert_is_value(found: Any) -> None:
    assert (found["a"] == VALUE["a"]).all()
    assert found["b"] == VALUE["b"]
    assert found["c"][0] == VALUE["c"][0]
    assert (found["c"][1] == VALUE["c"][1]).all()
    assert found["d"] == VALUE["d"]


# -- results -----------------------------------------------------------------------------------------------------------


def test_large_results_come_through_the_room(rooms: Rooms) -> None:
    assert_is_value(bring(rooms, VALUE))


def test_a_result_that_is_large_as_a_whole(rooms: Rooms) -> None:
    assert bring(rooms, ["z" * 5000]) == ["z" * 5000]


def test_results_can_be_written_and_are_the_owner_s_alone(rooms: Rooms) -> None:
    read_only = np.arange(500.0)
    read_only.flags.writeable = False
    result = bring(rooms, [read_only, np.arange(500.0)[::2], np.arange(500.0)])
    for array in result:
        assert array.flags.writeable
        array[0] = 7.0
    child = os.fork()
    if child == 0:
        result[0][:] = 99.0
        os._exit(0)
    os.waitpid(child, 0)
    assert result[0][:3].tolist() == [7.0, 1.0, 2.0]


def test_live_results_hold_no_descriptor(rooms: Rooms) -> None:
    before = open_files()
    results = [bring(rooms, np.full(500, i)) for i in range(100)]
    assert open_files() == before
    assert all((result == i).all() for i, result in enumerate(results))


def test_without_a_room_results_are_a_plain_pickle() -> None:
    packed, extent = work(None, VALUE)
    assert isinstance(packed, bytes)
    assert extent == 0
    assert_is_value(pickle.loads(packed))


def test_a_room_that_is_gone_or_full_is_done_without(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    room = take(rooms)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        packed, _ = work(room, VALUE)
    assert isinstance(packed, bytes)
    assert_is_value(pickle.loads(packed))
    room.close()
    packed, _ = work(room, VALUE)
    assert isinstance(packed, bytes)
    assert_is_value(pickle.loads(packed))
    rooms.give_back(room, is_clean=False)


def test_what_cannot_be_mapped_is_read(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rooms, "map_privately", refuse)
    result = bring(rooms, VALUE)
    assert_is_value(result)
    assert result["a"].flags.writeable


def test_with_too_many_results_alive_the_next_is_a_copy(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel._rooms.MAX_MAPPED", len(_rooms._mapped) + 2)
    kept = [bring(rooms, np.full(1000, float(number))) for number in range(5)]
    assert [float(array[-1]) for array in kept] == [0, 1, 2, 3, 4]
    assert all(array.flags.writeable for array in kept)
    assert len(_rooms._mapped) == _rooms.MAX_MAPPED


def test_a_pickle_that_was_begun_again_takes_no_more_of_the_room(rooms: Rooms) -> None:
    room = take(rooms)
    array = np.arange(500.0)
    packed, extent = work(room, [array, lambda: array])  # the lambda makes it begin again
    assert extent < 2 * array.nbytes
    assert isinstance(packed, Packed)
    found: Any = unpack_result(packed, room, extent)
    assert found[1]() is found[0]
    rooms.give_back(room, is_clean=False)


# -- rooms -------------------------------------------------------------------------------------------------------------


def test_a_room_that_was_left_clean_is_used_again(rooms: Rooms) -> None:
    room = take(rooms)
    rooms.give_back(room, is_clean=True)
    assert rooms.take() is room
    rooms.give_back(room, is_clean=False)
    assert not room.is_open
    assert take(rooms) is not room


def test_there_are_no_more_rooms_than_were_asked_for(rooms: Rooms) -> None:
    taken = [take(rooms) for _ in range(3)]
    assert rooms.take() is None
    rooms.give_back(taken[0], is_clean=False)
    assert rooms.take() is not None
    for room in taken[1:]:
        rooms.give_back(room, is_clean=False)


def test_where_the_system_refuses_there_is_no_room(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", refuse)
        patch.setattr(Folder, "new_file", refuse)
        assert rooms.take() is None
    assert rooms.take() is not None


def test_closing_gives_all_free_rooms_back() -> None:
    before = open_files()
    rooms = Rooms(Folder(), lambda: 3)
    for room in [take(rooms) for _ in range(3)]:
        rooms.give_back(room, is_clean=True)
    assert open_files() == before + 3
    rooms.close()
    assert open_files() == before


def test_calls_on_the_same_workers_leave_each_other_rooms() -> None:
    spare: list[Region] = []
    first = Rooms(Folder(), lambda: 3, spare)
    clean, written = take(first), take(first)
    first.give_back(clean, is_clean=True)
    first.give_back(written, is_clean=False)
    first.close()
    assert spare == [clean] and not written.is_open
    second = Rooms(Folder(), lambda: 3, spare)
    assert take(second) is clean
    assert take(second) is not clean
    assert spare == []


def test_only_some_rooms_are_left_and_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    spare: list[Region] = []
    rooms = Rooms(Folder(), lambda: 100, spare)
    for room in [take(rooms) for _ in range(100)]:
        rooms.give_back(room, is_clean=True)
    rooms.close()
    assert len(spare) == _rooms.MAX_SPARE == open_files() - before
    spare.clear()
    assert open_files() == before
    monkeypatch.setattr(_region, "has_anonymous", lambda: False)
    folder = Folder(tmp_path)
    rooms = Rooms(folder, lambda: 3, spare)
    rooms.give_back(take(rooms), is_clean=True)
    rooms.close()
    folder.close()
    assert spare == [] and open_files() == before
