"""The language of programs: blocks of calls of tasks, some of which are blocks again.

A program says what to do and nothing of what comes out: that is for `evaluate` (plain loops) and `run` (`parallel`).
Workers import this, so there is no hypothesis here: `drawing` has that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Array",
    "Block",
    "Call",
    "Flaky",
    "Give",
    "Lock",
    "Look",
    "Nested",
    "Raise",
    "Settings",
    "Stop",
    "Task",
    "Unreadable",
    "backends_of",
    "walk",
]

# -- tasks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Give:
    """Give a number."""

    number: int


@dataclass(frozen=True)
class Raise:
    """Raise an exception, of a kind that `run.FAILURES` knows."""

    kind: str


@dataclass(frozen=True)
class Flaky:
    """Fail before the given attempt, succeed from then on."""

    until: int


@dataclass(frozen=True)
class Lock:
    """Give what cannot be pickled."""


@dataclass(frozen=True)
class Unreadable:
    """Give what can be pickled and not be unpickled."""


@dataclass(frozen=True)
class Array:
    """Get an array and give its sum or itself ("same"), or get none and give a new one ("made")."""

    size: int
    gives: str


@dataclass(frozen=True)
class Look:
    """Give what a context variable of the caller holds."""


@dataclass(frozen=True)
class Nested:
    """Run a block, and give what came of it; or let its first failure through."""

    block: Block
    lets_through: bool


Task: TypeAlias = Give | Raise | Flaky | Lock | Unreadable | Array | Look | Nested


# -- calls -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stop:
    """Leave a generator after so many results: "close" it, "drop" it, or "raise" in its loop."""

    after: int
    how: str


@dataclass(frozen=True)
class Call:
    """One use of a `Parallel`."""

    tasks: tuple[Task, ...]
    #: "delayed", "map" (one iterable of items), "zip" (one iterable for each argument) or "starmap".
    form: str
    #: Whether the input is a list; else it is a plain generator.
    is_sized: bool
    #: The generator raises in the place of this task.
    input_fails_at: int | None
    #: Only for generators of results.
    stop: Stop | None

    @property
    def read(self) -> tuple[Task, ...]:
        """The tasks that can be read."""
        return self.tasks[: self.input_fails_at]


@dataclass(frozen=True)
class Settings:
    """How a block makes its `Parallel`; None leaves a setting out."""

    backend: str | None
    n_jobs: int | None
    return_as: str
    batch_size: int | str | None
    pre_dispatch: int | str | None
    retries: int
    return_exceptions: bool
    max_nbytes: int | None
    #: Names of those that are given by `parallel_config`; the others are arguments.
    in_config: frozenset[str]

    @property
    def runs_in_caller(self) -> bool:
        """Whether it is known that tasks run one after the other, each when it is asked for."""
        return self.n_jobs == 1 or self.backend == "sequential"

    @property
    def crosses_processes(self) -> bool | None:
        """Whether results travel to another process; None where that is a default's affair."""
        if self.runs_in_caller or self.backend in ("threads", "futures"):
            return False
        # With -1 there may be one worker, which is none.
        return None if self.backend is None or self.n_jobs in (None, -1) else True


@dataclass(frozen=True)
class Block:
    """Calls of one `Parallel`: in a with block of it, or not."""

    settings: Settings
    calls: tuple[Call, ...]
    is_with: bool


def walk(block: Block) -> list[Call]:
    """Give all calls of a program."""
    found = []
    for call in block.calls:
        found.append(call)
        for task in call.tasks:
            if isinstance(task, Nested):
                found += walk(task.block)
    return found


def backends_of(block: Block) -> set[str | None]:
    """Give the backends that a program names."""
    found = {block.settings.backend}
    for call in block.calls:
        for task in call.tasks:
            if isinstance(task, Nested):
                found |= backends_of(task.block)
    return found
