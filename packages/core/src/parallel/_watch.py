"""Ends a worker when the process it works for ends, also by SIGKILL and in the middle of a task.

Learnt from a pidfd on Linux, kqueue on macOS, the process handle on Windows. Not from PR_SET_PDEATHSIG, which
fires when the thread that forked ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from parallel._tree import descendants

__all__ = ["end_with_process"]


def end_with_process(pid: int) -> None:
    """Start a daemon thread that ends this process, without any clean-up, as soon as the process `pid` is gone.

    Does nothing where the system offers no way to wait for another process without polling.
    """
    wait = _waiter(pid)
    if wait is not None:
        threading.Thread(target=_watch, args=(wait,), name="parallel-watch", daemon=True).start()


def _watch(wait: Callable[[], None]) -> None:
    wait()
    for child in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    os._exit(1)  # the main thread may be inside a task, which nobody wants any more


def _waiter(pid: int) -> Callable[[], None] | None:
    if sys.platform == "win32":
        return _windows_waiter(pid)
    if sys.platform == "darwin":
        return _kqueue_waiter(pid)
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            os._exit(1)
        except OSError:  # a kernel before 5.3, or a sandbox that forbids it
            return None
        return lambda: _wait_for(pid, descriptor)
    return None


def _wait_for(pid: int, descriptor: int) -> None:
    """Wait for the end of a process, and take nothing else for it: a task may close the descriptor and open others."""
    while True:
        _poll(descriptor, None)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        if _poll(descriptor, 0):
            return


def _poll(descriptor: int, milliseconds: int | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


if sys.platform == "darwin":

    def _kqueue_waiter(pid: int) -> Callable[[], None]:
        queue = select.kqueue()
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        return lambda: _ignore(queue.control([event], 1, None))


if sys.platform == "win32":

    def _windows_waiter(pid: int) -> Callable[[], None]:
        import _winapi

        try:
            handle = _winapi.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        except OSError:
            os._exit(1)
        return lambda: _ignore(_winapi.WaitForSingleObject(handle, _winapi.INFINITE))


def _ignore(_: object) -> None:
    return None
