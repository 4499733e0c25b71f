"""Tasks of the tests about joblib's behaviour: importable where pytest is not."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

from parallel import Parallel, delayed, effective_n_jobs
from parallel_testkit import Gate, Mailbox

Place = tuple[int, int]


def place(_: Any = None) -> Place:
    """Give the process and the thread."""
    return os.getpid(), threading.get_ident()


def tell_place_and_wait(mailbox: Mailbox, gate: Gate) -> Place:
    mailbox.send("here")
    gate.wait()
    return place()


def default_n_jobs(_: Any = None) -> tuple[int, int]:
    return Parallel().n_jobs, effective_n_jobs(None)


def backends_inside(depth: int) -> list[str]:
    """Give the kinds of backend that the calls of each level get, that of this task's own call first."""
    parallel = Parallel(n_jobs=2)
    names = [type(parallel._backend).__name__]
    if depth > 1:
        names += parallel([delayed(backends_inside)(depth - 1)])[0]
    return names


def places_inside(_: Any = None) -> tuple[Place, list[Place], list[Place]]:
    """Give where this task, those of a call inside it and those of a call inside that one run."""
    inner = Parallel(n_jobs=2, batch_size=1)(delayed(places_one_deeper)() for _ in range(4))
    deeper = [there for outer, places in inner for there in places if there != outer]
    return place(), [outer for outer, _ in inner], deeper


def places_one_deeper() -> tuple[Place, list[Place]]:
    return place(), Parallel(n_jobs=2)(delayed(place)() for _ in range(4))


def call_and_collect_warnings(backend: str) -> tuple[list[int], list[str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        results = Parallel(n_jobs=2, backend=backend)(delayed(os.getpid)() for _ in range(3))
    return [pid - os.getpid() for pid in results], [str(warning.message) for warning in seen]


def put_and_see(mailbox: Mailbox, gate: Gate, array: Any, position: int) -> list[float]:
    """Write into an array, wait until all others have, and give what is in it then."""
    array[position] = position + 1
    mailbox.send(position)
    gate.wait()
    return [float(value) for value in array[:2]]


def file_of(array: Any) -> str:
    """Give the file that an array says it is mapped from."""
    return str(array.filename)
