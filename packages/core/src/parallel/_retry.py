"""Whether a failed task runs again, and when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from parallel.errors import ParallelError, annotate

if TYPE_CHECKING:
    import random

__all__ = ["Attempts", "Retry"]


class _RetryFields(NamedTuple):
    attempts: int
    on: tuple[type[BaseException], ...]
    backoff_seconds: float
    jitter: float


class Retry(_RetryFields):
    """How often, on which failures and after which delay a task runs again.

    Parameters
    ----------
    attempts : int, default 3
        Most times a task runs, the first included. (``retries=2`` is short for ``Retry(attempts=3)``.)
    on : tuple of exception types, default (BaseException,)
        What to try again after: exceptions of tasks, SystemExit included, `TaskTimeoutError`, `WorkerLostError`.
    backoff_seconds : float, default 0
        Delay before the second attempt; doubled for each one after it. Workers run other tasks meanwhile.
    jitter : float, default 0
        Share of the delay, 0 to 1, by which it is varied at random, so that tasks that failed together do not come back
        together.

    Raises
    ------
    ValueError, TypeError
        If a value is out of range, or `on` holds something that is no exception type.
    """

    __slots__ = ()

    def __new__(
        cls,
        attempts: int = 3,
        on: type[BaseException] | tuple[type[BaseException], ...] = (BaseException,),
        backoff_seconds: float = 0.0,
        jitter: float = 0.0,
    ) -> Self:
        """Check the values."""
        number: Any = attempts
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"attempts must be an integer of at least 1, not {attempts!r}")
        kinds: Any = on if isinstance(on, tuple) else (on,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"on must hold exception types, not {kind!r}")
        if not backoff_seconds >= 0:
            raise ValueError(f"backoff_seconds must be at least 0, not {backoff_seconds!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, not {jitter!r}")
        return super().__new__(cls, attempts, kinds, backoff_seconds, jitter)

    def covers(self, error: BaseException) -> bool:
        """Tell whether a task may run again after this error."""
        return issubclass(type(error), self.on)  # not isinstance, which asks the object what it is

    def delay_seconds(self, attempts: int, generator: random.Random) -> float:
        """Give the delay after so many attempts that failed."""
        delay: float = self.backoff_seconds * 2 ** min(attempts - 1, 30)
        return delay * (1 + self.jitter * generator.uniform(-1, 1))


#: Without `retries`: every task once.
ONCE = Retry(attempts=1)


class Attempts:
    """Counts the attempts of tasks that have failed at least once."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self._counts: dict[int, int] = {}
        self._generator: random.Random | None = None

    def fail(self, index: int, error: BaseException) -> float | None:
        """Count a failed attempt; give the delay after which to try again, None if this failure stands.

        A failure that stands, and counts more than one attempt, says so in a note.
        """
        count = self._counts.get(index, 0) + 1
        if count < self.retry.attempts and self.retry.covers(error):
            self._counts[index] = count
            if self._generator is None:
                import random  # takes milliseconds, and most calls try nothing again

                # Only delays come from it, so its seed does not matter; fixed, so that a schedule can be run again.
                self._generator = random.Random(0)  # noqa: S311
            return self.retry.delay_seconds(count, self._generator)
        self._counts.pop(index, None)
        if issubclass(type(error), ParallelError):
            error.attempts = count  # type: ignore[attr-defined]
        if count > 1:
            annotate(error, f"this was attempt {count} of {self.retry.attempts}")
        return None

    def succeed(self, start: int, stop: int) -> None:
        """Forget the counts of tasks that are done."""
        for index in self._failed(start, stop):
            del self._counts[index]

    def attempts(self, index: int) -> int:
        """Tell how many attempts of a task have failed so far."""
        return self._counts.get(index, 0)

    def among(self, start: int, stop: int) -> dict[int, int] | None:
        """Give by index how many attempts have failed of those tasks that have any; None for none of them."""
        return {index: self._counts[index] for index in self._failed(start, stop)} or None

    def _failed(self, start: int, stop: int) -> Sequence[int]:
        """Give the tasks from `start` to before `stop` that have failed; asked for every batch, twice."""
        counts = self._counts
        if not counts:
            return ()
        if stop - start < len(counts):  # thousands may wait for another attempt, and batches be of one task
            return [index for index in range(start, stop) if index in counts]
        return [index for index in counts if start <= index < stop]
