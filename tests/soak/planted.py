"""Leaks that are put in on purpose, to see that they are found."""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Any

from tests.soak.plan import Item, Turn

__all__ = ["PLANTED", "clean"]

_descriptors: list[int] = []
_memory: list[Any] = []
_end_of_threads = threading.Event()


def leak_a_descriptor(_: Turn) -> None:
    _descriptors.append(os.open(os.devnull, os.O_RDONLY))


def leak_memory(_: Turn) -> None:
    _memory.append(bytearray(os.urandom(200_000)))


def leak_a_thread(_: Turn) -> None:
    # Named as one that nobody waits for.
    threading.Thread(target=_end_of_threads.wait, name="ThreadPoolExecutor-leaked", daemon=True).start()


def leak_a_file(_: Turn) -> None:
    with tempfile.NamedTemporaryFile(delete=False):
        pass


def clean() -> None:
    """Give back what was leaked, but for files."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _memory.clear()
    _end_of_threads.set()
    _end_of_threads.clear()


#: By the name of what is leaked.
PLANTED = {
    "descriptor": Item(leak_a_descriptor),
    "memory": Item(leak_memory),
    "thread": Item(leak_a_thread),
    "file": Item(leak_a_file),
}
