"""Any legal order of events, chosen at random: the hardest worlds, though no real one is like that."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from parallel._batching import AdaptiveBatching, Batching, FixedBatching
from parallel._retry import Retry
from parallel._scheduler import Faults, Window
from tests.simulation.facts import LateError, LostError, TaskError
from tests.simulation.policies import EagerBatching, WhimsicalBatching
from tests.simulation.world import World

#: Share of whims with faults in which places at workers are what there is most of.
_DEEP = 0.05


def follow_whims(
    seed: int, max_tasks: int, *, with_faults: bool = False, meet: Callable[[World], None] = lambda world: None
) -> World:
    """Run one call of up to `max_tasks` tasks with everything chosen by `seed`; give it when it has ended.

    `meet` is told of the world before anything happens in it.
    """
    choose = random.Random(seed)
    max_size = choose.choice([1, 2, 7, max(max_tasks // 10, 1), max_tasks + 1])
    policies: list[Batching] = [
        FixedBatching(max_size),
        AdaptiveBatching(4, max_size),
        WhimsicalBatching(seed, max_size),
    ]
    batching = choose.choice(policies)
    n_jobs = choose.randint(1, 6)
    window = None
    if choose.random() < 0.6:
        window = Window(choose.randint(1, 4 * n_jobs), choose.choice([1, 5, max_size, 2 * max_tasks]))
    options: dict[str, Any] = {
        "n_tasks": choose.randint(0, max_tasks),
        "n_jobs": n_jobs,
        "batching": batching,
        "max_size": max_size,
        "ordered": choose.random() < 0.6,
        "pre_dispatch": choose.choice([None, 1, 2, 2 * n_jobs, 50]),
        "depth": choose.randint(1, 3),
        "window": window,
        "knows_total": choose.random() < 0.5,
        "return_exceptions": choose.random() < 0.5,
    }
    if with_faults:
        options |= _choose_faults(choose)
        if choose.random() < _DEEP:
            options |= _choose_depth(choose, max_tasks, options["faults"])
    world = World(**options)
    meet(world)
    cuts, fails, consumes = choose.choice([0.0, 0.1, 0.6]), choose.choice([0.0, 0.02, 0.3]), choose.random()
    ends = 0.01 if choose.random() < 0.3 else 0.0
    hurts = choose.choice([0.02, 0.3, 0.7]) if with_faults else 0.0
    if not world.tolerates(TaskError()) and choose.random() < 0.8:
        fails = 0.0
    for _ in world.until_over():
        # Each round does at least one of these, else the world would stand still.
        if world.scheduler.wanted() and choose.random() < 0.7:
            world.read(choose.choice([None, 1, choose.randint(1, max_tasks + 1)]), choose.random() < 0.5)
        elif world.unconsumed and (choose.random() < consumes or not world.runs):
            world.take()
        elif world.runs and choose.random() < hurts:
            _hurt_some(world, choose)
        elif world.runs:
            _bring_some(world, choose, cuts, fails)
        elif world.delayed:
            world.wait()
        elif world.landed:
            world.bring_again(choose.choice(world.landed))
        if not world.is_over and choose.random() < ends:
            choose.choice([world.close, world.break_down, world.fail_to_read])()
    world.trouble_the_dead()
    return world


def _choose_depth(choose: random.Random, max_tasks: int, faults: Faults) -> dict[str, Any]:
    """Workers with many places, tasks for all of these, and a call that goes on whatever happens to workers."""
    max_size = choose.randint(1, 2)
    return {
        "n_tasks": max_tasks,
        "n_jobs": choose.randint(1, 3),
        "depth": choose.randint(3, 4),
        "batching": EagerBatching(max_size),
        "max_size": max_size,
        "pre_dispatch": None,
        "window": None,
        "retry": Retry(attempts=1000, on=(Exception,)),
        "faults": faults._replace(replaces_workers=True, sees_starts=True),
    }


def _choose_faults(choose: random.Random) -> dict[str, Any]:
    sees_starts = choose.random() < 0.7
    return {
        "retry": Retry(
            attempts=choose.choice([1, 2, 5, 1000]),
            on=choose.choice([(Exception,), (TaskError, LostError), (LateError,)]),
            backoff_seconds=choose.choice([0.0, 0.0, 0.5]),
            jitter=choose.choice([0.0, 0.0, 0.5, 1.0]),
        ),
        "faults": Faults(
            can_kill=choose.random() < 0.5,
            replaces_workers=choose.random() < 0.9,
            loses_all=choose.random() < 0.4,
            sees_starts=sees_starts,
        ),
        "task_seconds": choose.choice([None, 1.0]),
        "call_seconds": choose.choice([None, None, None, 50.0]),
        "replaces": choose.random() < 0.5,
        # Where starts are not seen, the driver sends one task at a time, and one batch to a worker.
        **({} if sees_starts else {"max_size": 1, "batching": FixedBatching(1), "depth": 1}),
    }


def _bring_some(world: World, choose: random.Random, cuts: float, fails: float) -> None:
    batch_id = choose.choice(list(world.runs))
    size = len(world.runs[batch_id].batch)
    done = choose.randint(1, size) if choose.random() < cuts else size
    failing: frozenset[int] = frozenset()
    if choose.random() < fails:
        failing = frozenset(choose.sample(range(size), choose.randint(1, min(size, 3))))
        if choose.random() < 0.2:
            done = 0
    world.bring(batch_id, done, failing, seconds=choose.choice([0.0, 1e-6, 0.001, 0.3]))


def _hurt_some(world: World, choose: random.Random) -> None:
    batch_id = choose.choice(list(world.runs))
    what = choose.random()
    if what < 0.3:
        world.begin(batch_id)
    elif what < 0.5:
        world.lose(batch_id, choose.random() < 0.2, choose.random() < 0.2)
    elif what < 0.6:
        world.report_start(batch_id)
    elif what < 0.75:
        world.wait(choose.choice([None, 0.1, 0.4, 1.0]))
    elif what < 0.85 and (world.tolerates(LateError()) or choose.random() < 0.1):
        for _ in range(choose.randint(1, len(world.runs[batch_id].batch))):
            world.begin(batch_id)
        world.wait(1.0)
    elif what < 0.9:
        world.blame_nobody(batch_id)
    elif what < 0.92 and world.sees_starts:
        world.go_blind(batch_id)
    elif world.stuck:
        world.come_back_late(choose.choice(list(world.stuck)))
