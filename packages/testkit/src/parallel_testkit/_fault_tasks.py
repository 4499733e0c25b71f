"""Tasks that run too long, fail, or end their worker: in a module that every worker can import. No pytest here."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from parallel_testkit._signals import Gate, Mailbox, Tally

__all__ = [
    "ENDS",
    "Unreadable",
    "end_worker",
    "end_worker_at",
    "end_worker_at_first",
    "exit_at",
    "fail_at_any",
    "fail_until",
    "give_lock_at",
    "give_unreadable_at",
    "occupy",
    "tell_process_and_wait",
    "wait_at",
    "wait_at_first",
]

# -- that wait ---------------------------------------------------------------------------------------------------------


def wait_at(gate: Gate, slow: Collection[int], number: int) -> int:
    """Wait at a gate where the number is one of the slow ones."""
    if number in slow:
        gate.wait()
    return number


def wait_at_first(gate: Gate, mark: str, slow: int, number: int) -> int:
    """Wait at a gate at the first attempt, which the file `mark` tells from a second one."""
    if number == slow and not _was_here(mark):
        gate.wait()
    return number


def tell_process_and_wait(mailbox: Mailbox, gate: Gate) -> None:
    mailbox.send(os.getpid())
    gate.wait()


def occupy(seconds: float, value: Any = None) -> Any:
    """Keep a worker busy for a while."""
    threading.Event().wait(seconds)
    return value


# -- that fail ---------------------------------------------------------------------------------------------------------


def fail_at_any(bad: Collection[int], number: int) -> int:
    if number in bad:
        raise LookupError(f"bad number {number}")
    return number


def exit_at(kind: type[BaseException], bad: int, number: int) -> int:
    if number == bad:
        raise kind("from a task")
    return number


def fail_until(folder: str, attempt: int, number: int) -> int:
    """Fail until the given attempt, and count them in a file of the folder."""
    tally = Tally(f"{folder}/attempts-{number}")
    tally.add()
    if tally.count() < attempt:
        raise LookupError(f"number {number}, attempt {tally.count()}")
    return number


# -- that end their worker ---------------------------------------------------------------------------------------------


def _exit() -> None:
    os._exit(3)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    faulthandler.disable()  # it is meant
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:
        pass
    ctypes.string_at(0)


#: Name to what ends the process.
ENDS: dict[str, Callable[[], None]] = {"exit": _exit, "kill": _kill, "segfault": _segfault}


def end_worker(how: str) -> None:
    ENDS[how]()


def end_worker_at(how: str, bad: int, number: int) -> int:
    if number == bad:
        ENDS[how]()
    return number


def end_worker_at_first(how: str, mark: str, bad: int, number: int) -> int:
    """End the worker at the first attempt, which the file `mark` tells from a second one."""
    if number == bad and not _was_here(mark):
        ENDS[how]()
    return number


# -- whose results cannot travel ---------------------------------------------------------------------------------------


class Unreadable:
    """Can be pickled; unpickling it raises ValueError."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("x",)


def give_unreadable_at(bad: Collection[int], number: int) -> Any:
    return Unreadable() if number in bad else number


def give_lock_at(bad: Collection[int], number: int) -> Any:
    return threading.Lock() if number in bad else number


def _was_here(mark: str) -> bool:
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False
