"""Finds what a piece of code leaves behind: processes, threads, descriptors, shared memory, temporary files.

Reads /proc, so Linux only; elsewhere `LeakCheck.is_available` is False.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import select
import sys
import tempfile
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

__all__ = ["LeakCheck"]

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only its listing is read

#: How long what is on its way out may take: not a measurement, only a leak should ever reach it.
SETTLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    #: Descendants of this process: id to command line.
    processes: dict[int, str]
    #: Not the threads themselves: one that has ended would be kept, with all that it holds.
    threads: frozenset[weakref.ref[threading.Thread]]
    #: Of the system, also such as Python's `threading` knows nothing of.
    n_tasks: int
    #: By kind: the numbers that tell one pipe from another are left out.
    descriptors: Counter[str]
    #: Names in /dev/shm that carry the id of this process: other programs use it too.
    shared_memory: frozenset[str]
    temporary: frozenset[str]


class LeakCheck:
    """Compares what there is now with what there was when it was made; only what has become more is a leak.

    ::

        check = LeakCheck()
        ...
        check.assert_nothing_left()

    What a backend keeps on purpose (warm workers) should be there before: let it do some work first.

    Parameters
    ----------
    temp_folder
        The folder for temporary files, as this process uses it; best one that nobody else does.
    counts_system_threads
        Whether threads count that Python's `threading` does not know. Libraries like BLAS may have such of their own,
        and start them when they like.
    """

    #: Whether this system can tell.
    is_available = sys.platform == "linux"

    def __init__(
        self, temp_folder: str | os.PathLike[str] | None = None, *, counts_system_threads: bool = False
    ) -> None:
        self._counts_system_threads = counts_system_threads
        self._temp_folder = Path(temp_folder or tempfile.gettempdir())
        gc.collect()
        self._before = self._look()

    def assert_nothing_left(self, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Wait for what is on its way out, then compare.

        Raises
        ------
        AssertionError
            If there is more of anything than before; it names what.
        """
        gc.collect()
        give_up = monotonic() + settle_seconds
        while (problems := self._problems()) and monotonic() < give_up:
            if not self._wait_for_one(give_up) and not self._wait_for_task(give_up - 0.9 * settle_seconds):
                problems = self._problems()  # what was on its way out a moment ago may be gone
                break
            gc.collect()
        assert not problems, "left behind:\n" + "\n".join(problems)

    def _wait_for_one(self, give_up: float) -> bool:
        """Wait until a new thread or a new process has ended; False if there is none to wait for."""
        now = self._look()
        threads = self._new_threads(now)
        processes = [process for process in now.processes if process not in self._before.processes]
        if not threads and not processes:
            return False
        # One at a time and not for long: which of them will end is not known, some may be there to stay.
        for thread in threads:
            if thread is not threading.current_thread():
                with contextlib.suppress(RuntimeError):  # another thread is just about to start it
                    thread.join(min(max(give_up - monotonic(), 0.0), 0.5))
        poll = select.poll()
        descriptors = []
        try:
            for process in processes:
                try:
                    descriptor = os.pidfd_open(process)
                except OSError:  # gone already
                    return True
                descriptors.append(descriptor)
                poll.register(descriptor, select.POLLIN)
            if descriptors:
                poll.poll(min(max(give_up - monotonic(), 0.0), 0.5) * 1000)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _wait_for_task(self, give_up: float) -> bool:
        """Wait a little where a thread of the system is there still: nothing tells when one is gone, a moment later."""
        is_waited_for = self._counts_system_threads and self._look().n_tasks > self._before.n_tasks
        if not is_waited_for or monotonic() > give_up:
            return False
        select.select([], [], [], 0.02)
        return True

    def _new_threads(self, now: _Snapshot) -> list[threading.Thread]:
        return [thread for new in now.threads - self._before.threads if (thread := new()) is not None]

    def _problems(self) -> list[str]:
        before, now = self._before, self._look()
        problems = []
        if len(now.processes) > len(before.processes):
            new = {process: command for process, command in now.processes.items() if process not in before.processes}
            problems.append(f"processes: {len(before.processes)} before, {len(now.processes)} now, new are {new}")
        if len(now.threads) > len(before.threads):
            names = [thread.name for thread in self._new_threads(now)]
            problems.append(f"threads: {len(before.threads)} before, {len(now.threads)} now, new are {names}")
        # Only where nothing else explains them: each of Python's threads is one of the system's.
        elif self._counts_system_threads and now.n_tasks > before.n_tasks and len(now.threads) <= len(before.threads):
            problems.append(f"threads of the system: {before.n_tasks} before, {now.n_tasks} now, unknown to threading")
        if more := now.descriptors - before.descriptors:
            problems.append(f"descriptors: {dict(more)}")
        if len(now.shared_memory) > len(before.shared_memory):  # warm workers that were replaced have others
            names_left = now.shared_memory - before.shared_memory
            problems.append(f"shared memory: {len(before.shared_memory)} before, new are {sorted(names_left)}")
        if files_left := now.temporary - before.temporary:
            problems.append(f"temporary files in {self._temp_folder}: {sorted(files_left)}")
        return problems

    def _look(self) -> _Snapshot:
        return _Snapshot(
            processes=_descendants(os.getpid()),
            threads=frozenset(weakref.ref(thread) for thread in threading.enumerate()),
            n_tasks=len(_names("/proc/self/task")),
            descriptors=_descriptors(),
            shared_memory=frozenset(name for name in _names(_SHARED_MEMORY) if re.search(rf"\b{os.getpid()}\b", name)),
            temporary=frozenset(_names(self._temp_folder)),
        )


def _names(folder: str | Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _descendants(ancestor: int) -> dict[int, str]:
    parents: dict[int, int] = {}
    for name in _names("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text("utf-8", "replace")
            except OSError:
                continue
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    generation = {ancestor}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation and child not in found}
        found.update({child: _command(child) for child in generation})
    return found


def _command(process: int) -> str:
    try:
        line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return "gone"
    return line.strip()[:200] or "zombie"


def _descriptors() -> Counter[str]:
    kinds: Counter[str] = Counter()
    for name in _names("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that was open to list them
            continue
        kinds[re.sub(r":\[\d+\]$", "", target)] += 1
    return kinds
