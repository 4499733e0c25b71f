"""Calls that nothing disturbs: equal tasks, an input of known length, no faults. These have to end nearly at once."""

from __future__ import annotations

import math
import random

from parallel._batching import MAX_BATCH, AdaptiveBatching
from parallel._retry import ONCE
from parallel._scheduler import Faults
from tests.simulation.conditions import Conditions
from tests.simulation.driver import Cluster

#: By how many round trips a call may be longer than a greedy schedule, in which a free worker has the next task at
#: once: of 300 calls the longest was 3.5 longer (growing batches cost two or three). With batches that do not shrink
#: towards the end half of them are 17 longer and more.
SLACK_ROUND_TRIPS = 6


def make_plain_cluster(choose: random.Random) -> Cluster:
    """Choose a cluster and a call on it, whose batches grow until the end of the input makes them shrink."""
    n_jobs, latency = choose.randint(2, 8), choose.choice([0.0001, 0.0005])
    seconds = latency * choose.choice([0.3, 1.0, 3.0])
    n_tasks = n_jobs * choose.randint(60, 300)
    return Cluster(
        Conditions(task_seconds=[seconds] * n_tasks, latency_seconds=latency),
        choose,
        n_tasks=n_tasks,
        n_jobs=n_jobs,
        batching=AdaptiveBatching(n_jobs),
        max_size=MAX_BATCH,
        pre_dispatch=choose.choice([None, 2 * n_jobs]),
        knows_total=True,
        faults=Faults(can_kill=True, replaces_workers=True, sees_starts=True),
        retry=ONCE,
        task_seconds=None,
        return_exceptions=False,
        call_seconds=None,
        replaces=False,
    )


def check_makespan(cluster: Cluster) -> None:
    """Check that a call of `make_plain_cluster`, which is over, took little longer than a greedy schedule."""
    conditions, settings = cluster.conditions, cluster.world.settings
    seconds = conditions.task_seconds[0]
    greedy = math.ceil(settings.n_tasks / settings.n_jobs) * seconds
    most = greedy + SLACK_ROUND_TRIPS * 2 * conditions.latency_seconds
    took = cluster.clock.now
    assert took <= most, f"the call took {took:.4f} s, a greedy schedule {greedy:.4f} s: its last batches are too long"
