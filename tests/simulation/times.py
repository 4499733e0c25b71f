"""How long tasks take: distributions, all with the same mean."""

from __future__ import annotations

import random
from collections.abc import Callable

#: Of Pareto's distribution: below 2 its variance is infinite, so a few tasks are much longer than all others.
_TAIL = 1.6


def _constant(choose: random.Random, count: int) -> list[float]:
    return [1.0] * count


def _exponential(choose: random.Random, count: int) -> list[float]:
    return [choose.expovariate(1.0) for _ in range(count)]


def _pareto(choose: random.Random, count: int) -> list[float]:
    return [choose.paretovariate(_TAIL) * (_TAIL - 1) / _TAIL for _ in range(count)]


def _bimodal(choose: random.Random, count: int) -> list[float]:
    return [9.1 if choose.random() < 0.1 else 0.1 for _ in range(count)]


def _slow_first(choose: random.Random, count: int) -> list[float]:
    return [20.0 if not index else 1.0 for index in range(count)]


def _slow_last(choose: random.Random, count: int) -> list[float]:
    return [20.0 if index == count - 1 else 1.0 for index in range(count)]


DISTRIBUTIONS: dict[str, Callable[[random.Random, int], list[float]]] = {
    "constant": _constant,
    "exponential": _exponential,
    "pareto": _pareto,
    "bimodal": _bimodal,
    "slow first": _slow_first,
    "slow last": _slow_last,
}


def draw(kind: str, choose: random.Random, count: int, mean_seconds: float) -> list[float]:
    """Give the times of so many tasks."""
    return [seconds * mean_seconds for seconds in DISTRIBUTIONS[kind](choose, count)]
