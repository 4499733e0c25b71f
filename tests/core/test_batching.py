from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel._batching import MAX_BATCH_BYTES, AdaptiveBatching, BackendBatching, FixedBatching

ROUND_TRIP = 0.0002


def run(batching: AdaptiveBatching, task_seconds: float, n_batches: int = 20, round_trip: float = ROUND_TRIP) -> int:
    """Let batches of tasks that last `task_seconds` come back, cut short by their budget as a worker would."""
    for _ in range(n_batches):
        size = batching.next_size(None)
        budget = batching.budget_seconds
        assert budget is not None
        done = size
        if task_seconds > 0:
            done = max(min(size, int(budget / task_seconds) + 1), 1)
        batching.record(size, done, done * task_seconds, round_trip)
    return batching.next_size(None)


# -- fixed -------------------------------------------------------------------------------------------------------------


def test_a_fixed_size_stays_whatever_happens() -> None:
    batching = FixedBatching(5)
    batching.record(5, 5, 10.0, 0.1)
    assert [batching.next_size(remaining) for remaining in (None, 100, 1)] == [5, 5, 5]


def test_batches_of_a_fixed_size_are_not_cut_short() -> None:
    assert FixedBatching(5).budget_seconds is None


def test_short_batches_queue_at_the_worker_and_long_ones_do_not() -> None:
    batching = FixedBatching(1)
    assert not batching.queues()  # nothing known yet
    batching.record(1, 1, 1e-6, ROUND_TRIP)
    assert batching.queues()
    batching.record(1, 1, 1.0, ROUND_TRIP)
    assert not batching.queues()


# -- the backend's -----------------------------------------------------------------------------------------------------


def test_the_backend_is_asked_before_each_batch() -> None:
    sizes = iter([3, 7, 1])
    batching = BackendBatching(lambda: next(sizes))
    assert [batching.next_size(None) for _ in range(3)] == [3, 7, 1]


@pytest.mark.parametrize("said", [None, 0, -4])
def test_a_backend_that_says_nothing_useful_gets_batches_of_one(said: int | None) -> None:
    assert BackendBatching(lambda: said).next_size(None) == 1


# -- adaptive ----------------------------------------------------------------------------------------------------------


def test_the_first_batch_is_one_task() -> None:
    assert AdaptiveBatching(2).next_size(None) == 1


def test_batches_of_short_tasks_grow_until_dispatch_costs_little() -> None:
    size = run(AdaptiveBatching(2), task_seconds=1e-5, n_batches=100)
    assert size * 1e-5 >= 0.9 * ROUND_TRIP / 0.02


def test_batches_grow_by_a_factor_and_not_by_ones() -> None:
    batching = AdaptiveBatching(2)
    sizes = []
    for _ in range(5):
        sizes.append(batching.next_size(None))
        run(batching, task_seconds=1e-7, n_batches=1)
    assert sizes == [1, 8, 64, 512, 4096]


def test_tasks_without_any_duration_do_not_make_endless_batches() -> None:
    assert run(AdaptiveBatching(2, max_size=1000), task_seconds=0.0) == 1000


def test_long_tasks_go_one_by_one() -> None:
    assert run(AdaptiveBatching(2), task_seconds=1.0) == 1


def test_slow_tasks_after_fast_ones_cost_one_budget_and_no_more() -> None:
    batching = AdaptiveBatching(2)
    size = run(batching, task_seconds=1e-6)
    assert size > 1000
    budget = batching.budget_seconds
    assert budget is not None and budget < 1.0
    batching.record(size, 1, 1.0, ROUND_TRIP)
    assert batching.next_size(None) == 1


def test_fast_tasks_after_slow_ones_are_believed_after_some_batches() -> None:
    batching = AdaptiveBatching(2)
    run(batching, task_seconds=1.0)
    assert run(batching, task_seconds=1e-5, n_batches=40) > 100


def test_a_slow_way_to_the_worker_makes_longer_batches() -> None:
    near = run(AdaptiveBatching(2), task_seconds=1e-4)
    far = run(AdaptiveBatching(2), task_seconds=1e-4, round_trip=0.02, n_batches=40)
    assert far > 10 * near


def test_one_batch_that_was_held_up_is_no_slow_way() -> None:
    batching = AdaptiveBatching(2)
    size = run(batching, task_seconds=1e-4)
    batching.record(size, size, size * 1e-4, 5.0)
    assert batching.next_size(None) <= 2 * size


def test_the_end_of_a_known_input_is_divided_among_the_workers() -> None:
    batching = AdaptiveBatching(4)
    run(batching, task_seconds=1e-4)
    assert batching.next_size(40) == 5
    assert batching.next_size(1000) == batching.next_size(100_000) > 50


