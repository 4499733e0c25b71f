"""Tasks of test_sharing.py: importable where pytest is not."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def give(value: Any) -> Any:
    return value


def flags_of(array: Any) -> tuple[Any, ...]:
    """Describe an array but for whether it can be written."""
    flags = array.flags
    return type(array).__name__, array.dtype.str, array.shape, flags.c_contiguous, flags.f_contiguous, array.tobytes()


def is_writable(array: Any) -> bool:
    return bool(array.flags.writeable)


def see(value: Any) -> tuple[Any, bool]:
    """Give a value back, and whether it could be written."""
    return value, is_writable(value)


def first(array: Any, *_: Any) -> float:
    return float(array[0])


def ends(array: Any) -> tuple[float, float, float]:
    return float(array[0]), float(array[len(array) // 2]), float(array[-1])


def add(array: Any, number: float) -> Any:
    return array + number


def make(n_bytes: int, number: float) -> Any:
    import numpy as np

    return np.full(n_bytes // 8, number)


def count_up(array: Any) -> float:
    """Change an array in place."""
    array[0] += 1
    return float(array[0])


def kill_once(marker: str, array: Any, number: int) -> Any:
    """End the worker in the middle of task 3, the first time."""
    if number == 3 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return array + number


def hang_at(at: int, array: Any, number: int) -> Any:
    if number == at:
        time.sleep(1000)
    return array + number


def fail_at(at: int, array: Any, number: int) -> Any:
    if number == at:
        raise ZeroDivisionError(number)
    return array + number


def held(*_: Any) -> tuple[int, int, int]:
    """Give this process, its open descriptors and how many pieces of shared data it has mapped."""
    with open("/proc/self/maps") as lines:
        n_mapped = sum("parallel-data" in line or "parallel-results" in line for line in lines)
    return os.getpid(), len(os.listdir("/proc/self/fd")), n_mapped


def modes_below(folder: str, *_: Any) -> list[tuple[bool, int]]:
    """Give what is in a folder and below: whether it is a folder, and its mode."""
    found = []
    for path, folders, files in os.walk(folder):
        for names, is_folder in ((folders, True), (files, False)):
            found += [(is_folder, os.stat(os.path.join(path, name)).st_mode & 0o777) for name in names]
    return found


def describe_frame(holder: dict[str, Any]) -> tuple[Any, ...]:
    frame = holder["frame"]
    return frame.shape, [str(dtype) for dtype in frame.dtypes], frame.to_dict("list")


def describe_table(table: Any) -> tuple[str, Any]:
    return str(table.schema), table.to_pydict()


class Model:
    """A function that brings large data along."""

    def __init__(self, weights: Any, text: Any) -> None:
        self.weights = weights
        self.text = text

    def __call__(self, number: int) -> tuple[float, int]:
        return float(self.weights[number]), len(self.text)
