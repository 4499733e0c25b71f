"""Rows of tasks of unlike duration: how far a library is from the ideal schedule of the same tasks.

Tasks sleep, so that workers do not need a CPU each, and tell for how long they really did: what is compared with is the
ideal schedule of those durations, and not of what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import styles
from benchmarks.contenders import other_backends
from benchmarks.entries import ours, peer
from benchmarks.goals import AtMost
from benchmarks.greedy import greedy_seconds, heavy_tailed
from benchmarks.row import Row
from benchmarks.tasks import nap
from benchmarks.units import GREEDY

__all__ = ["rows"]

_OURS = ("mp", "loky", "threads")


def rows(is_quick: bool) -> list[Row]:
    """Give them; most have fewer tasks in a quick run."""
    n_slow, n_short = 40, 600 if is_quick else 2_000
    rounds = 1 if is_quick else 5
    return [
        _row(
            "fast-then-slow",
            f"4,000 tasks of 0 s, then {n_slow} of 50 ms",
            [0.0] * 4_000 + [0.05] * n_slow,
            1.06,
            rounds,
        ),
        _row(
            "heavy-tailed",
            f"{n_short:,} heavy-tailed tasks of 1 ms on average",
            heavy_tailed(n_short, 1e-3),
            1.03,
            rounds,
        ),
        _row(
            "slow-first",
            f"one task of {n_short // 4} ms, then {n_short // 2:,} of 1 ms",
            [n_short / 4e3] + [1e-3] * (n_short // 2),
            1.03,
            rounds,
        ),
        _row(
            "slow-last",
            f"{n_short // 2:,} tasks of 1 ms, then one of {n_short // 4} ms",
            [1e-3] * (n_short // 2) + [n_short / 4e3],
            1.03,
            rounds,
        ),
        _row("even", f"{n_short:,} tasks of 1 ms", [1e-3] * n_short, 1.03, rounds),
    ]


def _row(name: str, title: str, durations: Sequence[float], limit: float, rounds: int) -> Row:
    def score(seconds: float, slept: Sequence[float]) -> float:
        return seconds / greedy_seconds(slept)

    return Row(
        f"schedule-{name}",
        title,
        (
            *(
                ours(name, styles.delayed_tasks, nap, durations)
                for name in (*_OURS, "futures/processes", *other_backends())
            ),
            peer("joblib/loky", styles.joblib_tasks, nap, durations),
            peer("joblib/threads", styles.joblib_tasks, nap, durations),
            peer("ThreadPoolExecutor", styles.executor_map, nap, durations, label="ThreadPoolExecutor.map"),
            peer("ProcessPoolExecutor", styles.executor_map, nap, durations, label="ProcessPoolExecutor.map"),
            peer("Pool", styles.pool_imap, nap, durations, label="Pool.imap"),
        ),
        tuple(AtMost(name, limit) for name in _OURS),
        unit=GREEDY,
        base="joblib/loky",
        rounds=rounds,
        warms_up=False,
        score=score,
        accepts=lambda slept: len(slept) == len(durations),
    )
