"""What a seed means: which world, under which conditions, and what happens in it."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallel._batching import AdaptiveBatching, Batching, FixedBatching
from parallel._retry import Retry
from parallel._scheduler import Faults, Window
from tests.simulation.conditions import Conditions
from tests.simulation.driver import Cluster
from tests.simulation.facts import LateError, LostError, TaskError
from tests.simulation.performing import Performer
from tests.simulation.plain import check_makespan, make_plain_cluster
from tests.simulation.policies import WhimsicalBatching
from tests.simulation.times import DISTRIBUTIONS, draw
from tests.simulation.whims import follow_whims

#: Share of seeds that are whims; the others are clusters.
_WHIMS = 0.4

#: Share of clusters in which nothing is chosen that disturbs.
_PLAIN = 0.01

#: Shares of clusters with ten thousand workers, which take a second each, with hundreds of them, with more tasks
#: than are read at once, and with large batches that meet a window.
_HUGE, _LARGE, _LONG, _BULKY = 0.0003, 0.01, 0.004, 0.02

#: Large batches of what was read first, and that in large pieces, or these worlds would take a second too.
_LONG_SETTINGS: dict[str, Any] = {"max_size": 1000, "pre_dispatch": None, "window": None}

#: Processor seconds after which a seed is a scheduler that loops: a thousand times what most of them take.
HANG_SECONDS = 100.0

#: Told of the scheduler of a world that is about to be run.
Meet = Callable[[Performer], None]


def run_seed(seed: int, meet: Meet = lambda world: None) -> None:
    """Run the world of a seed to its end.

    Raises
    ------
    Exception
        What is wrong with the scheduler: an AssertionError of the simulation, or whatever the scheduler raised.
    """
    choose = random.Random(seed)
    with _no_longer_than(HANG_SECONDS):
        if choose.random() < _WHIMS:
            follow_whims(seed, choose.choice([10, 30, 60]), with_faults=choose.random() < 0.7, meet=meet)
        else:
            is_plain = choose.random() < _PLAIN
            cluster = make_plain_cluster(choose) if is_plain else make_cluster(choose)
            meet(cluster.world)
            cluster.run()
            if is_plain:
                check_makespan(cluster)


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    # All loops of the simulation are bounded; one inside the scheduler could only be ended like this.
    def give_up(number: int, frame: Any) -> None:
        raise AssertionError(f"not over after {seconds:.0f} s of processor time: an endless loop")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def make_cluster(choose: random.Random) -> Cluster:
    """Choose a cluster, and a call on it."""
    scale, is_long, is_bulky = choose.random(), False, False
    if scale < _HUGE:
        n_jobs, n_tasks = 10_000, choose.choice([5_000, 12_000, 20_000])
    elif scale < _HUGE + _LARGE:
        n_jobs = choose.randint(50, 400)
        n_tasks = choose.randint(0, 3 * n_jobs)
    elif is_long := scale < _HUGE + _LARGE + _LONG:
        n_jobs, n_tasks = choose.randint(1, 6), 20_000
    elif is_bulky := scale < _HUGE + _LARGE + _LONG + _BULKY:
        n_jobs, n_tasks = choose.randint(1, 6), choose.randint(100, 800)
    else:
        n_jobs, n_tasks = choose.randint(1, 6), choose.randint(0, choose.choice([10, 30, 60]))
    settings = _choose_settings(choose, n_jobs, n_tasks)
    if is_long:
        settings |= _LONG_SETTINGS | {"faults": settings["faults"]._replace(sees_starts=True)}
        settings["batching"] = choose.choice(
            [FixedBatching(700), WhimsicalBatching(4 * choose.randrange(250) + 1, 1000)]
        )
    if is_bulky:
        settings |= _bulky_settings(choose, n_jobs)
        settings["faults"] = settings["faults"]._replace(sees_starts=True)
    mean = 1e-5 if is_long else choose.choice([1e-5, 0.001, 0.001, 0.05, 0.05, 0.3])
    times = draw(choose.choice(list(DISTRIBUTIONS)), choose, n_tasks, mean)
    conditions = Conditions(
        task_seconds=times,
        latency_seconds=choose.choice([0.0, 0.0001, 0.05]),
        jitter_seconds=choose.choice([0.0, 0.0002, 0.1]),
        start_seconds=choose.choice([0.0, 0.1, 3.0]),
        reading=choose.choice([0.0, 0.0, 0.01, 2.0]),
        reads_at_most=choose.choice([None, None, 1, 5]) if n_jobs < 10 else None,
        tells_end=choose.random() < 0.5,
        consuming=choose.choice([0.0, 0.001, 0.2]),
        reports_starts=choose.random() < 0.3,
    )
    if choose.random() < 0.8:
        _choose_trouble(choose, conditions, settings)
    is_endless = bool(conditions.endless) and settings["task_seconds"] is None and settings["call_seconds"] is None
    if is_endless or choose.random() < 0.07:
        conditions.closes_at = choose.random() * (2.0 + 5 * sum(times) / n_jobs)
    return Cluster(conditions, choose, **settings)


def _bulky_settings(choose: random.Random, n_jobs: int) -> dict[str, Any]:
    """Large batches, and a window that bounds their number only."""
    size = choose.randint(30, 120)
    policies: list[Batching] = [FixedBatching(size), WhimsicalBatching(choose.randrange(1000), size)]
    return {
        "max_size": size,
        "batching": choose.choice(policies),
        "pre_dispatch": choose.choice([None, 2 * n_jobs]),
        "depth": choose.randint(1, 3),
        "window": Window(choose.randint(1, 2 * n_jobs), 10_000),
    }


def _choose_settings(choose: random.Random, n_jobs: int, n_tasks: int) -> dict[str, Any]:
    sees_starts = choose.random() < 0.7
    max_size = choose.choice([1, 2, 7, max(n_tasks // 4, 1), n_tasks + 1]) if sees_starts else 1
    policies: list[Batching] = [FixedBatching(max_size)]
    if sees_starts:
        policies += [AdaptiveBatching(n_jobs, max_size), WhimsicalBatching(choose.randrange(1000), max_size)]
    window = None
    if choose.random() < 0.5:
        window = Window(choose.randint(1, 4 * n_jobs), choose.choice([1, 5, max_size, 2 * n_tasks + 1, 10_000]))
    return {
        "n_tasks": n_tasks,
        "n_jobs": n_jobs,
        "batching": choose.choice(policies),
        "max_size": max_size,
        "ordered": choose.random() < 0.6,
        "pre_dispatch": choose.choice([None, 1, n_jobs, 2 * n_jobs, 50]),
        "depth": choose.randint(1, 3) if sees_starts else 1,
        "window": window,
        "knows_total": choose.random() < 0.5,
        "return_exceptions": choose.random() < 0.6,
        "retry": Retry(
            attempts=choose.choice([1, 2, 3, 5]),
            on=choose.choice([(Exception,), (Exception,), (TaskError, LostError), (LateError,)]),
            backoff_seconds=choose.choice([0.0, 0.0, 0.5]),
            jitter=choose.choice([0.0, 0.0, 0.5, 1.0]),
        ),
        "faults": Faults(
            can_kill=choose.random() < 0.6,
            replaces_workers=choose.random() < 0.9,
            loses_all=choose.random() < 0.3 and n_jobs < 10,
            sees_starts=sees_starts,
        ),
        "task_seconds": choose.choice([None, None, 0.2, 1.0]),
        "call_seconds": choose.choice([None, None, None, 3.0, 50.0]),
        "replaces": choose.random() < 0.5,
    }


def _choose_trouble(choose: random.Random, conditions: Conditions, settings: dict[str, Any]) -> None:
    """Let some things go wrong, most of them none: or hardly a call would be long."""
    tasks = range(settings["n_tasks"])
    is_tolerant = settings["return_exceptions"] or settings["retry"].attempts > 1
    hurts = choose.choice([0.02, 0.1, 0.4]) if len(tasks) < 100 else 0.01

    def some(chance: float = 0.3) -> float:
        return hurts if choose.random() < chance else 0.0

    conditions.twice, conditions.silent, conditions.late = some(), some(0.2), some()
    conditions.late_seconds = choose.choice([0.001, 0.3, 3.0])
    conditions.blind, conditions.out_of_reach = some(0.1), min(some(0.1), 0.1)
    conditions.dying_for_others = some(0.1)
    if is_tolerant or choose.random() < 0.1:
        conditions.failing, conditions.unclear = some(0.4), some(0.1)
        if settings["faults"].replaces_workers:
            conditions.dying = 1.0 if choose.random() < 0.03 else some()
            conditions.stillborn = 1.0 if choose.random() < 0.03 else some(0.1)
        few = min(len(tasks), 3)
        conditions.bad_attempts = choose.choice([1, 2, 10**9])
        if choose.random() < 0.3 and (settings["task_seconds"] is not None or choose.random() < 0.1):
            most = min(len(tasks), choose.choice([few, settings["n_jobs"] + 1, 2 * settings["n_jobs"]]))
            conditions.endless = frozenset(choose.sample(tasks, choose.randint(0, most)))
            conditions.endless_seconds = choose.choice([math.inf, 1.5])
        if choose.random() < 0.1 and settings["faults"].replaces_workers:
            conditions.poisonous = frozenset(choose.sample(tasks, choose.randint(0, few)))
        if choose.random() < 0.1:
            conditions.unsendable = frozenset(choose.sample(tasks, choose.randint(0, few)))
    if choose.random() < 0.15:
        begins = choose.random() * 0.5
        conditions.outages = [(begins, begins + choose.choice([0.01, 1.0, 10.0]))]
        conditions.loses_messages = is_tolerant and choose.random() < 0.5
    if choose.random() < 0.02:
        conditions.rejected = 0.1
    if choose.random() < 0.02:
        conditions.fails_at = choose.randint(0, len(tasks))
