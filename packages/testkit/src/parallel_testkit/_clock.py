"""A clock that only moves when it is told to."""

from __future__ import annotations

import math

__all__ = ["FakeClock"]


class FakeClock:
    """Stands in for `time.monotonic`.

    ::

        clock = FakeClock()
        clock.advance(2.5)
        assert clock() == 2.5

    Parameters
    ----------
    now : float, default 0.0
        Seconds to begin with.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = float(now)

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass and give the new time.

        Raises
        ------
        ValueError
            If they are negative or not finite: a monotonic clock does not go back.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a monotonic clock cannot advance by {seconds!r} seconds")
        self._now += seconds
        return self._now

    def advance_to(self, when: float) -> float:
        """Let time pass until `when`; does nothing if that is over already."""
        return self.advance(max(when - self._now, 0.0))

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now:g} s>"
