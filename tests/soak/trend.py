"""Tells a leak from noise, from a sawtooth and from a single step. Pure.

What is measured goes up and down: memory is given back now and then, workers are replaced. What leaks shows in how low
it comes down. So the samples after the warm-up are cut into blocks, and only the lowest of each block counts. A leak
lifts most of them, each above the one before; a cache that fills once, however large, lifts one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

__all__ = ["BLOCKS", "Limit", "Verdict", "judge", "samples_needed"]

#: Share of the run that is not looked at: caches, warm workers and the allocator's arenas fill. In runs of ten minutes
#: the memory of the caller was level after two.
WARM_UP_SHARE = 0.25

#: Few enough that each has several samples in a run of some minutes, enough that a median over their differences
#: ignores a step, and one block that is out of line (which makes two differences wrong).
BLOCKS = 6

#: A block of one sample has no minimum that means anything.
SAMPLES_PER_BLOCK = 2


@dataclass(frozen=True, slots=True)
class Limit:
    """What is taken for noise.

    Attributes
    ----------
    per_minute
        Growth that is none, in units of the metric.
    least
        Growth over all blocks that is none, however fast: what a short run may differ by.
    """

    per_minute: float
    least: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one metric.

    Attributes
    ----------
    is_trend
        None if there are too few samples to tell.
    first, last
        The lowest values of the first and of the last block.
    per_minute
        The growth.
    """

    is_trend: bool | None
    first: float = 0.0
    last: float = 0.0
    per_minute: float = 0.0


def samples_needed() -> int:
    """Tell how many evenly spaced samples `judge` needs, those of the warm-up included."""
    return math.ceil(BLOCKS * SAMPLES_PER_BLOCK / (1 - WARM_UP_SHARE))


def judge(minutes: Sequence[float], values: Sequence[float], limit: Limit) -> Verdict:
    """Tell whether a metric grows.

    Parameters
    ----------
    minutes, values
        When each sample was taken, evenly spaced but for noise, and what it was.
    limit
        What is none.
    """
    begin = minutes[-1] * WARM_UP_SHARE if minutes else 0.0
    warm = [(at, value) for at, value in zip(minutes, values, strict=True) if at > begin]
    if len(warm) < BLOCKS * SAMPLES_PER_BLOCK:
        return Verdict(None)
    cuts = [round(number * len(warm) / BLOCKS) for number in range(BLOCKS + 1)]
    blocks = [warm[start:stop] for start, stop in pairwise(cuts)]
    lows = [min(value for _, value in block) for block in blocks]
    block_minutes = (warm[-1][0] - warm[0][0]) / (len(warm) - 1) * len(warm) / BLOCKS
    typical = median(after - before for before, after in pairwise(lows))
    per_minute = typical / block_minutes
    grown = min(typical * (BLOCKS - 1), lows[-1] - lows[0])  # by either measure: the first ignores one large step
    return Verdict(per_minute > limit.per_minute and grown > limit.least, lows[0], lows[-1], per_minute)
