"""What is to be reached in a row, and whether it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from benchmarks.measuring import ratio
from benchmarks.units import SECONDS, Unit

__all__ = ["AtLeast", "AtMost", "AtMostTimes", "Goal", "TimesFaster", "Verdict", "judge"]

Samples = Mapping[str, Sequence[float]]


class Goal(Protocol):
    """What one label of a row is to reach."""

    @property
    def label(self) -> str:
        """Whose it is."""

    @property
    def peer(self) -> str | None:
        """Beside whom, if anyone."""

    def text(self, unit: Unit) -> str:
        """Say it."""

    def value(self, samples: Samples) -> float:
        """Give what counts."""

    def show(self, value: float, unit: Unit) -> str:
        """Say what counts."""

    def is_met(self, value: float) -> bool:
        """Tell whether it is enough."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """A median of at most so much."""

    label: str
    limit: float
    peer: None = None

    def text(self, unit: Unit) -> str:
        return f"≤ {unit.show(self.limit)}"

    def value(self, samples: Samples) -> float:
        return median(samples[self.label])

    def show(self, value: float, unit: Unit) -> str:
        return unit.show(value)

    def is_met(self, value: float) -> bool:
        return value <= self.limit


@dataclass(frozen=True, slots=True)
class AtLeast(AtMost):
    """A median of at least so much."""

    def text(self, unit: Unit) -> str:
        return f"≥ {unit.show(self.limit)}"

    def is_met(self, value: float) -> bool:
        return value >= self.limit


@dataclass(frozen=True, slots=True)
class AtMostTimes:
    """At most so many times the value of another label in the same run."""

    label: str
    factor: float
    peer: str

    def text(self, unit: Unit) -> str:
        return f"≤ {self.factor:g} × {self.peer}"

    def value(self, samples: Samples) -> float:
        return ratio(samples[self.label], samples[self.peer])

    def show(self, value: float, unit: Unit) -> str:
        return f"{value:.2f} ×"

    def is_met(self, value: float) -> bool:
        return value <= self.factor


@dataclass(frozen=True, slots=True)
class TimesFaster:
    """At least so many times as fast as another label in the same run."""

    label: str
    factor: float
    peer: str

    def text(self, unit: Unit) -> str:
        return f"≥ {self.factor:g} × as fast as {self.peer}"

    def value(self, samples: Samples) -> float:
        return ratio(samples[self.peer], samples[self.label])

    def show(self, value: float, unit: Unit) -> str:
        return f"{value:.2f} ×"

    def is_met(self, value: float) -> bool:
        return value >= self.factor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal was reached; `is_met` is None where it could not be measured."""

    label: str
    goal: str
    value: float | None
    shown: str
    is_met: bool | None

    @property
    def mark(self) -> str:
        """One character for it."""
        return "?" if self.is_met is None else "✓" if self.is_met else "✗"


def judge(goals: Sequence[Goal], samples: Samples, unit: Unit = SECONDS) -> list[Verdict]:
    """Look at each goal."""
    verdicts = []
    for goal in goals:
        if samples.get(goal.label) and (goal.peer is None or samples.get(goal.peer)):
            value = goal.value(samples)
            verdicts.append(Verdict(goal.label, goal.text(unit), value, goal.show(value, unit), goal.is_met(value)))
        else:
            verdicts.append(Verdict(goal.label, goal.text(unit), None, "not measured", None))
    return verdicts
