"""Tasks that do what tasks should not do, and what is expected of each; light, because workers import it."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from parallel.errors import ResultPicklingError, TaskExit, WorkerLostError


class ThreeArguments(Exception):  # noqa: N818 - what it stands for is in its name
    """Cannot be unpickled the usual way: its class wants three arguments, `args` has one."""

    def __init__(self, what: str, where: str, code: int) -> None:
        super().__init__(f"{what} in {where}: {code}")


class HoldsLock(Exception):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("holds a lock", threading.Lock())
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    """Takes no attribute, and so neither a note nor a cause."""

    code: int


class Unsettable(Exception):  # noqa: N818
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise RuntimeError(f"{name} of this exception cannot be set")


class WithoutNotes(Exception):  # noqa: N818
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.__notes__ = None  # type: ignore[assignment]


class ExitWithoutNotes(SystemExit):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.__notes__ = None  # type: ignore[assignment]


class Unreadable:
    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("x",)


class ExitsWhenPickled:
    def __reduce__(self) -> NoReturn:
        raise SystemExit("while it was pickled")


def give_lock() -> Any:
    return threading.Lock()


def raise_three_arguments() -> None:
    raise ThreeArguments("smoke", "the kitchen", 7)


def raise_with_lock() -> None:
    raise HoldsLock


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def raise_huge() -> None:
    raise ValueError("x" * 5_000_000)


def leave() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt("from a task")


def end_at_once() -> None:
    os._exit(7)


def close_everything() -> None:
    os.closerange(3, 256)


def give_deep() -> Any:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def raise_unprintable() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise UnprintableError


def raise_frozen() -> None:
    raise Frozen(7)


def raise_unsettable() -> None:
    raise Unsettable("as it is")


def raise_without_notes() -> None:
    raise WithoutNotes("without notes")


def exit_without_notes() -> None:
    raise ExitWithoutNotes(7)


#: What raises an exception that refuses notes or attributes to its class, its arguments and the class that is raised in
#: the caller.
REFUSING: dict[Callable[[], None], tuple[type[BaseException], tuple[object, ...], type[BaseException]]] = {
    raise_frozen: (Frozen, (7,), Frozen),
    raise_unsettable: (Unsettable, ("as it is",), Unsettable),
    raise_without_notes: (WithoutNotes, ("without notes",), WithoutNotes),
    exit_without_notes: (ExitWithoutNotes, (7,), TaskExit),
}

#: What a task does to the class of the error that it costs.
HOSTILE: dict[Callable[[], Any], type[BaseException]] = {
    give_lock: ResultPicklingError,
    raise_three_arguments: ThreeArguments,
    raise_with_lock: HoldsLock,
    recurse: RecursionError,
    raise_huge: ValueError,
    leave: SystemExit,
    end_at_once: WorkerLostError,
    close_everything: WorkerLostError,
    Unreadable: ResultPicklingError,
    ExitsWhenPickled: ResultPicklingError,
    give_deep: ResultPicklingError,
    interrupt: KeyboardInterrupt,
}


def do_nothing() -> None:
    """Prepare nothing."""


def use_up_descriptors(number: int) -> int:
    if number == 4:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return number


class Raising:
    """Raises when it is unpickled."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return _raise, (self.kind,)


def _raise(kind: type[BaseException]) -> None:
    raise kind("when it was unpickled")


def give_raising(kind: type[BaseException] | None) -> Raising | None:
    return Raising(kind) if kind is not None else None


def leave_at_first(mark: str) -> bool:
    try:
        open(mark, "x").close()
    except FileExistsError:
        return True
    sys.exit("not yet")


def kill_worker_at(bad: int, number: int) -> int:
    if number == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def work(number: int) -> int:
    """Take 3 ms."""
    threading.Event().wait(0.003)
    return number * number


def fail_to_start() -> None:
    raise ZeroDivisionError("in the initializer")


class NotThere:
    """An initializer that cannot even be unpickled in the worker."""

    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return __import__, ("a_module_that_is_not_there",)
