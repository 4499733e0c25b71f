"""Pools of workers that stay warm between calls, each lent to one call or ``with`` block at a time.

A table of the process, not of a thread: whichever thread makes the next call gets the warm workers.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["WarmPools"]

Pool = TypeVar("Pool")


class WarmPools(Generic[Pool]):
    """The idle pools of one kind of backend.

    Any thread may call any method; `make` and `close` run without the table's lock, in the calling thread, and may
    block.

    Parameters
    ----------
    close
        Ends a pool and its workers.
    is_usable
        Tells whether a pool that was idle can serve another call.
    max_idle
        How many idle pools to keep, for programs that change n_jobs; the one that was idle longest is closed first.
    close_at_exit
        Whether to close what is idle when the interpreter exits; False for pools that see to it themselves.
    """

    def __init__(
        self,
        close: Callable[[Pool], None],
        is_usable: Callable[[Pool], bool],
        max_idle: int = 2,
        close_at_exit: bool = True,
    ) -> None:
        self._close = close
        self._is_usable = is_usable
        self._max_idle = max_idle
        self._idle: list[tuple[Hashable, Pool]] = []
        self._lock = threading.Lock()
        if close_at_exit:
            atexit.register(self.close_idle)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def lend(self, key: Hashable, make: Callable[[], Pool]) -> Pool:
        """Give the idle pool of that key, or make one."""
        found: list[Pool] = []
        broken: list[Pool] = []
        with self._lock:
            kept = []
            for known, pool in self._idle:
                if not self._is_usable(pool):
                    broken.append(pool)
                elif known == key and not found:
                    found.append(pool)
                else:
                    kept.append((known, pool))
            self._idle = kept
        for pool in broken:
            self._close(pool)
        return found[0] if found else make()

    def give_back(self, key: Hashable, pool: Pool) -> None:
        """Take back a pool that has nothing to do; what is too many is closed."""
        with self._lock:
            self._idle.append((key, pool))
            surplus = [old for _, old in self._idle[: -self._max_idle]]
            self._idle = self._idle[-self._max_idle :]
        for old in surplus:
            self._close(old)

    def close_idle(self) -> None:
        """Close all idle pools."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, pool in idle:
            self._close(pool)

    def _forget(self) -> None:
        # In a forked child: the workers are the parent's, and the lock may have been held by a thread that is not here.
        self._lock = threading.Lock()
        self._idle = []
