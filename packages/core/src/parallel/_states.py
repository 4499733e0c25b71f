"""Where a call is, and what its backend does about faults. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["TERMINAL", "Faults", "State"]


class State(enum.Enum):
    """Where a call is."""

    #: The input may have more.
    FEEDING = "feeding"
    #: The input is exhausted; tasks are still to be run.
    DRAINING = "draining"
    #: All results were delivered. Terminal.
    FINISHED = "finished"
    #: An error ended the call. Terminal.
    FAILED = "failed"
    #: The consumer wants no more. Terminal.
    CLOSED = "closed"


TERMINAL = frozenset({State.FINISHED, State.FAILED, State.CLOSED})


class Faults(NamedTuple):
    """What a backend does about faults; see the capabilities of `ParallelBackendBase`.

    Attributes
    ----------
    can_kill
        Whether the worker of a batch can be ended.
    replaces_workers
        Whether a worker that ended is replaced; else the loss of one ends the call.
    loses_all
        Whether the loss of one worker loses what all of them hold.
    sees_starts
        Whether the driver can tell what a worker runs since when; else a limit counts from the submission, and
        batches must be of one task.
    """

    can_kill: bool = False
    replaces_workers: bool = False
    loses_all: bool = False
    sees_starts: bool = False

    def blind(self) -> Faults:
        """Give the same, where it has turned out that starts cannot be seen."""
        return self._replace(sees_starts=False)
