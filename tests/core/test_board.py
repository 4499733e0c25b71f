"""The page on which workers note what they run, read and written by one process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from parallel._board import BATCH, POSITION, PROCESS, STARTED, Board, is_available, new_slot, open_slot, read_slot
from tests.files import open_files

pytestmark = pytest.mark.skipif(not is_available(), reason="this system has no boards")


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board(3)
    yield made
    made.close()


def note(board: Board, number: int, batch_id: int, position: int, started_at: float) -> None:
    """What a worker does."""
    opened = open_slot(board.address, number)
    assert opened is not None
    with opened as slot:
        slot[STARTED] = started_at
        slot[POSITION] = position
        slot[PROCESS] = os.getpid()
        slot[BATCH] = batch_id


def test_what_a_worker_notes_can_be_read(board: Board) -> None:
    number = board.take_slot()
    note(board, number, batch_id=7, position=2, started_at=100.5)
    seen = board.read(number, 7)
    assert seen == (2, 100.5, os.getpid())
    assert seen is not None and seen.is_running


def test_between_tasks_nothing_runs(board: Board) -> None:
    number = board.take_slot()
    note(board, number, batch_id=7, position=2, started_at=math.inf)
    seen = board.read(number, 7)
    assert seen is not None and not seen.is_running


@pytest.mark.parametrize("batch_id", [0, 1])
def test_a_batch_that_was_not_begun_has_no_note(board: Board, batch_id: int) -> None:
    assert board.read(board.take_slot(), batch_id) is None


def test_the_note_of_another_batch_is_none_of_this_one(board: Board) -> None:
    number = board.take_slot()
    note(board, number, batch_id=7, position=0, started_at=1.0)
    assert board.read(number, 8) is None


def test_a_slot_that_was_freed_shows_nothing_to_the_next_batch(board: Board) -> None:
    number = board.take_slot()
    note(board, number, batch_id=7, position=0, started_at=1.0)
    board.free_slot(number)
    assert board.take_slot() == number
    assert board.read(number, 7) is None


def test_batches_have_slots_of_their_own(board: Board) -> None:
    numbers = [board.take_slot() for _ in range(3)]
    assert len(set(numbers)) == 3
    for batch_id, number in enumerate(numbers):
        note(board, number, batch_id, position=batch_id, started_at=1.0)
    assert [board.read(number, i).position for i, number in enumerate(numbers)] == [0, 1, 2]  # type: ignore[union-attr]


def test_there_are_more_slots_when_more_are_needed() -> None:
    board = Board(1)
    numbers = [board.take_slot() for _ in range(10)]
    for batch_id, number in enumerate(numbers):
        note(board, number, batch_id, position=batch_id, started_at=1.0)
    seen = [board.read(number, i) for i, number in enumerate(numbers)]
    assert [found and found.position for found in seen] == list(range(10))
    board.close()


def test_a_worker_that_cannot_find_the_board_or_finds_another_has_none(board: Board) -> None:
    number = board.take_slot()
    address = board.address
    for wrong in (
        address._replace(descriptor=10**6),
        address._replace(process=2**22 + 1),
        address._replace(name=address.name[:-1]),
        address._replace(descriptor=0),
    ):
        assert open_slot(wrong, number) is None
    assert open_slot(address, number) is not None


def test_a_board_that_was_closed_cannot_be_opened() -> None:
    board = Board(1)
    address = board.address
    board.close()
    assert open_slot(address, 1) is None


def test_a_worker_that_has_a_slot_open_may_write_on_when_the_board_is_closed() -> None:
    board = Board(1)
    opened = open_slot(board.address, board.take_slot())
    assert opened is not None
    with opened as slot:
        board.close()
        slot[STARTED] = 1.0


def test_boards_leave_no_descriptor() -> None:
    before = open_files()
    for _ in range(3):
        board = Board(2)
        note(board, board.take_slot(), 0, 0, 1.0)
        board.close()
    assert open_files() == before


def test_a_batch_of_this_process_has_a_slot_without_a_board() -> None:
    slot = new_slot()
    assert read_slot(slot, 0) is None
    slot[STARTED], slot[POSITION], slot[BATCH] = 3.0, 1, 0
    seen = read_slot(slot, 0)
    assert seen is not None
    assert (seen.position, seen.started_at) == (1, 3.0)


def test_a_task_is_never_taken_for_older_than_it_is() -> None:
    class Moving:
        """A slot whose worker goes on to the next task after each number that is read."""

        def __init__(self) -> None:
            self.n_reads = 0

        def __getitem__(self, field: int) -> float:
            self.n_reads += 1
            task = min(self.n_reads // 2, 5)
            return {BATCH: 0.0, POSITION: float(task), STARTED: 10.0 * task, PROCESS: 1.0}[field]

    seen = read_slot(Moving(), 0)
    assert seen is not None
    assert seen.started_at >= 10.0 * seen.position
