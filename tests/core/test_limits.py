from __future__ import annotations

from parallel._limits import Watch


def test_nothing_is_due_where_nothing_was_set() -> None:
    watch = Watch()
    assert watch.next({1}) is None
    assert watch.take(1e9, {1}) == []


def test_the_earliest_batch_in_flight_is_next() -> None:
    watch = Watch()
    watch.set(1, 5.0)
    watch.set(2, 3.0)
    assert watch.next({1, 2}) == 3.0
    assert watch.next({1}) == 5.0


def test_what_is_due_is_taken_once() -> None:
    watch = Watch()
    for batch_id, at in [(1, 5.0), (2, 3.0), (3, 9.0)]:
        watch.set(batch_id, at)
    assert watch.take(5.0, {1, 2, 3}) == [2, 1]
    assert watch.take(5.0, {1, 2, 3}) == []
    assert watch.next({1, 2, 3}) == 9.0


def test_a_batch_that_has_landed_is_never_due() -> None:
    watch = Watch()
    watch.set(1, 5.0)
    assert watch.take(6.0, set()) == []
    assert watch.next(set()) is None


def test_a_batch_that_is_due_at_two_times_is_taken_once() -> None:
    watch = Watch()
    watch.set(1, 5.0)
    watch.set(1, 6.0)
    assert watch.take(7.0, {1}) == [1]


class Counted(int):
    """A number that counts how often it is compared with another one."""

    n_compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.n_compared += 1
        return int(self) == other

    def __hash__(self) -> int:
        return int(self)


def test_batches_that_are_due_together_are_not_compared_with_each_other() -> None:
    watch = Watch()
    for number in range(100):
        watch.set(Counted(number), 5.0 + number)
    Counted.n_compared = 0
    assert len(watch.take(200.0, frozenset(range(100)))) == 100
    assert Counted.n_compared < 500  # when it is asked whether they are in flight