@pytest.mark.parametrize("n_jobs", [2, 64])
def test_of_an_unknown_input_a_batch_is_a_small_part_of_what_was_done(n_jobs: int) -> None:
    batching = AdaptiveBatching(n_jobs)
    n_done = 0
    for _ in range(30 * n_jobs):
        size = batching.next_size(None)
        assert size <= max(n_done / (16 * n_jobs), 10)  # or as long as five round trips
        batching.record(size, size, size * 0.001, 0.002)
        n_done += size
    assert 10 < size < 100
    assert batching.next_size(1_000_000) == 100


def test_of_an_unknown_input_batches_last_some_round_trips_at_least() -> None:
    assert run(AdaptiveBatching(64), task_seconds=0.001, round_trip=0.01) == 50
    assert run(AdaptiveBatching(1000), task_seconds=0.0001, round_trip=0.0001) == 20  # two milliseconds


def test_the_end_is_not_divided_into_batches_that_cost_more_than_they_do() -> None:
    batching = AdaptiveBatching(4)
    run(batching, task_seconds=1e-6)
    assert batching.next_size(1000) >= int(ROUND_TRIP / 1e-6) // 2


@pytest.mark.parametrize("n_jobs", [1, 2, 4, 8, 64])
def test_each_other_worker_is_left_something_at_the_end_of_a_long_call(n_jobs: int) -> None:
    batching = AdaptiveBatching(n_jobs)
    run(batching, task_seconds=1e-8)
    remaining, sizes = 1000 * n_jobs, []
    while remaining:
        sizes.append(batching.next_size(remaining))
        remaining -= sizes[-1]
    others = list(itertools.takewhile(lambda size: size < n_jobs, reversed(sizes)))
    assert sum(others) == n_jobs - 1
    assert min(n_jobs - 1, 7) <= len(others) <= min(n_jobs, 25)  # more would cost more than it saves


def test_a_short_call_of_short_tasks_is_one_batch() -> None:
    batching = AdaptiveBatching(8)
    batching.start_with(1e-8, ROUND_TRIP)
    assert batching.next_size(20) >= 20
    assert not batching.holds_last


def test_where_a_round_trip_is_long_nothing_is_held_back() -> None:
    batching = AdaptiveBatching(2)
    batching.start_with(1e-3, 0.2)
    batching.next_size(100_000)
    assert not batching.holds_last
    assert run(AdaptiveBatching(2), task_seconds=1e-3) > 1


@given(
    n_jobs=st.integers(1, 100),
    max_size=st.integers(1, 10_000),
    events=st.lists(
        st.tuples(
            st.integers(1, 10_000),
            st.floats(0.0, 1.0),
            st.floats(0.0, 1e4),
            st.one_of(st.none(), st.floats(0.0, 1e4)),
            st.one_of(st.none(), st.integers(0, 10**9)),
        ),
        max_size=30,
    ),
)
def test_whatever_is_measured_the_size_stays_between_one_and_the_largest(
    n_jobs: int, max_size: int, events: list[tuple[int, float, float, float | None, int | None]]
) -> None:
    batching = AdaptiveBatching(n_jobs, max_size)
    for sent, share, seconds, round_trip, remaining in events:
        batching.record(sent, int(sent * share), seconds, round_trip)
        size = batching.next_size(remaining)
        assert isinstance(size, int)
        assert 1 <= size <= max_size
        assert batching.budget_seconds is not None and 0 < batching.budget_seconds <= 4.0
        batching.queues()


def test_the_repr_tells_the_size() -> None:
    assert repr(FixedBatching(3)) == "<FixedBatching 3>"
    assert repr(AdaptiveBatching(2, 100)) == "<AdaptiveBatching 1 of at most 100>"


# -- what batches weigh ------------------------------------------------------------------------------------------------


def test_batches_of_heavy_tasks_stay_small_however_short_the_tasks_are() -> None:
    batching = AdaptiveBatching(2, bytes_per_task=lambda: 1_000_000)
    for _ in range(10):
        batching.record(batching.next_size(None), 1, 1e-7, 1e-4)
    assert batching.next_size(None) == MAX_BATCH_BYTES // 1_000_000


def test_of_the_heaviest_tasks_two_go_together() -> None:
    batching = AdaptiveBatching(2, bytes_per_task=lambda: 10 * MAX_BATCH_BYTES)
    assert batching.next_size(None) == 1
    batching.record(1, 1, 1e-7, 1e-4)
    assert batching.next_size(None) == 2


def test_light_tasks_are_not_held_back_by_their_weight() -> None:
    weighed, other = AdaptiveBatching(2, bytes_per_task=lambda: 1.0), AdaptiveBatching(2)
    for _ in range(10):
        for batching in (weighed, other):
            batching.record(batching.next_size(None), 1, 1e-7, 1e-4)
    assert weighed.next_size(None) == other.next_size(None) > 100
