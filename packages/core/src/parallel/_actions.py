"""What the scheduler wants done; the driver does it.

Plain classes: making dataclasses of them takes most of a millisecond when they are imported.
"""

from __future__ import annotations

from typing import Any

from parallel._task import Batch

__all__ = ["Action", "Deliver", "Fail", "Finish", "GiveUp", "Kill", "Look", "Submit"]


class _Action:
    __slots__: tuple[str, ...] = ()
    __match_args__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        names = self.__match_args__
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({values})"


class _OfBatch(_Action):
    __slots__ = __match_args__ = ("batch_id",)

    def __init__(self, batch_id: int) -> None:
        self.batch_id = batch_id


class Submit(_Action):
    """Give this batch to the backend."""

    __slots__ = __match_args__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Deliver(_Action):
    """Hand these results to the consumer: those of tasks `start` and following, from one batch."""

    __slots__ = __match_args__ = ("start", "values")

    def __init__(self, start: int, values: list[Any]) -> None:
        self.start = start
        self.values = values


class Look(_OfBatch):
    """See what the worker of this batch runs since when, and tell by `on_look`."""

    __slots__ = ()


class Kill(_OfBatch):
    """End the worker of this batch; tell by `on_lost` when that is done, as for any loss."""

    __slots__ = ()


class GiveUp(_OfBatch):
    """Leave the worker of this batch, which cannot be killed, to itself; tell by `on_given_up` what can be saved."""

    __slots__ = ()


class Fail(_Action):
    """Stop everything that is in flight and raise this error, after what was delivered."""

    __slots__ = __match_args__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Finish(_Action):
    """All is delivered, or the call was closed: give the workers back."""

    __slots__ = __match_args__ = ("abort",)

    def __init__(self, abort: bool = False) -> None:
        #: Whether something may still be running.
        self.abort = abort


Action = Submit | Deliver | Look | Kill | GiveUp | Fail | Finish
