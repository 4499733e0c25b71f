"""Forks of a process in which another thread is in the middle of an import.

The child has half of a module, and its lock, which nobody there will ever release: whoever imports it, as unpickling
does, would wait for ever. So a fork waits for imports that other threads are in; and a child forgets those that have
begun just then.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import Any

__all__ = ["forget_imports", "wait_for_imports"]


def wait_for_imports() -> None:
    """Wait until no other thread is inside an import that has begun by now; called before a fork."""
    for name, module in list(sys.modules.items()):
        if _is_unfinished(module):
            with contextlib.suppress(Exception):  # whatever is wrong with it is for who imports it
                importlib.import_module(name)  # one that this very thread is in is not waited for


def forget_imports() -> None:
    """Forget modules that threads of the parent were importing; called in a forked child."""
    # importlib has no public way to ask who holds a lock. A thread has the lock before there is any module, too.
    locks: dict[str, Any] = getattr(importlib._bootstrap, "_module_locks", {})
    for name, reference in list(locks.items()):
        owner = getattr(reference(), "owner", None)
        if owner is not None and owner != threading.get_ident():
            locks.pop(name, None)
            if _is_unfinished(sys.modules.get(name)):
                sys.modules.pop(name, None)


def _is_unfinished(module: object) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)
