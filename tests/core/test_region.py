"""Pieces of memory that a peer can find and map; looked at from one process, and from forks of it."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel import _region
from parallel._region import Address, Folder, Region, has_anonymous, map_privately, map_region, open_region, write_all
from tests.files import open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["anonymous", "file"])
def region(request: pytest.FixtureRequest, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    if request.param == "file":
        monkeypatch.setattr(_region, "has_anonymous", lambda: False)
    made = Region("test", folder)
    yield made
    made.close()


def write(region: Region, content: bytes = CONTENT, offset: int = 0) -> None:
    write_all(region.descriptor, memoryview(content), offset)


def read(address: Address) -> bytes | None:
    """What a peer finds."""
    descriptor = open_region(address)
    if descriptor is None:
        return None
    try:
        with map_region(descriptor, "r") as memory:
            return bytes(memory)
    finally:
        os.close(descriptor)


def in_fork(see: str, region: Region) -> bool:
    """Tell what a forked child sees; nothing in there may raise."""
    child = os.fork()
    if child == 0:
        os._exit(int(not {"open": lambda: region.is_open, "found": lambda: read(region.address) == CONTENT}[see]()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_peer_finds_what_was_written(region: Region) -> None:
    write(region)
    assert read(region.address) == CONTENT


def test_another_process_finds_it_too(region: Region) -> None:
    write(region)
    assert in_fork("found", region)


def test_a_region_is_held_by_its_maker_only_and_not_by_a_fork_of_that(region: Region) -> None:
    write(region)
    assert not in_fork("open", region)
    assert region.is_open
    assert read(region.address) == CONTENT  # the child has closed its own copy, and removed nothing


def test_writing_goes_on_after_a_part_was_written(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: whole(descriptor, data[:1000], at))
    write(region, offset=100)
    assert read(region.address) == bytes(100) + CONTENT


def test_what_was_closed_cannot_be_found(region: Region) -> None:
    write(region)
    region.close()
    region.close()
    assert not region.is_open
    assert read(region.address) is None


def test_who_has_mapped_a_region_keeps_it_when_it_is_closed(region: Region) -> None:
    write(region)
    memory = map_region(region.descriptor, "r")
    region.close()
    assert memory[:] == CONTENT
    memory.close()


def test_a_region_that_nobody_refers_to_is_given_back(folder: Folder) -> None:
    before = open_files()
    address = Region("test", folder).address
    assert read(address) is None
    assert open_files() == before


def test_an_address_leads_to_its_own_region_or_to_none() -> None:
    region = Region("test")
    write(region)
    address = region.address
    for wrong in (
        address._replace(descriptor=10**6),
        address._replace(process=2**22 + 1),
        address._replace(process=os.getppid()),
        address._replace(name=address.name[:-1]),
        address._replace(descriptor=0),
    ):
        assert read(wrong) is None
    assert read(address) == CONTENT
    region.close()


def test_a_descriptor_that_was_used_again_is_another_region() -> None:
    first = Region("test")
    address = first.address
    first.close()
    second = Region("test")
    assert second.address.descriptor == address.descriptor
    assert read(address) is None
    second.close()


@pytest.mark.parametrize(("mode", "seen_by_others"), [("c", False), ("r+", True)])
def test_what_a_peer_writes_is_for_itself_or_for_all_as_the_mode_says(
    region: Region, mode: str, seen_by_others: bool
) -> None:
    write(region)
    with map_region(region.descriptor, mode) as memory:
        memory[0] = 99
        assert memory[0] == 99
    found = read(region.address)
    assert found is not None
    assert (found[0] == 99) == seen_by_others


def test_a_peer_cannot_write_in_mode_r(region: Region) -> None:
    write(region)
    with map_region(region.descriptor, "r") as memory, pytest.raises(TypeError, match="modify"):
        memory[0] = 99


def test_a_private_mapping_holds_no_descriptor_and_is_its_owners_alone(region: Region) -> None:
    write(region)
    before = open_files()
    memory = map_privately(region.descriptor, 1000)
    assert len(memory) == 1000
    assert open_files() == before
    region.close()
    view = memoryview(memory)
    view[0] = 99
    child = os.fork()
    if child == 0:
        view[1] = 99
        os._exit(view[0] - 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view) == bytes([99]) + CONTENT[1:1000]


def test_mapping_what_is_no_file_is_an_error() -> None:
    with pytest.raises((OSError, ValueError)):
        map_privately(-5, mmap.PAGESIZE)
    with pytest.raises((OSError, ValueError)):
        map_region(-5, "r")


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_region, "has_anonymous", lambda: False)


def test_anonymous_memory_makes_no_file(folder: Folder, tmp_path: Path) -> None:
    assert has_anonymous()
    region = Region("test", folder)
    assert os.listdir(tmp_path) == []
    region.close()


@pytest.mark.usefixtures("files_only")
def test_files_are_in_a_private_folder_and_go_with_their_region(folder: Folder, tmp_path: Path) -> None:
    first, second = Region("test", folder), Region("test", folder)
    (private,) = tmp_path.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in private.iterdir()} == {0o600}
    assert len(list(private.iterdir())) == 2
    first.close()
    assert [str(file) for file in private.iterdir()] == [second.address.name]
    second.close()
    folder.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("files_only")
def test_a_folder_goes_with_all_that_is_in_it(folder: Folder, tmp_path: Path) -> None:
    region = Region("test", folder)
    folder.close()
    assert list(tmp_path.iterdir()) == []
    region.close()


def test_a_folder_is_made_when_it_is_needed_and_again_after_it_was_closed(folder: Folder, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        descriptor, path = folder.new_file()
        os.close(descriptor)
        assert Path(path).parent.parent == tmp_path
        folder.close()
        assert list(tmp_path.iterdir()) == []


def test_a_folder_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLEL_TEMP_FOLDER", str(tmp_path))
    folder = Folder()
    os.close(folder.new_file()[0])
    assert len(list(tmp_path.iterdir())) == 1
    folder.close()


def test_what_is_said_wins_over_the_environment(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARALLEL_TEMP_FOLDER", str(tmp_path / "other"))
    os.close(folder.new_file()[0])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("files_only")
def test_where_no_file_can_be_made_there_is_no_region(tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(OSError, match="nowhere"):
        Region("test", Folder(tmp_path / "nowhere"))
    assert open_files() == before


def test_a_fork_does_not_remove_the_folder(folder: Folder) -> None:
    descriptor, path = folder.new_file()
    os.close(descriptor)
    child = os.fork()
    if child == 0:
        folder.close()
        _region._remove_folders()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.exists(path)


def test_what_is_left_at_exit_is_removed(tmp_path: Path) -> None:
    program = (
        "import sys; from parallel._region import Folder; folder = Folder(sys.argv[1]); print(folder.new_file()[1])"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
