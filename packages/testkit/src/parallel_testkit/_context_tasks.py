"""The tasks of the suite that look at their context. Light: no pytest here."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from parallel import Parallel, current_task, delayed, effective_n_jobs
from parallel.hookspecs import hookimpl

__all__ = ["COLOUR", "MOOD", "Moody", "OddWarning"]

#: What the tests carry along.
COLOUR: ContextVar[str] = ContextVar("colour", default="none")

#: What a plugin carries along.
MOOD: ContextVar[str] = ContextVar("mood", default="calm")


class OddWarning(UserWarning):
    """A category of warnings that nobody else uses."""


class Moody:
    """A plugin."""

    @hookimpl
    def parallel_capture_context(self) -> str:
        return MOOD.get() * 2

    @hookimpl
    def parallel_restore_context(self, state: str) -> Any:
        return self._moody(state)

    @contextlib.contextmanager
    def _moody(self, state: str) -> Iterator[None]:
        token = MOOD.set(state)
        try:
            yield
        finally:
            MOOD.reset(token)


def colour(_: Any = None) -> str:
    return COLOUR.get()


def mood(_: Any = None) -> str:
    return MOOD.get()


def recolour(number: int) -> str:
    """Give what was there before it is changed: what another task has set must not be seen."""
    before = COLOUR.get()
    COLOUR.set(f"of task {number}")
    return before


def warn(number: int) -> int:
    warnings.warn("odd", OddWarning, stacklevel=1)
    return number


def warn_of(number: int) -> int:
    warnings.warn(f"odd number {number}", OddWarning, stacklevel=1)
    return number


def log(name: str, number: int) -> int:
    logger = logging.getLogger(name)
    logger.debug("begin %d", number)
    logger.info("middle %d", number, extra={"shape": (number, 2)})
    try:
        raise LookupError(number)
    except LookupError:
        logger.exception("end %d", number)
    return number


def place(_: Any = None) -> tuple[int, int, int]:
    task = current_task()
    return task.index, task.attempt, task.worker


def attempt(failures: int, _: Any = None) -> int:
    found = current_task().attempt
    if found <= failures:
        raise LookupError(found)
    return found


def draw(_: Any = None) -> float:
    return float(current_task().rng().random())


def share(_: Any = None) -> int:
    return effective_n_jobs(-1)


def inner_share(_: Any = None) -> list[int]:
    found: list[int] = Parallel(n_jobs=1)(delayed(share)() for _ in range(2))
    return found


def threads_of_libraries(_: Any = None) -> list[int]:
    """Use numpy, and give how many threads each library in this worker may have."""
    import numpy as np
    from threadpoolctl import threadpool_info

    matrix = np.ones((200, 200))
    matrix @ matrix
    return [library["num_threads"] for library in threadpool_info()]
