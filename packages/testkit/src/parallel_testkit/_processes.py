"""Waits for the end of processes that may be anybody's children."""

from __future__ import annotations

import os
import select

__all__ = ["wait_until_gone"]


def wait_until_gone(process: int, *others: int, seconds: float = 30.0) -> None:
    """Block until one of these processes of this host has ended; a zombie has.

    Parameters
    ----------
    process, *others
        Their ids.
    seconds
        How long to wait; not a measurement: only what hangs should ever reach it.

    Raises
    ------
    AssertionError
        If all are still there.
    """
    poll = select.poll()
    descriptors = []
    try:
        for number in (process, *others):
            try:
                descriptors.append(os.pidfd_open(number))
            except ProcessLookupError:
                return
            poll.register(descriptors[-1], select.POLLIN)
        assert poll.poll(seconds * 1000), f"still there after {seconds:g} s: {(process, *others)}"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
