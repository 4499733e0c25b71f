"""What the engine costs as workers grow, and how near to the best its schedules come.

The bound is that of any schedule: total work over workers, or the longest task if that is more. Beside it stands what
a greedy list schedule takes: whoever is free takes the next task of the input at once, which costs nothing.
"""

from __future__ import annotations

import gc
import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parallel._batching import MAX_BATCH, AdaptiveBatching
from parallel._retry import ONCE, Retry
from parallel._scheduler import Faults, Scheduler
from tests.simulation.conditions import Conditions
from tests.simulation.driver import Cluster
from tests.simulation.times import draw
from tests.simulation.trace import EVENTS

WORKERS = (10, 100, 1_000, 10_000)

#: What is asked of the scheduler besides events.
_ASKED = ("wanted", "next_deadline")

#: One way of every message: a local network.
_LATENCY_SECONDS = 0.0002


@dataclass(frozen=True, slots=True)
class Load:
    """Tasks for a report: their times, and how many for each worker.

    With `has_faults`, tasks have a limit that none passes, and some fail and lose their worker, and run again.
    """

    distribution: str
    mean_seconds: float
    tasks_per_worker: int
    has_faults: bool = False


FULL = (
    Load("constant", 0.1, 10),
    Load("exponential", 0.1, 10),
    Load("pareto", 0.1, 10),
    Load("bimodal", 0.1, 10),
    Load("slow last", 0.1, 10),
    Load("exponential", 0.0005, 50),
    Load("constant", 0.1, 10, has_faults=True),
)
BRIEF = (Load("exponential", 0.1, 5),)

_HEAD = "{:<24} {:>7} {:>9} {:>9} {:>12} {:>12} {:>9} {:>8}"
_LINE = "{:<24} {:>7,} {:>9,} {:>9,} {:>12.3f} {:>12.3f} {:>9.1f} {:>8.2f}"


def report(loads: tuple[Load, ...], say: Callable[[str], None]) -> None:
    """Print a table: one line for each load and number of workers."""
    say("")
    say("makespan over the bound max(total work / workers, longest task), and the same for a greedy list schedule;")
    say("the engine's own time is processor time inside the scheduler, in microseconds")
    say(_HEAD.format("tasks", "workers", "tasks", "batches", "makespan", "greedy", "per batch", "per task"))
    for load in loads:
        for n_jobs in WORKERS:
            say(_row(load, n_jobs))


def _row(load: Load, n_jobs: int) -> str:
    n_tasks = load.tasks_per_worker * n_jobs
    failing = 0.02 if load.has_faults else 0.0
    times = draw(load.distribution, random.Random(n_jobs), n_tasks, load.mean_seconds)
    cluster = Cluster(
        Conditions(task_seconds=times, latency_seconds=_LATENCY_SECONDS, failing=failing, dying=failing),
        random.Random(0),
        n_tasks=n_tasks,
        n_jobs=n_jobs,
        batching=AdaptiveBatching(n_jobs),
        max_size=MAX_BATCH,
        pre_dispatch=2 * n_jobs,
        knows_total=True,
        faults=Faults(can_kill=True, replaces_workers=True, sees_starts=True),
        retry=Retry(attempts=10) if load.has_faults else ONCE,
        return_exceptions=False,
        task_seconds=100 * load.mean_seconds if load.has_faults else None,
        call_seconds=None,
        replaces=False,
    )
    stopwatch = Stopwatch(cluster.world.scheduler)
    # The garbage collector would walk through the simulation's own objects, and be counted to whoever woke it.
    gc.collect()
    gc.disable()
    try:
        cluster.run()
    finally:
        gc.enable()
    bound = max(sum(times) / n_jobs, max(times))
    n_batches = len(cluster.world.seen_ids)
    name = f"{load.distribution}, {load.mean_seconds * 1000:g} ms{', faults' * load.has_faults}"
    engine = stopwatch.seconds * 1e6
    return _LINE.format(
        name,
        n_jobs,
        n_tasks,
        n_batches,
        cluster.clock.now / bound,
        greedy_seconds(times, n_jobs) / bound,
        engine / n_batches,
        engine / n_tasks,
    )


def greedy_seconds(times: list[float], n_jobs: int) -> float:
    """Give how long a greedy list schedule takes."""
    free = [0.0] * n_jobs
    for seconds in times:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


class Stopwatch:
    """Adds up the processor time inside a scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.seconds = 0.0
        self._is_inside = False
        for name in (*EVENTS, *_ASKED):
            setattr(scheduler, name, self._timed(getattr(scheduler, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._is_inside:  # the scheduler itself asks
                return function(*arguments, **options)
            self._is_inside = True
            began = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.thread_time() - began
                self._is_inside = False

        return timed
