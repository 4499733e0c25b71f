"""All rows, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import cold, data, noops, scale, schedules, stages
from benchmarks.row import Row

__all__ = ["all_rows"]

_PARTS: tuple[Callable[[bool], list[Row]], ...] = (
    noops.rows,
    schedules.rows,
    data.rows,
    cold.rows,
    scale.rows,
    stages.rows,
)


def all_rows(*, is_quick: bool = False) -> list[Row]:
    """Give the rows; if `is_quick`, with fewer rounds and less work where a row is long."""
    rows: list[Any] = [row for part in _PARTS for row in part(is_quick)]
    assert len({row.name for row in rows}) == len(rows)
    return rows
