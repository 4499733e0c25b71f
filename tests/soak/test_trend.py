"""The test for a trend: what leaks is found, what does not is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.soak.trend import BLOCKS, SAMPLES_PER_BLOCK, Limit, judge, samples_needed

LIMIT = Limit(per_minute=0.8, least=3.0)
COUNTS = Limit(per_minute=0.2, least=2.0)


def is_trend(value: Callable[[float], float], minutes: float, limit: Limit = LIMIT) -> bool:
    """Judge a series that has a sample every ten seconds; gets the minute, gives the value."""
    times = [second / 60 for second in range(10, int(minutes * 60) + 1, 10)]
    verdict = judge(times, [value(at) for at in times], limit)
    assert verdict.is_trend is not None
    return verdict.is_trend


def noise(seed: int, most: float) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.uniform(0.0, most)


every_seed = pytest.mark.parametrize("seed", range(20))
every_length = pytest.mark.parametrize("minutes", [3, 10, 60])


@every_length
def test_what_is_flat_is_no_trend(minutes: int) -> None:
    assert not is_trend(lambda at: 50.0, minutes)


@every_length
@every_seed
def test_noise_is_no_trend(minutes: int, seed: int) -> None:
    jitter = noise(seed, 5.0)
    assert not is_trend(lambda at: 50.0 + jitter(), minutes)


@every_length
@pytest.mark.parametrize("period_minutes", [0.3, 0.5, 1.0])
def test_a_sawtooth_is_no_trend(minutes: int, period_minutes: float) -> None:
    if period_minutes * BLOCKS <= minutes:
        assert not is_trend(lambda at: 50.0 + 40.0 * (at % period_minutes), minutes)


@every_length
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_step_is_no_trend(minutes: int, share: float) -> None:
    assert not is_trend(lambda at: 100.0 if at > share * minutes else 50.0, minutes)


@every_length
def test_two_steps_are_no_trend(minutes: int) -> None:
    assert not is_trend(lambda at: 50.0 + 20.0 * (at > 0.4 * minutes) + 20.0 * (at > 0.7 * minutes), minutes)


@every_length
def test_what_fills_at_the_beginning_is_no_trend(minutes: int) -> None:
    assert not is_trend(lambda at: 100.0 - 50.0 * 0.5 ** (at / (0.06 * minutes)), minutes)


@every_length
def test_what_falls_is_no_trend(minutes: int) -> None:
    assert not is_trend(lambda at: 500.0 - 2.0 * at, minutes)


def test_one_block_that_is_low_is_no_trend() -> None:
    assert not is_trend(lambda at: 10.0 if at < 3.2 else 50.0, 10)


@every_length
@every_seed
def test_a_leak_beside_noise_is_found(minutes: int, seed: int) -> None:
    jitter = noise(seed, 5.0)
    assert is_trend(lambda at: 50.0 + 6.0 * at + jitter(), minutes)


@every_length
def test_a_leak_below_a_sawtooth_is_found(minutes: int) -> None:
    assert is_trend(lambda at: 50.0 + 40.0 * (at % 0.3) + 5.0 * at, minutes)


@every_length
def test_a_slow_leak_of_descriptors_is_found(minutes: int) -> None:
    assert is_trend(lambda at: float(30 + int(2 * at)), minutes, COUNTS)


def test_a_very_slow_leak_is_found_in_a_long_run() -> None:
    assert is_trend(lambda at: float(30 + int(at / 2)), 60, COUNTS)
    assert not is_trend(lambda at: float(30 + int(at / 2)), 3, COUNTS)


def test_one_thread_more_or_less_is_no_trend() -> None:
    jitter = noise(1, 1.999)
    assert not is_trend(lambda at: float(10 + int(jitter())), 10, COUNTS)


def test_a_run_tells_something_from_as_many_samples_as_are_needed() -> None:
    count = samples_needed()
    # With one sample less it depends on when exactly the warm-up ends.
    verdicts = [judge([float(i + 1) for i in range(n)], [0.0] * n, LIMIT).is_trend for n in (count - 2, count)]
    assert verdicts == [None, False]


def test_growth_and_its_ends_are_told() -> None:
    times = [second / 60 for second in range(10, 601, 10)]
    verdict = judge(times, [10.0 + 2.0 * at for at in times], LIMIT)
    assert verdict.per_minute == pytest.approx(2.0, rel=0.1)
    assert verdict.first == pytest.approx(15.3, abs=0.1)
    assert verdict.last == pytest.approx(28.0, abs=0.7)


@pytest.mark.parametrize("count", [0, 1, BLOCKS * SAMPLES_PER_BLOCK])
def test_a_short_run_tells_nothing(count: int) -> None:
    assert judge([float(i + 1) for i in range(count)], [float(i) for i in range(count)], LIMIT).is_trend is None
