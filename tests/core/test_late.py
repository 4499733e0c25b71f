"""The thread that looks after deadlines while the owner of a call is in the user's input."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from parallel._late import LateWatch


class World:
    """Time that jumps, and a record of who looked."""

    def __init__(self, answers: list[float | None]) -> None:
        self.answers = answers
        self.looked = threading.Semaphore(0)
        self.names: list[str] = []
        self.now = 0.0
        self.ended = threading.Semaphore(0)
        self.watch = LateWatch(self.look, self.end_all, lambda: self.now)

    def end_all(self) -> None:
        self.names.append(threading.current_thread().name)
        self.ended.release()

    def look(self) -> float | None:
        self.names.append(threading.current_thread().name)
        answer = self.answers.pop(0) if self.answers else None
        self.looked.release()
        return answer


@pytest.fixture
def make() -> Iterator[type[World]]:
    yield World
    assert [thread for thread in threading.enumerate() if thread.name == "parallel-deadlines"] == []


def test_without_a_deadline_there_is_no_thread(make: type[World]) -> None:
    world = make([])
    world.watch.enter(None)
    world.watch.leave()
    world.watch.stop()
    assert world.names == []


def test_a_deadline_that_passes_is_looked_at_in_another_thread(make: type[World]) -> None:
    world = make([None])
    world.watch.enter(0.0)
    world.looked.acquire()
    world.watch.stop()
    assert world.names == ["parallel-deadlines"]


def test_after_a_look_the_next_deadline_counts(make: type[World]) -> None:
    world = make([0.0, 0.0, None])
    world.watch.enter(0.0)
    for _ in range(3):
        world.looked.acquire()
    world.watch.leave()
    world.watch.stop()
    assert len(world.names) == 3


def test_when_the_owner_is_back_nobody_looks_any_more(make: type[World]) -> None:
    world = make([])
    world.watch.enter(1e6)
    world.watch.leave()
    world.now = 2e6
    world.watch.stop()
    assert world.names == []


def test_the_owner_may_go_in_and_out_again(make: type[World]) -> None:
    world = make([None, None])
    for _ in range(2):
        world.watch.enter(0.0)
        world.looked.acquire()
        world.watch.leave()
    world.watch.stop()
    assert len(world.names) == 2


def test_a_call_that_is_closed_while_the_owner_is_inside_is_ended_in_another_thread(make: type[World]) -> None:
    world = make([])
    world.watch.enter(None, may_be_closed=True)
    world.watch.close()
    world.ended.acquire()
    world.watch.leave()
    world.watch.stop()
    assert world.names == ["parallel-deadlines"]


@pytest.mark.parametrize("deadline", [None, 1e6])
def test_closing_is_left_to_the_owner_when_it_is_not_inside(make: type[World], deadline: float | None) -> None:
    world = make([])
    world.watch.close()
    world.watch.enter(deadline, may_be_closed=True)
    world.watch.leave()
    world.watch.close()
    world.watch.stop()
    assert world.names == []


def test_stopping_twice_does_nothing(make: type[World]) -> None:
    world = make([])
    world.watch.enter(1e6)
    world.watch.stop()
    world.watch.stop()
