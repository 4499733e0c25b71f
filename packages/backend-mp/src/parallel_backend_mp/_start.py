"""Starts processes that do not import the caller's main module.

multiprocessing has a spawned child import it, which runs a program that has no ``if __name__ == "__main__":`` again,
and may fail where nobody sees it. Our workers need nothing of it: what lives there travels by value. There is no
option for that. What a child is told to import comes from one function of multiprocessing.spawn, so the method that
starts a process runs here with another one in its place. For other users of multiprocessing nothing changes, but that
the fork server no longer imports the main module ahead of its children.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.spawn
import os
import sys
import threading
from multiprocessing.context import BaseContext
from types import FunctionType
from typing import Any

__all__ = ["default_context", "process_class", "why_default"]

_METHODS = ("fork", "spawn", "forkserver")

#: The start method of those who give none.
METHOD_VARIABLE = "PARALLEL_START_METHOD"


def default_context(start_method: str | None) -> BaseContext:
    """Give the context for a start method, or for that of ``PARALLEL_START_METHOD``, or multiprocessing's default.

    Inside a worker of loky the default is a method of loky's own, which is no use here.

    Raises
    ------
    ValueError
        If the platform does not have the method.
    """
    given = os.environ.get(METHOD_VARIABLE)
    if start_method is None and given:
        if given not in multiprocessing.get_all_start_methods():
            known = ", ".join(multiprocessing.get_all_start_methods())
            raise ValueError(f"the environment variable {METHOD_VARIABLE} must be one of {known}, not {given!r}")
        start_method = given
    if start_method is None:
        chosen: str | None = multiprocessing.get_start_method(allow_none=True)
        start_method = chosen if chosen in _METHODS else multiprocessing.get_all_start_methods()[0]
    return multiprocessing.get_context(start_method)


def why_default() -> str:
    """Tell where `default_context` gets the start method from, if none is given."""
    is_set = os.environ.get(METHOD_VARIABLE)
    return f"environment variable {METHOD_VARIABLE}" if is_set else "default of multiprocessing"


def process_class(context: BaseContext) -> Any:
    """Give the class whose instances are started by a context."""
    if type(context) not in _CLASSES:
        return context.Process  # type: ignore[attr-defined]
    return _CLASSES[type(context)]


class _SpawnWithoutMain:
    """`multiprocessing.spawn`, but for what a child is told to import."""

    def get_preparation_data(self, name: str) -> dict[str, Any]:
        data = multiprocessing.spawn.get_preparation_data(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main_from")}

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing.spawn, name)


def _with_other_spawn(function: Any) -> Any:
    """Give a copy of a function that finds `_SpawnWithoutMain` under the name ``spawn``."""
    names = {**function.__globals__, "spawn": _SpawnWithoutMain()}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_CLASSES: dict[type, Any] = {}

if sys.platform == "win32":
    from multiprocessing import popen_spawn_win32

    class _WindowsPopen(popen_spawn_win32.Popen):
        __init__ = _with_other_spawn(popen_spawn_win32.Popen.__init__)

    class SpawnedWorker(multiprocessing.context.SpawnProcess):
        """A process started by "spawn"."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
            return _WindowsPopen(process_obj)

    _CLASSES[multiprocessing.context.SpawnContext] = SpawnedWorker
else:
    from multiprocessing import forkserver, popen_forkserver, popen_spawn_posix

    class _SpawnPopen(popen_spawn_posix.Popen):
        _launch = _with_other_spawn(getattr(popen_spawn_posix.Popen, "_launch"))  # noqa: B009 - private

    class _ForkserverPopen(popen_forkserver.Popen):
        _launch = _with_other_spawn(getattr(popen_forkserver.Popen, "_launch"))  # noqa: B009 - private

    class SpawnedWorker(multiprocessing.context.SpawnProcess):
        """A process started by "spawn"."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
            return _SpawnPopen(process_obj)

    class ForkserverWorker(multiprocessing.context.ForkServerProcess):
        """A process started by "forkserver"."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's name
            server: Any = forkserver._forkserver
            if server._preload_modules == ["__main__"]:
                # Its default: the server itself would import the main module, and run an unguarded program again.
                multiprocessing.set_forkserver_preload([])
            return _ForkserverPopen(process_obj)

    _CLASSES[multiprocessing.context.SpawnContext] = SpawnedWorker
    _CLASSES[multiprocessing.context.ForkServerContext] = ForkserverWorker

    def _forget_server() -> None:
        # In a forked child: the fork server is the parent's, and multiprocessing would ask the system for a child of
        # ours that has its number. The child starts one of its own when it needs one.
        server: Any = forkserver._forkserver
        if server._forkserver_pid is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
        server._lock = threading.Lock()

    os.register_at_fork(after_in_child=_forget_server)
