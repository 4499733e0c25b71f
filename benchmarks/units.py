"""How values are shown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GREEDY", "MICROSECONDS", "MILLISECONDS", "NANOSECONDS", "OF_ONE", "SECONDS", "SIZE", "Unit"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What a value is given in; `per_one` of it are one second, one byte, or one."""

    symbol: str
    per_one: float

    def number(self, value: float) -> str:
        """Give three digits that count."""
        shown = value * self.per_one
        digits = 0 if abs(shown) >= 100 else 1 if abs(shown) >= 10 else 2 if abs(shown) >= 1 else 3
        return f"{shown:,.{digits}f}"

    def show(self, value: float) -> str:
        """Give it with the unit; a limit such as 0.15 ms keeps the form in which it was set."""
        return f"{value * self.per_one:,.4g} {self.symbol}".rstrip()


SECONDS = Unit("s", 1)
MILLISECONDS = Unit("ms", 1e3)
MICROSECONDS = Unit("µs", 1e6)
NANOSECONDS = Unit("ns", 1e9)
SIZE = Unit("MB", 1 / (1 << 20))
#: Times the makespan of an ideal schedule.
GREEDY = Unit("× greedy", 1)
OF_ONE = Unit("", 1)
