"""`current_task`: what a task may know of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CURRENT", "CurrentTask", "Place", "current_task"]


class Place:
    """Where in its call a batch runs; which of its tasks runs is told by how many results there are.

    Parameters
    ----------
    start
        Index of the first task.
    done
        The results so far.
    attempts
        Attempts that have failed, by index, of those tasks that have any.
    worker, backend, seed
        As `CurrentTask` has them.
    """

    __slots__ = ("attempts", "backend", "done", "outer", "seed", "start", "worker")

    def __init__(
        self, start: int, done: Sized, attempts: Mapping[int, int] | None, worker: int, backend: str, seed: Any
    ) -> None:
        #: What counts while this one does not, because its `start` is less than 0.
        self.outer: Place | None = None
        self.start = start
        self.done = done
        self.attempts = attempts
        self.worker = worker
        self.backend = backend
        self.seed = seed

    @property
    def index(self) -> int:
        """The task that runs."""
        return self.start + len(self.done)


#: The innermost batch whose tasks run here.
CURRENT: ContextVar[Place | None] = ContextVar("parallel_current", default=None)


class CurrentTask:
    """The task that runs here; made by `current_task`.

    Attributes
    ----------
    index : int
        Its place in the input, from 0.
    attempt : int
        1 for the first time it runs, 2 for its first retry, and so on.
    worker : int
        Number of its worker, 0 to n_jobs - 1: no two tasks that run at a time have the same.
    backend : str
        Name of the backend; "sequential" for a call that runs in its caller.
    seed
        Of the call; None if it has none.
    """

    __slots__ = ("attempt", "backend", "index", "seed", "worker")

    def __init__(self, index: int, attempt: int, worker: int, backend: str, seed: Any = None) -> None:
        self.index = index
        self.attempt = attempt
        self.worker = worker
        self.backend = backend
        self.seed = seed

    def _values(self) -> tuple[Any, ...]:
        return self.index, self.attempt, self.worker, self.backend, self.seed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CurrentTask) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        place = f"index={self.index}, attempt={self.attempt}, worker={self.worker}, backend={self.backend!r}"
        return f"CurrentTask({place})"

    def rng(self, seed: int | Sequence[int] | np.random.SeedSequence | None = None) -> np.random.Generator:
        """Give a generator of random numbers that is this task's own.

        It depends on the seed and the index of the task, and on nothing else: not on n_jobs, the backend, the batches
        or the attempt. Those of different tasks are independent: the task's is child number `index` of the SeedSequence
        (https://numpy.org/doc/stable/reference/random/parallel.html).

        Parameters
        ----------
        seed : int, sequence of int or numpy.random.SeedSequence, optional
            None: the call's ``Parallel(seed=...)``; without that, one that nobody can foresee.

        Raises
        ------
        ModuleNotFoundError
            If numpy is not installed.
        """
        import numpy as np

        given = seed if seed is not None else self.seed
        parent = given if isinstance(given, np.random.SeedSequence) else np.random.SeedSequence(given)
        own = np.random.SeedSequence(
            parent.entropy, spawn_key=(*parent.spawn_key, self.index), pool_size=parent.pool_size
        )
        return np.random.default_rng(own)


def current_task() -> CurrentTask:
    """Tell a task of a call which one it is.

    Called in the task itself, or in a thread that has a copy of its context.

    Returns
    -------
    CurrentTask
        Of the innermost call, as it is now.

    Raises
    ------
    RuntimeError
        If there is no task here.
    """
    place = CURRENT.get()
    while place is not None and place.start < 0:
        place = place.outer
    if place is None:
        raise RuntimeError("current_task() is for code that runs inside a task of a Parallel call")
    index = place.index
    failed = place.attempts.get(index, 0) if place.attempts else 0
    return CurrentTask(index, failed + 1, place.worker, place.backend, place.seed)
