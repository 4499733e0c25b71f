"""Ends a process with all that it has started."""

from __future__ import annotations

import contextlib
import os
import signal

__all__ = ["descendants", "kill_process_tree"]


def kill_process_tree(pid: int) -> None:
    """Kill a process and, on Linux, its descendants. Does not wait, and does nothing if it is gone.

    Elsewhere only the process itself: the system does not tell its children.
    """
    sigstop, sigkill = getattr(signal, "SIGSTOP", None), getattr(signal, "SIGKILL", signal.SIGTERM)
    if sigstop is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, sigstop)  # so that it starts no other one meanwhile
    for process in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            os.kill(process, sigkill)


def descendants(pid: int) -> list[int]:
    """Give the children of a process, theirs, and so on; nothing where there is no /proc. Any may be gone meanwhile."""
    found = []
    waiting = [pid]
    while waiting:
        threads = f"/proc/{waiting.pop()}/task"
        with contextlib.suppress(OSError):
            for thread in os.listdir(threads):
                with contextlib.suppress(OSError):
                    with open(f"{threads}/{thread}/children") as file:
                        children = [int(text) for text in file.read().split()]
                    found += children
                    waiting += children
    return found
