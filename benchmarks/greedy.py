"""What an ideal schedule takes, and the durations by which schedules are compared. Pure."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

__all__ = ["greedy_seconds", "heavy_tailed"]


def greedy_seconds(durations: Sequence[float], workers: int = 2) -> float:
    """Give the makespan of the list schedule: each task in turn goes to whoever is free first, at no cost."""
    free_at = [0.0] * workers
    for seconds in durations:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def heavy_tailed(count: int, mean_seconds: float) -> list[float]:
    """Give durations of which a few are very long: Pareto's law, the same numbers each time.

    The longest is cut at a twentieth of all, or no schedule could be better than that one task.
    """
    dice = random.Random(7)
    raw = [dice.paretovariate(1.3) for _ in range(count)]
    longest = sum(raw) / 20
    cut = [min(value, longest) for value in raw]
    scale = mean_seconds * count / sum(cut)
    return [value * scale for value in cut]
