"""Ends the workers when the interpreter exits, also those that are inside a task."""

from __future__ import annotations

import multiprocessing.util
import os
import threading
import weakref

from loky.process_executor import ProcessPoolExecutor

__all__ = ["ExitHook"]


class ExitHook:
    """Closes executors before loky's own exit handler, which waits for their tasks.

    A half consumed generator may be at work when the program ends, with tasks that last for hours.
    """

    def __init__(self) -> None:
        #: Whether the interpreter is exiting: nothing must be submitted any more.
        self.has_come = False
        self._is_registered = False
        # The process in which multiprocessing was told too.
        self._told_in: int | None = None
        self._executors: weakref.WeakSet[ProcessPoolExecutor] = weakref.WeakSet()

    def add(self, executor: ProcessPoolExecutor) -> None:
        """See to an executor that has got a job; called after its `submit`."""
        self._executors.add(executor)
        if not self._is_registered:
            # These handlers run before those of atexit, and the last one first; loky adds its own with the first job.
            # The function is private to Python, and what concurrent.futures and loky use.
            threading._register_atexit(self._come)  # type: ignore[attr-defined]
            self._is_registered = True
        if self._told_in != os.getpid():
            # A child that multiprocessing has forked waits for its children before it runs any of those handlers. It
            # forgets what its parent has told, so this is once for each process.
            multiprocessing.util.Finalize(None, self._come, exitpriority=100)
            self._told_in = os.getpid()

    def forget(self) -> None:
        """Leave all executors alone, in a forked child: they are the parent's."""
        self._executors.clear()

    def _come(self) -> None:
        self.has_come = True
        for executor in list(self._executors):
            executor.shutdown(wait=True, kill_workers=True)
