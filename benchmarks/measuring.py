"""Takes times side by side: interleaved rounds, so that whatever else the machine does hits every contender alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Measured", "Run", "Spread", "measure", "ratio"]

#: Most calls in one sample; what is so short that more were needed is measured well enough by these.
MAX_REPEATS = 2_000


def _seconds_alone(seconds: float, result: object) -> float:
    return seconds


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender does in a row.

    Attributes
    ----------
    action
        What is timed.
    score
        Makes the value of a sample out of the seconds that one call took and what the last call gave.
    accepts
        Tells whether a result is right; asked once.
    """

    label: str
    action: Callable[[], object]
    score: Callable[[float, object], float] = _seconds_alone
    accepts: Callable[[object], bool] | None = None


@dataclass(slots=True)
class Measured:
    """What came out: a value for each round by label, and what failed, which has none."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """How samples lie: the median, the middle half, and all of them."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Look at one sample at least."""
        if len(values) == 1:
            return cls(*(values[0],) * 5)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, min(values), max(values))


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Give the median of the ratios of each round.

    Not the ratio of the medians: the two of one round ran a moment apart, on a machine that was as busy for both.
    """
    return statistics.median(value / other if other else math.inf for value, other in zip(values, others, strict=True))


def measure(
    runs: Sequence[Run],
    *,
    rounds: int,
    sample_seconds: float = 0.0,
    warms_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    tidy: Callable[[], object] = gc.collect,
) -> Measured:
    """Time every run once in each round, in an order that rotates from round to round.

    Parameters
    ----------
    rounds
        Samples of each.
    sample_seconds
        How long a sample should last at least: a run that is shorter is called several times in each, and its value
        is per call, so that the clock does not matter.
    warms_up
        Whether each is called once before the first round.
    clock
        Seconds.
    tidy
        Called before each sample, so that nobody collects the garbage of another. The collector stays on.
    """
    measured = Measured({run.label: [] for run in runs})
    alive = list(runs)
    repeats = {run.label: 1 for run in runs}

    def attempt(run: Run, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of one contender: the others go on
            measured.failures[run.label] = f"{type(error).__name__}: {error}"
            del measured.samples[run.label]
            alive.remove(run)

    def warm_up(run: Run) -> None:
        result = run.action()
        if sample_seconds:
            begin = clock()
            result = run.action()
            repeats[run.label] = _repeats(sample_seconds, clock() - begin)
        _check(run, result)

    def sample(run: Run) -> None:
        tidy()
        count = repeats[run.label]
        action = run.action
        begin = clock()
        for _ in range(count):
            result = action()
        seconds = (clock() - begin) / count
        if not warms_up:
            _check(run, result)
        measured.samples[run.label].append(run.score(seconds, result))

    if warms_up:
        for run in runs:
            attempt(run, lambda run=run: warm_up(run))  # type: ignore[misc]
    for number in range(rounds):
        shift = number % len(alive) if alive else 0
        for run in alive[shift:] + alive[:shift]:
            attempt(run, lambda run=run: sample(run))  # type: ignore[misc]
    return measured


def _repeats(sample_seconds: float, seconds: float) -> int:
    return min(max(math.ceil(sample_seconds / max(seconds, 1e-9)), 1), MAX_REPEATS)


def _check(run: Run, result: object) -> None:
    if run.accepts is not None and not run.accepts(result):
        raise AssertionError("the results are not what they should be")
