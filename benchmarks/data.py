"""Rows of tasks with large results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import styles
from benchmarks.entries import ours, peer
from benchmarks.goals import AtMost, Goal
from benchmarks.row import Row
from benchmarks.tasks import make_array, make_list

__all__ = ["rows"]


def rows(is_quick: bool) -> list[Row]:
    """Give them."""
    rounds = 2 if is_quick else 9
    return [
        _row(
            "results-arrays",
            "20 results of 10 MB",
            make_array,
            range(20),
            (AtMost("mp", 0.12), AtMost("loky", 0.12)),
            rounds,
            lambda arrays: [array[-1] for array in arrays] == list(range(20)),
            needs=("numpy",),
        ),
        _row(
            "results-lists",
            "200 results of list(range(10000))",
            make_list,
            [10_000] * 200,
            (AtMost("mp", 0.065), AtMost("loky", 0.065)),
            rounds,
            lambda lists: lists == [list(range(10_000))] * 200,
        ),
    ]


def _row(
    name: str,
    title: str,
    function: Callable[..., Any],
    items: Sequence[Any],
    goals: tuple[Goal, ...],
    rounds: int,
    accepts: Callable[[Any], bool],
    needs: tuple[str, ...] = (),
) -> Row:
    return Row(
        name,
        title,
        (
            *(ours(backend, styles.delayed_tasks, function, items) for backend in ("mp", "loky", "futures/processes")),
            peer("joblib/loky", styles.joblib_tasks, function, items),
            peer("ProcessPoolExecutor", styles.executor_map, function, items, label="ProcessPoolExecutor.map"),
            peer("Pool", styles.pool_map, function, items, label="Pool.map"),
            peer("mpire", styles.mpire_map, function, items, label="mpire.map"),
        ),
        goals,
        base="joblib/loky",
        rounds=rounds,
        accepts=accepts,
        needs=needs,
    )
