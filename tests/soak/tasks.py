"""What the tasks of the calls do; light, because workers import it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from parallel import Parallel
from parallel_testkit import Gate

__all__ = [
    "end_worker_at",
    "fail_at",
    "fail_until",
    "give_lock_at",
    "interrupt_and_wait",
    "look_up",
    "nested",
    "noisy",
    "process_id",
    "sleep_at",
    "square",
    "twice",
]


def process_id(_: int) -> int:
    return os.getpid()


def square(number: int) -> int:
    return number * number


def twice(array: Any) -> Any:
    return array * 2


def look_up(table: Any, number: int) -> float:
    return float(table[number])


def fail_at(bad: set[int], number: int) -> int:
    if number in bad:
        raise LookupError(f"bad number {number}")
    return number


def fail_until(folder: str, attempt: int, number: int) -> int:
    """Fail until the given attempt; a file counts them."""
    path = Path(folder, f"attempts-{number}")
    with path.open("a") as file:
        file.write(".")
    if path.stat().st_size < attempt:
        raise LookupError(f"number {number}")
    return number


def end_worker_at(how: str, bad: int, mark: str | None, number: int) -> int:
    """End the worker; with the name of a file as `mark`, only the first time."""
    if number == bad:
        try:
            if mark is not None:
                Path(mark).touch(exist_ok=False)
        except FileExistsError:
            return number
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep_at(slow: int, seconds: float, number: int) -> int:
    if number == slow:
        threading.Event().wait(seconds)
    return number


def give_lock_at(bad: int, number: int) -> Any:
    return threading.Lock() if number == bad else number


def noisy(number: int) -> int:
    import logging
    import warnings

    logging.getLogger("tests.soak").warning("number %d", number)
    warnings.warn(f"number {number}", UserWarning, stacklevel=2)
    return number


def interrupt_and_wait(caller: int, gate: Gate, number: int) -> int:
    """Let the second task do to the caller what Ctrl-C does."""
    if number == 1:
        os.kill(caller, signal.SIGINT)
    gate.wait()
    return number


def nested(backend: str | None, count: int, number: int) -> int:
    # A fork server of a worker's own would leave its socket behind, in multiprocessing's folder, when that is killed.
    options: dict[str, Any] = {"start_method": "fork"} if backend == "mp" else {}
    return sum(Parallel(n_jobs=2, backend=backend, **options).map(square, range(number, number + count)))
