"""The caller's side of sharing: one copy for each owner, as long as it is true. Batches are unpickled right here."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel import _exports
from parallel._exports import FULL_CHECK_BYTES, Export, Exports
from parallel._imports import OutOfReachError, unpack
from parallel._parcel import Packed, pack
from parallel._region import Folder
from tests.files import open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors")

LIMIT = 1000
MIB = 1 << 20


class Caller:
    """What a call does with its exports."""

    def __init__(self, *, mode: str = "r") -> None:
        self.reasons: list[str] = []
        self.in_flight: list[Export] = []
        self.exports = Exports(LIMIT, Folder(), self.reasons.append, mode=mode)

    def send(self, *values: Any) -> tuple[Packed, Export]:
        """Pack a batch that is in flight until its export is released."""
        export = self.exports.new_export()
        self.in_flight.append(export)
        packed, _ = pack(list(values), export)
        assert isinstance(packed, Packed)
        return packed, export

    def pass_by(self, *values: Any) -> Packed:
        """Send a batch that is over at once."""
        packed, export = self.send(*values)
        export.release()
        return packed

    def sends_plainly(self, *values: Any) -> bool:
        export = self.exports.new_export()
        packed, _ = pack(list(values), export)
        export.release()
        return isinstance(packed, bytes)


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    made.exports.close()


def same_place(*packed: Packed) -> bool:
    """Tell whether all refer to the same bytes."""
    return len({tuple((one.regions[at.region], *at[1:]) for at in one.buffers + one.blobs) for one in packed}) == 1


def large(value: float = 1.0, n_bytes: int = 8000) -> Any:
    return np.full(n_bytes // 8, value)


# -- one copy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [large(), large(n_bytes=FULL_CHECK_BYTES + 8), bytearray(8000), b"x" * 8000, np.frombuffer(b"x" * 8000, "u1")],
    ids=["array", "very large", "bytearray", "bytes", "array of bytes"],
)
def test_batches_share_one_copy(caller: Caller, value: Any) -> None:
    first, second, third = caller.send(value)[0], caller.send(value, value)[0], caller.pass_by(value)
    assert same_place(first, third)
    assert first.regions == second.regions
    (found,) = unpack(third, "r")
    assert bytes(found) == bytes(value)


def test_views_share_the_copy_of_their_base(caller: Caller) -> None:
    base = np.arange(1000.0)
    before = open_files()
    sent = [caller.send(base[i : i + 500])[0] for i in range(0, 500, 100)]
    assert open_files() == before + 1
    for i, packed in enumerate(sent):
        assert (unpack(packed, "r")[0] == base[i * 100 : i * 100 + 500]).all()


def test_small_buffers_of_a_batch_share_a_region(caller: Caller) -> None:
    values = [large(i) for i in range(20)]
    packed, _ = caller.send(*values)
    assert len(packed.regions) == 1
    assert [found[0] for found in unpack(packed, "r")] == list(range(20))


def test_nothing_is_sent_apart_that_is_small(caller: Caller) -> None:
    assert caller.sends_plainly(large(n_bytes=400), b"x" * 100)


# -- values that change ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bytes", [8000, FULL_CHECK_BYTES + 8])
def test_a_buffer_that_was_changed_in_place_is_written_again(caller: Caller, n_bytes: int) -> None:
    value = large(0.0, n_bytes)
    sent = []
    for i in range(5):
        value[:] = i
        sent.append(caller.send(value)[0])
    # What is in flight stays as it was.
    assert [float(unpack(packed, "r")[0][-1]) for packed in sent] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert caller.exports.has_seen_change


@pytest.mark.parametrize("at", [0, 7, 500, 999])
def test_one_changed_item_is_enough_in_what_is_compared_as_a_whole(caller: Caller, at: int) -> None:
    value = large()
    caller.pass_by(value)
    value[at] = 2.0
    assert unpack(caller.send(value)[0], "r")[0][at] == 2.0


def test_a_bytearray_that_was_changed_or_has_grown_is_written_again(caller: Caller) -> None:
    value = bytearray(8000)
    caller.pass_by(value)
    value[5] = 1
    assert unpack(caller.send(value)[0], "r") == [value]
    value += b"more"
    assert unpack(caller.send(value)[0], "r") == [value]


def test_what_workers_have_written_is_no_change_of_the_caller_s() -> None:
    caller = Caller(mode="r+")
    value = large()
    first, _ = caller.send(value)
    unpack(first, "r+")[0][0] = 99.0
    second, _ = caller.send(value)
    assert same_place(first, second)
    assert unpack(second, "r")[0][0] == 99.0
    value[1] = 5.0
    assert unpack(caller.send(value)[0], "r")[0][:2].tolist() == [1.0, 5.0]
    caller.exports.close()


# -- what nobody needs any more ----------------------------------------------------------------------------------------


def test_a_copy_goes_with_its_owner(caller: Caller) -> None:
    before = open_files()
    value = large()
    packed = caller.pass_by(value)
    assert unpack(packed, "r")[0][0] == 1.0
    del value
    caller.pass_by(large())  # any batch tidies up
    caller.exports.tidy(())
    assert open_files() == before
    with pytest.raises(OutOfReachError):
        unpack(packed, "r")


def test_a_copy_stays_for_a_batch_in_flight_when_its_owner_is_gone(caller: Caller) -> None:
    before = open_files()
    packed, export = caller.send(large(3.0))
    caller.pass_by(large(4.0))
    assert unpack(packed, "r")[0][0] == 3.0
    export.release()
    assert open_files() == before


def test_a_new_owner_at_an_old_address_is_not_taken_for_the_old_one(caller: Caller) -> None:
    for i in range(100):
        packed, export = caller.send(large(i), bytes([i]) * 8000)
        array, text = unpack(packed, "r")
        assert (array[0], text[0]) == (i, i)
        export.release()


def test_many_batches_need_no_more_than_one(caller: Caller) -> None:
    value, text = large(n_bytes=MIB), b"x" * 8000
    caller.pass_by(value, text)
    before = open_files()
    for i in range(200):
        caller.pass_by(value, text, large(i), bytearray(8000), ["y" * 8000])
    caller.exports.tidy(())
    assert open_files() <= before + _exports.max_regions()
    caller.exports.close()
    assert open_files() < before


def test_closing_gives_everything_back(caller: Caller) -> None:
    before = open_files()
    values = [large(i) for i in range(10)]
    packed = [caller.send(value)[0] for value in values]
    caller.exports.close()
    assert open_files() == before
    with pytest.raises(OutOfReachError):
        unpack(packed[0], "r")


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """A caller with room for three regions, and for a hundred thousand bytes."""
    monkeypatch.setattr(_exports, "max_regions", lambda: 3)
    monkeypatch.setattr(_exports, "_max_bytes", lambda: 100_000)
    made = Caller()
    yield made
    made.exports.close()


def test_what_was_not_used_for_longest_makes_room(bounded: Caller) -> None:
    first, second, third, fourth = values = [large(i) for i in range(4)]
    packed = {i: bounded.pass_by(values[i]) for i in (0, 1, 2)}
    bounded.pass_by(first)
    bounded.pass_by(fourth)
    assert same_place(packed[0], bounded.pass_by(first))
    assert same_place(packed[2], bounded.pass_by(third))
    assert not same_place(packed[1], bounded.pass_by(second))
    assert not bounded.reasons


def test_what_is_in_flight_makes_no_room_and_the_rest_goes_plainly(bounded: Caller) -> None:
    values = [large(i) for i in range(4)]
    sent = [bounded.send(value) for value in values[:3]]
    assert bounded.sends_plainly(values[3])
    assert bounded.reasons
    assert [unpack(packed, "r")[0][0] for packed, _ in sent] == [0, 1, 2]
    sent[0][1].release()
    assert not bounded.sends_plainly(values[3])


def test_bytes_are_bounded_too(bounded: Caller) -> None:
    value, more = large(n_bytes=80_000), large(n_bytes=40_000)
    _, export = bounded.send(value)
    assert bounded.sends_plainly(more)
    export.release()
    assert not bounded.sends_plainly(more)
    assert bounded.sends_plainly(large(n_bytes=200_000))


@pytest.mark.parametrize("call", ["memfd_create", "pwrite"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_what_the_system_refuses_goes_plainly(
    caller: Caller, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = [large(), b"x" * 8000, bytearray(8000)]
    caller.pass_by(*value)
    before = open_files()

    def refuse(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        assert caller.sends_plainly(large(2.0), b"y" * 8000)
        assert os.strerror(number) in caller.reasons[0]
        assert open_files() == before
    assert not caller.sends_plainly(large(2.0))


def test_a_read_only_folder_is_a_refusal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel._region.has_anonymous", lambda: False)
    reasons: list[str] = []
    exports = Exports(LIMIT, Folder(tmp_path / "nowhere"), reasons.append)
    packed, _ = pack(large(), exports.new_export())
    assert isinstance(packed, bytes)
    assert "nowhere" in reasons[0]
    exports.close()
