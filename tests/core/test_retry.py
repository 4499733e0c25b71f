from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import Retry
from parallel._retry import ONCE, Attempts
from parallel.errors import WorkerLostError


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "2", True, None])
def test_attempts_are_a_positive_integer(attempts: Any) -> None:
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts=attempts)


@pytest.mark.parametrize(
    "options", [{"backoff_seconds": -1}, {"jitter": -0.1}, {"jitter": 1.1}, {"jitter": float("nan")}]
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Retry(**options)


@pytest.mark.parametrize("on", [5, "LookupError", (LookupError, 5), int, None])
def test_only_exception_types_can_be_tried_again_after(on: Any) -> None:
    with pytest.raises(TypeError, match="exception types"):
        Retry(on=on)


def test_one_exception_type_needs_no_tuple() -> None:
    assert Retry(on=LookupError).on == (LookupError,)  # type: ignore[arg-type]


def test_a_task_may_fail_as_often_as_it_has_attempts() -> None:
    attempts = Attempts(Retry(attempts=3))
    assert attempts.fail(7, LookupError()) == 0.0
    assert attempts.fail(7, LookupError()) == 0.0
    assert attempts.attempts(7) == 2
    assert attempts.fail(7, LookupError()) is None


def test_tasks_are_counted_apart() -> None:
    attempts = Attempts(Retry(attempts=2))
    assert attempts.fail(7, LookupError()) is not None
    assert attempts.fail(8, LookupError()) is not None
    assert attempts.fail(7, LookupError()) is None


def test_without_a_policy_a_task_has_one_attempt() -> None:
    assert Attempts(ONCE).fail(0, LookupError()) is None


def test_other_exceptions_stand_at_once() -> None:
    attempts = Attempts(Retry(attempts=3, on=(KeyError,)))
    assert attempts.fail(0, KeyError()) is not None
    assert attempts.fail(0, IndexError()) is None


def test_an_exit_is_tried_again_like_any_failure_unless_it_is_left_out() -> None:
    assert Attempts(Retry(attempts=3)).fail(0, SystemExit()) is not None
    assert Attempts(Retry(attempts=3, on=(Exception,))).fail(0, SystemExit()) is None


def test_a_success_forgets_the_failures_of_its_task_and_of_no_other() -> None:
    attempts = Attempts(Retry(attempts=3))
    for index in (4, 5, 6):
        attempts.fail(index, LookupError())
    attempts.succeed(5, 6)
    assert [attempts.attempts(index) for index in (4, 5, 6)] == [1, 0, 1]


def test_the_failure_that_stands_says_how_often_it_was_tried() -> None:
    attempts = Attempts(Retry(attempts=2))
    attempts.fail(0, LookupError())
    error = WorkerLostError("gone")
    attempts.fail(0, error)
    assert error.attempts == 2
    assert error.__notes__ == ["this was attempt 2 of 2"]


def test_a_failure_of_the_only_attempt_has_no_note() -> None:
    error = LookupError()
    Attempts(ONCE).fail(0, error)
    assert not hasattr(error, "__notes__")


def test_the_delay_doubles() -> None:
    attempts = Attempts(Retry(attempts=5, backoff_seconds=0.5))
    assert [attempts.fail(0, LookupError()) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, None]


@given(attempts=st.integers(1, 10_000), jitter=st.floats(0, 1), seed=st.integers())
def test_a_delay_is_never_negative_and_never_endless(attempts: int, jitter: float, seed: int) -> None:
    delay = Retry(attempts=1, backoff_seconds=0.5, jitter=jitter).delay_seconds(attempts, random.Random(seed))
    assert 0 <= delay < 2**31


def test_jitter_varies_the_delay_within_its_share() -> None:
    generator = random.Random(0)
    delays = {Retry(backoff_seconds=1.0, jitter=0.25).delay_seconds(1, generator) for _ in range(100)}
    assert len(delays) > 50
    assert all(0.75 <= delay <= 1.25 for delay in delays)


class Counted(int):
    """A number that counts how often it is compared with another one."""

    n_compared = 0

    def __ge__(self, other: int) -> bool:
        Counted.n_compared += 1
        return int(self) >= other


def test_what_a_batch_costs_does_not_grow_with_what_has_failed() -> None:
    attempts = Attempts(Retry(attempts=3))
    for number in range(1000):
        attempts.fail(Counted(2 * number), LookupError())
    Counted.n_compared = 0
    assert attempts.among(10, 13) == {10: 1, 12: 1}
    attempts.succeed(10, 13)
    assert Counted.n_compared < 10
    assert attempts.among(10, 13) is None
    assert attempts.attempts(14) == 1


@pytest.mark.parametrize("n_failed", [1, 100])
def test_the_attempts_of_a_batch_are_those_of_its_tasks(n_failed: int) -> None:
    attempts = Attempts(Retry(attempts=3))
    for index in range(20, 20 + n_failed):
        attempts.fail(index, LookupError())
    assert attempts.among(0, 20) is None
    assert attempts.among(15, 22) == dict.fromkeys(range(20, min(22, 20 + n_failed)), 1)
    attempts.succeed(0, 21)
    assert attempts.attempts(20) == 0
