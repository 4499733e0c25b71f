"""What tasks are in a simulation, and what becomes of them.

Nothing runs: task ``i`` is `task(i)`, and its result is `result(i)`.
"""

from __future__ import annotations

from typing import Any

from parallel._limits import Limits
from parallel.errors import ParallelError


def task(index: int) -> tuple[str, int]:
    return "task", index


def result(index: int) -> tuple[str, int]:
    return "result", index


class TaskError(Exception):
    """What the tasks of the simulation raise."""


class _EngineError(ParallelError):
    """What the engine counts the attempts of, which a task's own exception has no place for."""

    def __init__(self, *facts: Any) -> None:
        Exception.__init__(self, *facts)


class LostError(_EngineError):
    """What becomes of the tasks of a worker that ended."""


class LateError(_EngineError):
    """What becomes of a task that passed its limit: (index, seconds)."""


class CallLateError(Exception):
    """What becomes of a call that passed its limit: (seconds,)."""


def limits(task_seconds: float | None = None, call_seconds: float | None = None) -> Limits:
    return Limits(
        task_seconds,
        call_seconds,
        lambda batch, position, ran_seconds: LateError(batch.start + position, ran_seconds),
        lambda ran_seconds: CallLateError(ran_seconds),
    )


def is_same(value: Any, expected: Any) -> bool:
    if isinstance(expected, LateError):  # made by the scheduler
        return isinstance(value, LateError) and value.args[0] == expected.args[0]
    return value is expected if isinstance(expected, BaseException) else bool(value == expected)
