"""What the scheduler wants done; the driver does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parallel._task import Batch

__all__ = ["Action", "Deliver", "Fail", "Finish", "GiveUp", "Kill", "Look", "Submit"]


@dataclass(slots=True)
class Submit:
    """Give this batch to the backend."""

    batch: Batch


@dataclass(slots=True)
class Deliver:
    """Hand these results to the consumer: those of tasks `start` and following, from one batch."""

    start: int
    values: list[Any]


@dataclass(slots=True)
class Look:
    """See what the worker of this batch runs since when, and tell by `on_look`."""

    batch_id: int


@dataclass(slots=True)
class Kill:
    """End the worker of this batch; tell by `on_lost` when that is done, as for any loss."""

    batch_id: int


@dataclass(slots=True)
class GiveUp:
    """Leave the worker of this batch, which cannot be killed, to itself; tell by `on_given_up` what can be saved."""

    batch_id: int


@dataclass(slots=True)
class Fail:
    """Stop everything that is in flight and raise this error, after what was delivered."""

    error: BaseException


@dataclass(slots=True)
class Finish:
    """All is delivered, or the call was closed: give the workers back."""

    #: Whether something may still be running.
    abort: bool = False


Action = Submit | Deliver | Look | Kill | GiveUp | Fail | Finish
