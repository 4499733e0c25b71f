"""The hooks that plugins of parallel may implement.

A complete plugin, which counts the tasks that fail::

    # my_plugin.py
    from parallel.hookspecs import hookimpl

    failed = []


    @hookimpl
    def parallel_task_failed(call, index, exception):
        failed.append((call.backend, index, exception))

It is declared as an entry point of its distribution, in the group ``parallel.plugins``::

    [project.entry-points."parallel.plugins"]
    my-plugin = "my_plugin"

or registered by hand: ``parallel.register_plugin(my_plugin)``. Hooks are called per call or per batch, never per
task (but for tasks that fail), and cost nothing where nobody listens. They run on the owner of the call: the caller's
thread with ``return_as="list"``, a thread of the call's own otherwise. They must not block; what they raise ends the
call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pluggy

__all__ = [
    "PROJECT",
    "CallInfo",
    "hookimpl",
    "hookspec",
    "parallel_batch_done",
    "parallel_batch_submitted",
    "parallel_call_finished",
    "parallel_call_started",
    "parallel_capture_context",
    "parallel_default_backend",
    "parallel_restore_context",
    "parallel_task_failed",
]

PROJECT = "parallel"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What a hook is told about the call it is called for.

    Attributes
    ----------
    call_id : int
        Unique in this process.
    backend : str
        Name of the backend.
    n_jobs : int
        Number of workers.
    n_tasks : int or None
        Number of tasks, where the input has a length.
    return_as : str
        As given to `Parallel`.
    """

    call_id: int
    backend: str
    n_jobs: int
    n_tasks: int | None
    return_as: str


@hookspec(firstresult=True)
def parallel_default_backend() -> str | None:
    """Choose the backend of calls that name none; the first plugin that does not return None decides."""


@hookspec
def parallel_capture_context() -> object | None:
    """Give what tasks are to find on their workers as it is in the caller; None for nothing.

    Called at the beginning of each call in the thread that makes it. What is given goes to `parallel_restore_context`
    of the same plugin; where workers are other processes both are pickled, so the plugin has to be an importable
    module, or an object that can be pickled.
    """


@hookspec
def parallel_restore_context(state: object) -> AbstractContextManager[Any] | None:
    """Give a context manager in which a batch runs, or None; called on the worker.

    `state` is what `parallel_capture_context` of this plugin gave. What this raises is the failure of the batch.
    """


@hookspec
def parallel_call_started(call: CallInfo) -> None:
    """A call is about to run its first task."""


@hookspec
def parallel_batch_submitted(call: CallInfo, start: int, size: int, worker: int) -> None:
    """A batch went to the backend: tasks `start` to ``start + size - 1``, for worker 0 to n_jobs-1."""


@hookspec
def parallel_batch_done(call: CallInfo, start: int, size: int, seconds: float) -> None:
    """The first `size` tasks from `start` came back; the worker was busy with them for `seconds`."""


@hookspec
def parallel_task_failed(call: CallInfo, index: int, exception: BaseException) -> None:
    """The task `index` raised `exception`."""


@hookspec
def parallel_call_finished(call: CallInfo, error: BaseException | None) -> None:
    """The call is over: `error` is what it raises, None if it gave all results or its generator was closed."""
