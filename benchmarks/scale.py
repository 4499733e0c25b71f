"""Rows of very long calls, and of very many workers.

A long call runs in a process of its own (``python -m benchmarks.scale``), so that the most memory this ever had is due
to the call.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from benchmarks import styles
from benchmarks.cold import run_program
from benchmarks.entries import ours, peer
from benchmarks.goals import AtLeast, AtMost, AtMostTimes, Goal
from benchmarks.row import Entry, Row, alone
from benchmarks.tasks import nap, noop
from benchmarks.units import NANOSECONDS, OF_ONE, SIZE
from parallel import Parallel, delayed

__all__ = ["rows"]

#: The length of call that longer ones are compared with.
SHORT = 20_000

#: How often that is run before each long call, for a median; and how often long ones are, if longer ones come yet.
_SHORT_ROUNDS = 5
_LONG_ROUNDS = 3

_BACKENDS = ("mp", "loky", "threads")
_NAP_SECONDS = 0.01
_NAPS_PER_WORKER = 40


def rows(is_quick: bool) -> list[Row]:
    """Give them."""
    sizes = (100_000, 300_000) if is_quick else (1_000_000, 10_000_000)
    # Dozens of workers take long to start, on two CPUs, with loky most of all.
    widths = (1, 8, 64) if is_quick else (1, 2, 4, 8, 16, 32, 64)
    return [*(_width(n_jobs, is_quick) for n_jobs in widths), _seconds(sizes), _memory(sizes)]


# -- many workers ----------------------------------------------------------------------------------------------------


def _width(n_jobs: int, is_quick: bool) -> Row:
    naps = [_NAP_SECONDS] * (_NAPS_PER_WORKER * n_jobs)
    backends = [name for name in _BACKENDS if not (is_quick and name == "loky" and n_jobs > 8)]

    def score(seconds: float, slept: Any) -> float:
        return _NAP_SECONDS * _NAPS_PER_WORKER / seconds

    return Row(
        f"width-{n_jobs}",
        f"n_jobs={n_jobs}, {len(naps):,} tasks that sleep for 10 ms: efficiency",
        (
            *(ours(name, styles.delayed_tasks, nap, naps, n_jobs=n_jobs) for name in backends),
            peer("ThreadPoolExecutor", styles.executor_map, nap, naps, n_jobs=n_jobs),
            peer("ProcessPoolExecutor", styles.executor_map, nap, naps, n_jobs=n_jobs),
        ),
        tuple(AtLeast(name, 0.9) for name in backends),
        unit=OF_ONE,
        rounds=1 if is_quick else 3,
        warms_up=False,
        score=score,
        compares=False,
    )


# -- long calls ------------------------------------------------------------------------------------------------------


def _label(backend: str, mode: str, count: int) -> str:
    return f"{backend}, {mode}, {count:,}"


def _seconds(sizes: tuple[int, ...]) -> Row:
    """Make the row of the time per task."""
    entries, goals = [], []
    for backend in _BACKENDS:
        for mode in ("list", "generator"):
            for count in (SHORT, *sizes):
                entries.append(_entry(_label(backend, mode, count), backend, mode, sizes, f"seconds {count}"))
            short = _label(backend, mode, SHORT)
            goals += [AtMostTimes(_label(backend, mode, count), 1.2, short) for count in sizes]
    return Row(
        "scale-time",
        "no-op tasks from a generator, n_jobs=2: time per task",
        tuple(entries),
        tuple(goals),
        unit=NANOSECONDS,
        rounds=1,
        warms_up=False,
        score=lambda _, told: told,
        compares=False,
    )


def _memory(sizes: tuple[int, ...]) -> Row:
    """Make the row of what memory a call takes beyond a short one, without the list of results."""
    entries: list[Entry] = []
    goals: list[Goal] = []
    for backend in _BACKENDS:
        for mode in ("list", "generator"):
            for count in sizes:
                label = _label(backend, mode, count)
                # None at all for a generator: but for what an allocator keeps, a page here and there.
                limit = (30 if mode == "list" else 2) * (1 << 20)
                entries.append(_entry(label, backend, mode, sizes, f"caller {count}"))
                goals.append(AtMost(label, limit))
                if backend != "threads":
                    entries.append(_entry(f"{label}: workers", backend, mode, sizes, f"workers {count}"))
                    goals.append(AtMost(f"{label}: workers", limit))
    return Row(
        "scale-memory",
        f"the same calls: most memory beyond that of calls of {SHORT:,}, apart from the list of results",
        tuple(entries),
        tuple(goals),
        unit=SIZE,
        rounds=1,
        warms_up=False,
        score=lambda _, told: told,
        compares=False,
    )


def _entry(label: str, backend: str, mode: str, sizes: tuple[int, ...], field: str) -> Entry:
    return Entry(label, alone(lambda: _report(backend, mode, sizes)[field]))


@functools.cache
def _report(backend: str, mode: str, sizes: tuple[int, ...]) -> dict[str, float]:
    """Run long calls in a process of their own; two rows look at the same ones."""
    report: dict[str, float] = json.loads(run_program("-m", "benchmarks.scale", backend, mode, *map(str, sizes)))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Long calls, for the rows of this module.")
    parser.add_argument("backend")
    parser.add_argument("mode", choices=["list", "generator"])
    parser.add_argument("sizes", type=int, nargs="+", help="from small to large")
    arguments = parser.parse_args()
    sizes: list[int] = arguments.sizes
    return_as: Any = arguments.mode
    seconds: dict[int, list[float]] = {count: [] for count in (SHORT, *sizes)}
    report: dict[str, float] = {}
    with Parallel(n_jobs=2, backend=arguments.backend, return_as=return_as) as parallel:
        for _ in range(_SHORT_ROUNDS):  # the workers start, and memory gets as full as such calls make it
            _run(parallel, SHORT)
        caller, workers = _most_memory()
        for count in sizes:
            for _ in range(min(max(sizes[-1] // count, 1), _LONG_ROUNDS)):
                # Short ones all along, so that a machine that is busy for a while is so for both.
                seconds[SHORT] += [_run(parallel, SHORT)[0] for _ in range(_SHORT_ROUNDS)]
                taken, size = _run(parallel, count)
                seconds[count].append(taken)
            # The list of an earlier, shorter call is gone, and there was room for this one in its place.
            caller_now, workers_now = _most_memory()
            report[f"caller {count}"] = caller_now - caller - size
            report[f"workers {count}"] = workers_now - workers
        seconds[SHORT] += [_run(parallel, SHORT)[0] for _ in range(_SHORT_ROUNDS)]
    report |= {f"seconds {count}": statistics.median(taken) for count, taken in seconds.items()}
    print(json.dumps(report))


def _run(parallel: Parallel, count: int) -> tuple[float, int]:
    """Give the seconds per task of one call, and the bytes of its list of results."""
    begin = time.perf_counter()
    results = parallel(delayed(noop)(item) for item in range(count))
    if parallel.return_as == "list":
        size = sys.getsizeof(results)
        assert len(results) == count
    else:
        size = 0
        (last,) = deque(enumerate(results, 1), 1)
        assert last == (count, None)
    return (time.perf_counter() - begin) / count, size


def _most_memory() -> tuple[int, int]:
    """Give the most memory in bytes that this process ever had, and the sum of that of its children.

    Where there is no /proc, nothing is known of the children.
    """
    if not Path("/proc/self/status").exists():
        import resource  # which is not everywhere either

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024), 0
    children = {child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()}
    # Not ru_maxrss, which begins with what the process had that started this one.
    return _peak("self"), sum(_peak(child) for child in children)


def _peak(process: str) -> int:
    with open(f"/proc/{process}/status") as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
