"""The tasks of the suite: in a module that every worker can import. Light: no pytest here."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from parallel import Parallel, delayed, effective_n_jobs
from parallel_testkit._signals import Gate, Mailbox, Tally

__all__ = [
    "EXITS",
    "Adder",
    "CountsPickling",
    "HoldsLock",
    "Refuses",
    "ThreeArguments",
    "Tracked",
    "add",
    "announce_and_wait",
    "count_and_return",
    "count_from",
    "default_workers",
    "environment",
    "fail",
    "fail_at",
    "fail_with_lock",
    "fail_with_three_arguments",
    "give_lock",
    "nested",
    "nested_failure",
    "noop",
    "process_id",
    "raise_exit",
    "read_length",
    "square",
    "wait_for",
    "zeros",
]

EXITS: dict[str, type[BaseException]] = {
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
}


def noop(value: Any = None) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def add(left: int, right: int = 0, *more: int) -> int:
    return left + right + sum(more)


def process_id(_: Any = None) -> int:
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def zeros(count: int) -> bytes:
    return bytes(count)


def read_length(data: bytes) -> int:
    return len(data)


# -- what fails --------------------------------------------------------------------------------------------------------


def fail(message: str) -> None:
    raise LookupError(message)


def fail_at(bad: int, number: int) -> int:
    if number == bad:
        raise LookupError(f"bad number {number}")
    return number


class ThreeArguments(Exception):  # noqa: N818 - what it stands for is in its name
    """Cannot be unpickled the usual way: its class wants three arguments, `args` has one."""

    def __init__(self, what: str, where: str, code: int) -> None:
        super().__init__(f"{what} in {where}")
        self.what = what
        self.where = where
        self.code = code


def fail_with_three_arguments() -> None:
    raise ThreeArguments("smoke", "the kitchen", 7)


class HoldsLock(Exception):  # noqa: N818 - what it stands for is in its name
    """Has an attribute that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


def fail_with_lock(message: str) -> None:
    raise HoldsLock(message)


def raise_exit(name: str) -> None:
    raise EXITS[name]("from a task")


def give_lock() -> dict[str, Any]:
    return {"model": [1, threading.Lock()]}


class Refuses:
    """Can be pickled, and refuses to be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("this object refuses to be unpickled")


class Tracked:
    """Tells how many of it there are in this process."""

    _alive: ClassVar[weakref.WeakSet[Tracked]] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.number = number
        self._alive.add(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return Tracked, (self.number,)

    @classmethod
    def n_alive(cls, _: Any = None) -> int:
        return len(cls._alive)


def track(bad: int, number: int) -> Tracked:
    return Tracked(fail_at(bad, number))


def fail_with(tracked: Tracked) -> None:
    gc.disable()
    raise LookupError(str(tracked.number))


def collect_again(_: Any = None) -> None:
    gc.enable()


# -- what waits, and what tells ----------------------------------------------------------------------------------------


def wait_for(gate: Gate, value: Any = None) -> Any:
    gate.wait()
    return value


def announce_and_wait(mailbox: Mailbox, gate: Gate, value: Any, data: bytes = b"") -> Any:
    mailbox.send(value)
    gate.wait()
    return value


def count_and_return(tally: Tally, value: Any) -> Any:
    tally.add()
    return value


# -- objects with methods, and calls inside tasks ----------------------------------------------------------------------


class Adder:
    """Has a method, and a callable instance."""

    def __init__(self, summand: int) -> None:
        self.summand = summand

    def add(self, number: int) -> int:
        return number + self.summand

    def __call__(self, number: int) -> int:
        return number + self.summand


def default_workers(_: Any = None) -> int:
    return effective_n_jobs(None)


def nested(width: int, depth: int) -> int:
    """Run a tree of calls and give the number of its leaves."""
    if depth == 0:
        return 1
    counts = Parallel(n_jobs=_inner_workers())(delayed(nested)(width, depth - 1) for _ in range(width))
    return int(sum(counts))


def nested_failure() -> list[Any]:
    results: list[Any] = Parallel(n_jobs=_inner_workers())(delayed(fail_at)(1, i) for i in range(3))
    return results


def _inner_workers() -> int:
    """Two, where a backend is installed that has workers for calls inside tasks."""
    return effective_n_jobs(2)


def count_from(data: bytes, number: int) -> int:
    return len(data) + number


class CountsPickling:
    """A function that counts how often it is pickled."""

    def __init__(self) -> None:
        self.n_pickled = 0

    def __getstate__(self) -> dict[str, int]:
        self.n_pickled += 1
        return {"n_pickled": 0}

    def __call__(self, value: Any) -> Any:
        return value
