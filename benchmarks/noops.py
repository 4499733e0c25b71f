"""Rows of tasks that do nothing: what the library itself costs."""

from __future__ import annotations

from typing import Any

from benchmarks import styles
from benchmarks.contenders import other_backends
from benchmarks.entries import Style, ours, peer
from benchmarks.goals import AtMost, AtMostTimes, Goal, TimesFaster
from benchmarks.row import Entry, Row, alone
from benchmarks.tasks import noop

__all__ = ["rows"]

#: Long enough that the clock and one untimely switch of the kernel do not matter.
_SAMPLE_SECONDS = 0.02

#: A peer, how it is given tasks, and the label if that says more than the name.
_Peer = tuple[str, Style, str]

_ONE: dict[str, list[_Peer]] = {
    "mp": [
        ("ProcessPoolExecutor", styles.executor_submit, "ProcessPoolExecutor"),
        ("Pool", styles.pool_apply, "Pool.apply"),
        ("mpire", styles.mpire_apply, "mpire.apply"),
        ("pebble", styles.pebble_schedule, "pebble.schedule"),
    ],
    "loky": [("loky executor", styles.executor_submit, "loky executor")],
    "threads": [
        ("ThreadPoolExecutor", styles.executor_submit, "ThreadPoolExecutor"),
        ("ThreadPool", styles.pool_apply, "ThreadPool.apply"),
    ],
}

_MANY: dict[str, list[_Peer]] = {
    "mp": [("Pool", styles.pool_calls, "Pool.imap"), ("mpire", styles.mpire_map, "mpire.map")],
    "loky": [],
    "threads": [
        ("ThreadPoolExecutor", styles.executor_map, "ThreadPoolExecutor.map"),
        ("ThreadPool", styles.pool_calls, "ThreadPool.imap"),
    ],
}

#: These send tasks one by one. For more they take seconds, and are no measure any more.
_THOUSAND: dict[str, list[_Peer]] = {
    "mp": [
        *_MANY["mp"],
        ("ProcessPoolExecutor", styles.executor_map, "ProcessPoolExecutor.map"),
        ("pebble", styles.pebble_map, "pebble.map"),
    ],
    "loky": [("loky executor", styles.executor_map, "loky executor.map")],
    "threads": _MANY["threads"],
}

_OURS = {
    "mp": ["mp", "futures/processes", *other_backends()],
    "loky": ["loky"],
    "threads": ["threads", "futures/threads"],
}
_WHERE = {"mp": "processes", "loky": "loky", "threads": "threads"}


def rows(is_quick: bool) -> list[Row]:
    """Give them."""
    few, some = (3, 3) if is_quick else (15, 9)
    found = [
        _row("one", 1, kind, _ONE[kind], goals, few)
        for kind, goals in {
            "mp": (AtMost("mp", 0.15e-3), AtMostTimes("mp", 1.5, "ProcessPoolExecutor")),
            "loky": (AtMostTimes("loky", 1.5, "loky executor"),),
            "threads": (AtMostTimes("threads", 1.5, "ThreadPoolExecutor"),),
        }.items()
    ]
    found += [
        _row("thousand", 1_000, kind, _THOUSAND[kind], goals, some)
        for kind, goals in {
            "mp": (AtMost("mp", 2e-3),),
            "loky": (AtMost("loky", 3.5e-3),),
            "threads": (AtMost("threads", 1e-3),),
        }.items()
    ]
    found += [
        _row("many", 20_000, kind, _MANY[kind], goals, some)
        for kind, goals in {
            "mp": (AtMost("mp", 20e-3), TimesFaster("mp", 3.5, "joblib/mp")),
            "loky": (AtMost("loky", 26e-3), TimesFaster("loky", 2.2, "joblib/loky")),
            "threads": (AtMost("threads", 14e-3), TimesFaster("threads", 30, "joblib/threads")),
        }.items()
    ]
    return [*found, _in_caller(some), *(_map_row(count, some) for count in (1_000, 20_000))]


def _accepts(count: int) -> Any:
    return lambda results: results == [None] * count


def _row(name: str, count: int, kind: str, peers: list[_Peer], goals: tuple[Goal, ...], rounds: int) -> Row:
    items = range(count)
    base = f"joblib/{kind}"
    entries = [ours(backend, styles.delayed_tasks, noop, items) for backend in _OURS[kind]]
    entries.append(peer(base, styles.joblib_tasks, noop, items))
    entries += [peer(contender, style, noop, items, label=label) for contender, style, label in peers]
    return Row(
        f"{name}-{kind}",
        f"{count:,} no-op task{'s' if count > 1 else ''}, {_WHERE[kind]}",
        tuple(entries),
        goals,
        base=base,
        rounds=rounds,
        sample_seconds=_SAMPLE_SECONDS,
        accepts=_accepts(count),
    )


def _in_caller(rounds: int) -> Row:
    items = range(20_000)
    return Row(
        "many-one-job",
        "20,000 no-op tasks, n_jobs=1",
        (
            ours("sequential", styles.delayed_tasks, noop, items, n_jobs=1),
            peer("joblib/sequential", styles.joblib_tasks, noop, items, n_jobs=1),
            Entry("list comprehension", alone(lambda: [noop(item) for item in items]), is_peer=True),
        ),
        (AtMost("sequential", 8e-3),),
        base="joblib/sequential",
        rounds=rounds,
        sample_seconds=_SAMPLE_SECONDS,
        accepts=_accepts(20_000),
    )


def _map_row(count: int, rounds: int) -> Row:
    items = range(count)
    return Row(
        f"map-{count}",
        f"map(noop, range({count:,})), no tuples made",
        (
            ours("mp", styles.parallel_map, noop, items),
            ours("loky", styles.parallel_map, noop, items),
            ours("threads", styles.parallel_map, noop, items),
            peer("Pool", styles.pool_map, noop, items, label="Pool.map"),
            peer(
                "ProcessPoolExecutor",
                styles.executor_map_chunks,
                noop,
                items,
                label="ProcessPoolExecutor.map(chunksize=500)",
            ),
            peer("loky executor", styles.executor_map_chunks, noop, items, label="loky executor.map(chunksize=500)"),
            peer("mpire", styles.mpire_map, noop, items, label="mpire.map"),
        ),
        (AtMostTimes("mp", 1.2, "Pool.map"),),
        base="Pool.map",
        rounds=rounds,
        sample_seconds=_SAMPLE_SECONDS,
        accepts=_accepts(count),
    )
