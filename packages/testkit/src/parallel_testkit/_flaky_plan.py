"""What goes wrong with each job of a `FlakyBackend`: drawn from its seed and the number of the job. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Fault", "FaultPlan", "FaultSettings"]

#: The kinds of faults, by the names under which `FlakyBackend.injected` has them.
Fault = Literal[
    "connection_lost", "delay", "duplicate", "lost", "missing", "never", "slow_start", "submit_error", "truncated"
]

#: The order in which a job's numbers are drawn, all of them for every job: one probability more or less changes nothing
#: of the other faults.
_DRAWN: tuple[Fault, ...] = ("submit_error", "never", "missing", "duplicate", "lost", "truncated", "delay")

#: Of two faults that cannot both be, the one that stays and those that it rules out.
_RULES_OUT: tuple[tuple[Fault, frozenset[Fault]], ...] = (
    ("submit_error", frozenset({*_DRAWN, "slow_start"}) - {"submit_error"}),
    ("never", frozenset({*_DRAWN, "slow_start"}) - {"never"}),
    ("missing", frozenset({"duplicate"})),
    ("lost", frozenset({"truncated"})),
)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What happens to one job."""

    faults: frozenset[Fault]
    #: How long its outcome is on its way, and the second callback behind the first.
    delay_seconds: float
    repeat_seconds: float
    #: How much of its outcome is left when that is cut, 0 to less than 1.
    kept_share: float
    #: Its place among outcomes that are held together, from 0 to 1.
    rank: float


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """The settings of a `FlakyBackend`, which describes them; checked when they are made."""

    seed: int
    delay_seconds: tuple[float, float]
    probabilities: dict[Fault, float]
    reorder: int
    slow_start_seconds: float
    connection_lost: tuple[int, float] | None

    @classmethod
    def checked(
        cls,
        *,
        seed: Any,
        delay_seconds: Any,
        reorder: Any,
        slow_start_seconds: Any,
        connection_lost: Any,
        probabilities: dict[Fault, Any],
    ) -> FaultSettings:
        """Check what a user gave.

        Raises
        ------
        TypeError
            If a value is of the wrong kind.
        ValueError
            If one is out of range.
        """
        if isinstance(delay_seconds, tuple):
            low, high = _pair("delay_seconds", delay_seconds, "the shortest and the longest delay")
            delays = _seconds("delay_seconds[0]", low), _seconds("delay_seconds[1]", high)
            if delays[0] > delays[1]:
                raise ValueError(f"delay_seconds must not be longer at least than at most: {delay_seconds!r}")
        else:
            delays = (_seconds("delay_seconds", delay_seconds),) * 2
        lost: tuple[int, float] | None = None
        if connection_lost is not None:
            after, seconds = _pair("connection_lost", connection_lost, "after how many jobs, and for how many seconds")
            lost = _integer("connection_lost[0]", after, 0), _seconds("connection_lost[1]", seconds)
        return cls(
            seed=_integer("seed", seed),
            delay_seconds=delays,
            probabilities={kind: _probability(f"p_{kind}", given) for kind, given in probabilities.items()},
            reorder=_integer("reorder", reorder, 1),
            slow_start_seconds=_seconds("slow_start_seconds", slow_start_seconds),
            connection_lost=lost,
        )

    def draw(self, number: int, also: AbstractSet[Fault] = frozenset()) -> FaultPlan:
        """Decide what happens to a job, whatever has happened before; `also` what is to happen to it anyway."""
        # A text as the seed: two integers cannot be one without a job of one seed being like a job of another.
        generator = random.Random(f"{self.seed}/{number}")  # noqa: S311 - faults, not secrets
        drawn = {kind for kind in _DRAWN if generator.random() < self.probabilities[kind]} | also
        delay, repeat = (generator.uniform(*self.delay_seconds) for _ in range(2))
        kept_share, rank = generator.random(), generator.random()
        if not self.delay_seconds[1]:
            drawn.discard("delay")
        for kind, others in _RULES_OUT:
            if kind in drawn:
                drawn -= others
        if "delay" not in drawn:
            delay = repeat = 0.0
        if "slow_start" in drawn:
            delay += self.slow_start_seconds
        return FaultPlan(frozenset(drawn), delay, repeat, kept_share, rank)


def _integer(name: str, given: object, least: int | None = None) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{name} must be an integer, not {given!r}")
    if least is not None and given < least:
        raise ValueError(f"{name} must be at least {least}, not {given!r}")
    return given


def _number(name: str, given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"{name} must be a number, not {given!r}")
    return float(given)


def _seconds(name: str, given: object) -> float:
    number = _number(name, given)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be seconds, finite and at least 0, not {given!r}")
    return number


def _probability(name: str, given: object) -> float:
    number = _number(name, given)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a probability, 0 to 1, not {given!r}")
    return number


def _pair(name: str, given: object, meaning: str) -> tuple[object, object]:
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f"{name} must be a pair ({meaning}), not {given!r}")
    return given
