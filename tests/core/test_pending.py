from __future__ import annotations

from typing import Any

import pytest

from parallel._pending import Pending


@pytest.fixture
def pending() -> Pending:
    made = Pending()
    made.read(list("abcdef"))
    return made


def test_tasks_of_the_input_are_taken_in_its_order(pending: Pending) -> None:
    assert pending.take_buffered(2) == (0, ["a", "b"])
    pending.read(["g"])
    assert pending.take_buffered(10) == (2, ["c", "d", "e", "f", "g"])
    assert (pending.n_read, pending.n_buffered, len(pending)) == (7, 0, 0)


def test_a_long_input_is_taken_without_gaps() -> None:
    pending = Pending()
    pending.read(list(range(30_000)))
    taken: list[Any] = []
    while pending.n_buffered:
        start, tasks = pending.take_buffered(700)
        assert start == len(taken)
        taken += tasks
    assert taken == list(range(30_000))


def test_of_what_came_back_the_earliest_is_first(pending: Pending) -> None:
    pending.take_buffered(6)
    pending.put_back(4, ["e", "f"])
    pending.put_back(0, ["a"])
    assert pending.first_returned() == (0, False)
    assert pending.take_returned(5) == (0, ["a"], False)
    assert pending.take_returned(5) == (4, ["e", "f"], False)
    assert pending.first_returned() is None


def test_what_came_back_may_be_taken_in_parts(pending: Pending) -> None:
    pending.take_buffered(6)
    pending.put_back(1, ["b", "c", "d"])
    assert pending.take_returned(1) == (1, ["b"], False)
    assert len(pending) == 2
    assert pending.take_returned(9) == (2, ["c", "d"], False)


def test_what_is_to_run_alone_comes_one_by_one(pending: Pending) -> None:
    pending.take_buffered(6)
    pending.put_back(1, ["b", "c"], alone=True)
    assert pending.first_returned() == (1, True)
    assert pending.take_returned(9) == (1, ["b"], True)
    assert pending.take_returned(9) == (2, ["c"], True)


def test_nothing_put_back_is_nothing(pending: Pending) -> None:
    pending.put_back(3, [])
    assert pending.first_returned() is None


def test_what_is_delayed_counts_and_cannot_be_taken_before_its_time(pending: Pending) -> None:
    pending.take_buffered(6)
    pending.delay(5.0, 3, "d", alone=False)
    pending.delay(2.0, 1, "b", alone=True)
    assert (len(pending), pending.n_ready) == (2, 0)
    assert pending.next_due() == 2.0
    pending.ripen(1.9)
    assert pending.first_returned() is None
    pending.ripen(2.0)
    assert pending.take_returned(9) == (1, ["b"], True)
    assert pending.next_due() == 5.0
    pending.ripen(100.0)
    assert pending.take_returned(9) == (3, ["d"], False)
    assert pending.next_due() is None


def test_the_repr_tells_where_the_tasks_are(pending: Pending) -> None:
    pending.take_buffered(3)
    pending.put_back(0, ["a"])
    pending.delay(1.0, 1, "b", alone=False)
    assert repr(pending) == "3 buffered, 1 returned, 1 delayed"


def test_parts_of_a_range_are_taken_as_ranges() -> None:
    numbers = range(5, 500, 7)
    pending = Pending()
    taken: list[Any] = []
    at = 0
    for read, take in [(1, 1), (10, 3), (20, 9), (5, 18), (1, 2), (30, 4)]:
        pending.read(numbers[at : at + read])
        at += read
        start, tasks = pending.take_buffered(take)
        assert isinstance(tasks, range) and start == len(taken)
        taken += tasks
    start, tasks = pending.take_buffered(100)
    assert isinstance(tasks, range) and start == len(taken)
    assert [*taken, *tasks] == list(numbers[:at])
    assert pending.n_buffered == 0


def test_parts_of_a_range_may_come_back() -> None:
    pending = Pending()
    pending.read(range(100, 110))
    _, tasks = pending.take_buffered(10)
    pending.put_back(4, tasks[4:])
    pending.put_back(2, tasks[2:4], alone=True)
    assert pending.take_returned(9) == (2, [102], True)
    assert pending.take_returned(9) == (3, [103], True)
    assert pending.take_returned(2) == (4, range(104, 106), False)
    assert pending.take_returned(9) == (6, range(106, 110), False)
