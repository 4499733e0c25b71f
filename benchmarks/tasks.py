"""What the contenders run. In a module of its own, so that a worker process imports this and nothing else."""

from __future__ import annotations

import os
import threading
import time
from typing import Any


def noop(_: object) -> object:
    """Do nothing. A value that is None keeps what results weigh out of it."""
    return None


def nap(seconds: float) -> float:
    """Sleep, and tell for how long that really was. No sleep at all for 0."""
    if not seconds:
        return 0.0
    begin = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begin


def introduce(seconds: float) -> tuple[int, int]:
    """Sleep, and tell which process and thread that was."""
    time.sleep(seconds)
    return os.getpid(), threading.get_ident()


def make_list(length: int) -> list[int]:
    return list(range(length))


def make_array(number: int) -> Any:
    """Give an array of 10 MB that is full of `number`."""
    import numpy as np

    return np.full((10 << 20) // 8, float(number))


def call(task: tuple[Any, tuple[Any, ...]]) -> Any:
    """Run a task that came as (function, arguments), for pools whose `imap` takes one function for all."""
    function, args = task
    return function(*args)
