"""Helpers for the tests of backends whose workers are processes."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

from parallel import Parallel, delayed
from parallel_testkit import Gate, Mailbox


def report_process(mailbox: Mailbox, gate: Gate) -> int:
    mailbox.send(os.getpid())
    gate.wait()
    return os.getpid()


def process_ids(parallel: Parallel, folder: Path, count: int = 2) -> set[int]:
    """The ids of `count` workers, which all have to be there at the same time; `parallel` must give a generator."""
    with Mailbox(folder / "ids") as mailbox, Gate(folder / "all-there") as gate:
        results = parallel(delayed(report_process)(mailbox, gate) for _ in range(count))
        mailbox.receive(count)
        gate.open()
        return set(results)


def wait_until_gone(process: int, seconds: float = 30.0) -> None:
    """Wait for the end of a process, which may be anybody's child; a zombie has ended."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(seconds * 1000), f"the process {process} is still there"
    finally:
        os.close(descriptor)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    wait_until_gone(process)


#: For a module that is being imported: set when that has begun, and waited for before it goes on.
IMPORTING = threading.Event()
GO_ON = threading.Event()
