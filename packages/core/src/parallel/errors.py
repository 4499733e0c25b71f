"""What parallel raises, as one tree.

::

    ParallelError
    ├── BackendError            (RuntimeError)  the infrastructure under a call failed
    │   ├── BackendContractError                a backend broke the contract of `parallel.backend`
    │   └── WorkerLostError                     a worker ended while it held tasks
    ├── BackendNotFoundError    (ValueError)    no installed distribution provides that backend
    ├── BackendConflictError    (ValueError)    two distributions provide that backend
    ├── TaskPicklingError       (PicklingError) a task cannot be sent to another process
    ├── ResultPicklingError     (PicklingError) a result or an exception cannot be sent back
    ├── TaskTimeoutError        (both TimeoutErrors) a task ran longer than its limit
    ├── CallTimeoutError        (both TimeoutErrors) a call ran longer than its limit
    └── TaskExit                                a task raised SystemExit, KeyboardInterrupt or GeneratorExit

    RemoteTraceback             the traceback of another process, as the cause of a task's own exception

A task's own exception is none of these: it comes through as itself.
"""

from __future__ import annotations

import contextlib
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

__all__ = [
    "BackendConflictError",
    "BackendContractError",
    "BackendError",
    "BackendNotFoundError",
    "CallTimeoutError",
    "ParallelError",
    "RemoteTraceback",
    "ResultPicklingError",
    "TaskExit",
    "TaskPicklingError",
    "TaskTimeoutError",
    "WorkerLostError",
]


class ParallelError(Exception):
    """Base class of everything that parallel itself raises.

    Facts are keyword arguments and become attributes, so that an error survives pickling as a whole (an outer call
    may bring the error of an inner one from another process).

    Attributes
    ----------
    attempts : int
        How often the task was tried, where the error is about a task.
    """

    attempts: int = 1

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    @property
    def message(self) -> str:
        """The first line of the error, without notes."""
        return str(self.args[0])


class BackendError(ParallelError, RuntimeError):
    """The infrastructure under a call failed: not a task, and not the user's input.

    Attributes
    ----------
    backend : str
        Name of the backend.
    task_indices : range
        Indices of the tasks that were in the batch concerned; empty when none was.
    """

    backend: str = ""
    task_indices: range = range(0)


class BackendContractError(BackendError):
    """A backend broke the contract of `parallel.backend`; the message says which part of it."""


class WorkerLostError(BackendError):
    """A worker ended while it held tasks.

    Attributes
    ----------
    exit_code : int or None
        What the process returned, where the backend could tell.
    signal : int or None
        The signal that killed it, where the backend could tell.
    is_deliberate : bool
        Whether the backend ended it because it was asked to, for the sake of another task: what the worker had besides
        runs again, whatever the settings of the call, and is no attempt.
    is_culprit_unclear : bool
        Whether the task that ran when the worker was found lost need not be the one to blame, because the worker went
        on for a while: all that it had begun is suspect then.
    """

    exit_code: int | None = None
    signal: int | None = None
    is_deliberate: bool = False
    is_culprit_unclear: bool = False


class BackendNotFoundError(ParallelError, ValueError):
    """No installed distribution provides the backend that was asked for.

    Attributes
    ----------
    name : str
        The name that was asked for.
    installed : tuple of str
        The names that could have been had.
    """

    name: str = ""
    installed: tuple[str, ...] = ()


class BackendConflictError(ParallelError, ValueError):
    """Two installed distributions provide one backend name.

    Attributes
    ----------
    name : str
        The name that was asked for.
    distributions : tuple of str
        The distributions that provide it.
    """

    name: str = ""
    distributions: tuple[str, ...] = ()


class TaskPicklingError(ParallelError, PicklingError):
    """A task cannot be sent to another process.

    Attributes
    ----------
    task_index : int
        Position of the task in the input, from 0.
    path : str
        Where in the task the culprit is, such as ``args[1].cache._lock``.
    """

    task_index: int = -1
    path: str = ""


class ResultPicklingError(ParallelError, PicklingError):
    """A result, or the exception of a task, cannot be sent back to the caller.

    Attributes
    ----------
    path : str
        Where in the result the culprit is, such as ``result['model']._lock``.
    """

    path: str = ""


class TaskExit(ParallelError):  # noqa: N818 - an exit, named as SystemExit is
    """A task raised SystemExit, KeyboardInterrupt or GeneratorExit, which in the caller would mean something else.

    The original is the ``__cause__``.
    """


def annotate(error: BaseException, note: str) -> None:
    """Add a note to a user's exception, if its class lets us."""
    with contextlib.suppress(Exception):
        error.add_note(note)


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set the cause of a user's exception, if its class lets us."""
    with contextlib.suppress(Exception):
        error.__cause__ = cause


class RemoteTraceback(Exception):  # noqa: N818 - not raised by itself: it is the text shown as the cause
    """The traceback of another process, as text; set as ``__cause__`` of the exception that a task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


if TYPE_CHECKING:
    from multiprocessing import TimeoutError as _MpTimeoutError

    class TaskTimeoutError(ParallelError, _MpTimeoutError, TimeoutError):
        """A task ran longer than its limit."""

        task_index: int
        function: str
        backend: str
        limit_seconds: float
        ran_seconds: float

    class CallTimeoutError(ParallelError, _MpTimeoutError, TimeoutError):
        """A call ran longer than its limit."""

        backend: str
        limit_seconds: float
        ran_seconds: float


def _make_timeout_errors() -> dict[str, type[ParallelError]]:
    # On first use: importing parallel must not import multiprocessing, whose TimeoutError joblib's users catch.
    import multiprocessing

    class TaskTimeoutError(ParallelError, multiprocessing.TimeoutError, TimeoutError):
        """A task ran longer than its limit.

        Attributes
        ----------
        task_index : int
            Position of the task in the input, from 0.
        function : str
            Name of the task's function.
        backend : str
            Name of the backend.
        limit_seconds, ran_seconds : float
            The limit, and how long the task had run when it was ended.
        """

    class CallTimeoutError(ParallelError, multiprocessing.TimeoutError, TimeoutError):
        """A call ran longer than its limit.

        Attributes
        ----------
        backend : str
            Name of the backend.
        limit_seconds, ran_seconds : float
            The limit, and how long the call had run when it was ended.
        """

    made: dict[str, type[ParallelError]] = {}
    for kind in (TaskTimeoutError, CallTimeoutError):
        kind.__qualname__ = kind.__name__  # so that it can be pickled
        made[kind.__name__] = kind
    return made


def __getattr__(name: str) -> Any:
    if name in ("TaskTimeoutError", "CallTimeoutError"):
        for made, kind in _make_timeout_errors().items():
            globals().setdefault(made, kind)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
