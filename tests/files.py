"""Counts open files, for tests of what keeps some."""

from __future__ import annotations

import contextlib
import gc
import os

__all__ = ["open_files"]

#: What the threads and workers of other tests, which may be ending meanwhile, have descriptors of.
_OTHERS = ("socket:", "pipe:", "anon_inode:", "/proc/")


def open_files() -> int:
    """Count the descriptors of this process that are files, with or without a name."""
    gc.collect()
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            count += not os.readlink(f"/proc/self/fd/{name}").startswith(_OTHERS)
    return count
