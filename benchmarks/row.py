"""A row of the benchmark: one piece of work, and all who do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.goals import Goal
from benchmarks.units import MILLISECONDS, Unit

__all__ = ["Entry", "Row", "alone"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One who takes part in a row.

    Attributes
    ----------
    action
        What is timed; called with the open contender, None if there is none.
    contender
        Name in `contenders`; None if it needs none.
    is_peer
        Whether it is not ours: the best of the peers is what the others are compared with.
    n_jobs
        Workers of the contender.
    """

    label: str
    action: Callable[[Any], object]
    contender: str | None = None
    is_peer: bool = False
    n_jobs: int = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work.

    Attributes
    ----------
    name
        For ``--only``.
    goals
        What is to be reached.
    base
        Label of the peer beside whom a column shows everybody.
    rounds, sample_seconds, warms_up
        As for `measure`.
    score, accepts
        As for `measuring.Run`.
    compares
        Whether there are columns beside peers at all.
    needs
        Modules without which the row is left out.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    goals: tuple[Goal, ...] = ()
    unit: Unit = MILLISECONDS
    base: str | None = None
    rounds: int = 9
    sample_seconds: float = 0.0
    warms_up: bool = True
    score: Callable[[float, Any], float] | None = None
    accepts: Callable[[Any], bool] | None = None
    compares: bool = True
    needs: tuple[str, ...] = ()


def alone(action: Callable[[], object]) -> Callable[[Any], object]:
    """Make the action of an entry without a contender."""
    return lambda _: action()
