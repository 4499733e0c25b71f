from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parallel._lanes import Lanes


def take(lanes: Lanes, count: int = 1) -> list[int]:
    taken = []
    for _ in range(count):
        assert lanes.next_load() is not None
        taken.append(lanes.take())
    return taken


def test_each_lane_gets_a_batch_before_any_gets_a_second() -> None:
    assert take(Lanes(3, depth=2), 6) == [0, 1, 2, 0, 1, 2]


def test_no_lane_has_more_than_the_depth() -> None:
    lanes = Lanes(2, depth=2)
    take(lanes, 4)
    assert lanes.next_load() is None


def test_a_lane_that_has_nothing_comes_next() -> None:
    lanes = Lanes(3, depth=2)
    take(lanes, 6)
    lanes.release(0)
    lanes.release(1)
    lanes.release(1)
    assert lanes.next_load() == 0
    assert take(lanes, 2) == [1, 0]


def test_a_closed_lane_gets_nothing_until_it_is_opened() -> None:
    lanes = Lanes(2, depth=2)
    (first,) = take(lanes)
    lanes.close(first)
    assert take(lanes, 2) == [1, 1]
    assert lanes.next_load() is None
    lanes.open(first)
    assert lanes.next_load() == 1
    assert take(lanes) == [first]


def test_a_lane_that_was_given_up_gets_nothing_until_it_comes_back() -> None:
    lanes = Lanes(2, depth=1)
    take(lanes, 2)
    lanes.give_up(0)
    assert "1 gone" in repr(lanes)
    lanes.release(1)
    assert take(lanes) == [1]
    assert lanes.next_load() is None
    lanes.regain(0)
    assert "0 gone" in repr(lanes)
    assert take(lanes) == [0]


def test_a_lane_with_two_stuck_batches_comes_back_with_the_second() -> None:
    lanes = Lanes(1, depth=2)
    take(lanes, 2)
    lanes.give_up(0)
    lanes.give_up(0)
    lanes.regain(0)
    assert "1 gone" in repr(lanes)
    assert lanes.next_load() is None
    lanes.regain(0)
    assert take(lanes, 2) == [0, 0]


def test_opening_a_lane_that_was_given_up_does_not_bring_it_back() -> None:
    lanes = Lanes(1, depth=2)
    take(lanes)
    lanes.give_up(0)
    lanes.open(0)
    assert lanes.next_load() is None


@pytest.mark.parametrize(("lane", "load"), [(0, 2), (1, 1), (2, 1)])
def test_the_load_of_a_lane_is_known(lane: int, load: int) -> None:
    lanes = Lanes(3, depth=2)
    take(lanes, 4)
    assert lanes.load(lane) == load


class AnyOrder(RuleBasedStateMachine):
    """Lanes against a plain account of who has what."""

    @initialize(count=st.integers(1, 4), depth=st.integers(1, 3))
    def begin(self, count: int, depth: int) -> None:
        self.lanes = Lanes(count, depth)
        self.count, self.depth = count, depth
        self.load: Counter[int] = Counter()
        self.stuck: Counter[int] = Counter()
        self.closed: set[int] = set()

    def open_lanes(self) -> list[int]:
        return [lane for lane in range(self.count) if lane not in self.closed and not self.stuck[lane]]

    @rule()
    def take(self) -> None:
        if self.lanes.next_load() is not None:
            lane = self.lanes.take()
            assert lane in self.open_lanes()
            assert self.load[lane] < self.depth
            assert not self.load[lane] or all(self.load[other] for other in self.open_lanes())
            self.load[lane] += 1

    @rule(lane=st.integers(0, 3))
    def release(self, lane: int) -> None:
        if self.load[lane] > self.stuck[lane] and lane not in self.closed:
            self.load[lane] -= 1
            self.lanes.release(lane)

    @rule(lane=st.integers(0, 3))
    def close_for_its_one_batch(self, lane: int) -> None:
        if lane in self.open_lanes() and self.load[lane] == 1:
            self.closed.add(lane)
            self.lanes.close(lane)

    @rule(lane=st.integers(0, 3))
    def open_when_it_comes_back(self, lane: int) -> None:
        if lane in self.closed:
            self.closed.remove(lane)
            self.load[lane] -= 1
            self.lanes.open(lane)
            self.lanes.release(lane)

    @rule(lane=st.integers(0, 3))
    def give_up(self, lane: int) -> None:
        if self.load[lane] > self.stuck[lane] and lane not in self.closed:
            self.stuck[lane] += 1
            self.lanes.give_up(lane)

    @precondition(lambda self: +self.stuck)
    @rule(lane=st.integers(0, 3))
    def regain(self, lane: int) -> None:
        if self.stuck[lane]:
            self.stuck[lane] -= 1
            self.load[lane] -= 1
            self.lanes.regain(lane)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "lanes"):
            return
        assert [self.lanes.load(lane) for lane in range(self.count)] == [self.load[i] for i in range(self.count)]
        assert f" {len(+self.stuck)} gone" in repr(self.lanes)
        room = [lane for lane in self.open_lanes() if self.load[lane] < self.depth]
        load = self.lanes.next_load()
        assert (load is not None) == bool(room)
        if load is not None and any(not self.load[lane] for lane in room):
            assert load == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100)
