"""The ways in which contenders are given work: each gives the list of results, in the order of the items.

Where each task could be another function (`delayed`, `submit`, `imap` of calls), tasks travel one by one, or as the
library itself decides; where one function is mapped, the library may cut the items into chunks, and those that want to
be told how large are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.tasks import call
from parallel import delayed

__all__ = [
    "delayed_tasks",
    "executor_map",
    "executor_map_chunks",
    "executor_submit",
    "joblib_tasks",
    "mpire_apply",
    "mpire_map",
    "parallel_map",
    "pebble_map",
    "pebble_schedule",
    "pool_apply",
    "pool_calls",
    "pool_imap",
    "pool_map",
]

Function = Callable[..., Any]
Items = Iterable[Any]


def delayed_tasks(parallel: Any, function: Function, items: Items) -> Any:
    return parallel(delayed(function)(item) for item in items)


def parallel_map(parallel: Any, function: Function, items: Items) -> Any:
    return parallel.map(function, items)


def joblib_tasks(parallel: Any, function: Function, items: Items) -> Any:
    import joblib

    task = joblib.delayed  # looked up once, as it is by whoever has imported the name
    return parallel(task(function)(item) for item in items)


def executor_submit(executor: Any, function: Function, items: Items) -> list[Any]:
    return [future.result() for future in [executor.submit(function, item) for item in items]]


def executor_map(executor: Any, function: Function, items: Items) -> list[Any]:
    return list(executor.map(function, items))


def executor_map_chunks(executor: Any, function: Function, items: Items) -> list[Any]:
    return list(executor.map(function, items, chunksize=500))


def pool_apply(pool: Any, function: Function, items: Items) -> list[Any]:
    return [pool.apply(function, (item,)) for item in items]


def pool_map(pool: Any, function: Function, items: Items) -> Any:
    return pool.map(function, items)


def pool_imap(pool: Any, function: Function, items: Items) -> list[Any]:
    return list(pool.imap(function, items))


def pool_calls(pool: Any, function: Function, items: Items) -> list[Any]:
    return list(pool.imap(call, ((function, (item,)) for item in items)))


def mpire_apply(pool: Any, function: Function, items: Items) -> list[Any]:
    return [pool.apply(function, args=(item,)) for item in items]


def mpire_map(pool: Any, function: Function, items: Items) -> Any:
    return pool.map(function, items, concatenate_numpy_output=False)


def pebble_schedule(pool: Any, function: Function, items: Items) -> list[Any]:
    return [future.result() for future in [pool.schedule(function, args=(item,)) for item in items]]


def pebble_map(pool: Any, function: Function, items: Items) -> list[Any]:
    return list(pool.map(function, items).result())
