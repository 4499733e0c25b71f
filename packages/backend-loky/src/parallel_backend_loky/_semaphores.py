"""Takes away what killed workers cannot take away themselves: the semaphores of the pools that their tasks had made."""

from __future__ import annotations

import contextlib
import os
import re
import weakref

from loky.backend import resource_tracker
from loky.process_executor import ProcessPoolExecutor

__all__ = ["note_workers", "unlink_semaphores"]

#: Where Linux shows POSIX semaphores as files.
_FOLDER = "/dev/shm"  # noqa: S108 - only its listing is read

#: How loky names them, with the id of the process that made them.
_NAME = re.compile(r"sem\.(loky-(\d+)-.+)")

#: The processes of each executor. An executor that breaks forgets its own.
_workers: weakref.WeakKeyDictionary[ProcessPoolExecutor, set[int]] = weakref.WeakKeyDictionary()


def note_workers(executor: ProcessPoolExecutor) -> None:
    """Remember which processes an executor has; called after its `submit`, which may start some."""
    _workers.setdefault(executor, set()).update(list(executor._processes or ()))


def unlink_semaphores(executor: ProcessPoolExecutor) -> None:
    """Unlink the semaphores that the workers of an executor have made; they have ended.

    loky's tracker would do it too, but not before this process ends, and with a warning: until then each worker that
    is killed would leave some ten of them for every pool it had. Elsewhere than on Linux nobody can list them, and so
    it is.
    """
    workers = _workers.pop(executor, set())
    try:
        names = os.listdir(_FOLDER) if workers else []
    except OSError:
        return
    for name in names:
        found = _NAME.fullmatch(name)
        if found and int(found.group(2)) in workers:
            with contextlib.suppress(OSError):
                os.unlink(f"{_FOLDER}/{name}")
                resource_tracker.unregister(f"/{found.group(1)}", "semlock")
