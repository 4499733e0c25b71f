"""What this process and its descendants use, read from /proc."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from tests.soak.trend import Limit

__all__ = ["LIMITS", "Sample", "give_back_memory", "is_available", "measure", "names_of_shared_memory"]

_MB = 1024 * 1024

#: POSIX semaphores and named shared memory.
_SHARED_MEMORY = Path("/dev/shm")

#: Names there that calls may leave, with the id of the process that made them: those of loky, of multiprocessing.
_NAMES = re.compile(r"(?:loky|mp|psm|parallel)-(\d+)-")

#: By field of `Sample`. Counts are the same whenever nothing runs, so that what leaks one now and then is found: two
#: are a thread or a worker that is on its way out just in the last blocks; worker processes may come with twenty
#: descriptors each. Memory is what the allocator makes of it: one or two of the arrays of 2.4 MB that calls use may be
#: there or not, and the workers are others in each block. A leak of a small array per call is several times that.
LIMITS = {
    "rss_mb": Limit(per_minute=0.8, least=5.0),
    "workers_mb": Limit(per_minute=3.0, least=10.0),
    "shared_mb": Limit(per_minute=0.5, least=2.0),
    "descriptors": Limit(per_minute=0.2, least=2.0),
    "worker_descriptors": Limit(per_minute=1.0, least=5.0),
    "threads": Limit(per_minute=0.2, least=2.0),
    "processes": Limit(per_minute=0.2, least=2.0),
    "shared_files": Limit(per_minute=0.2, least=2.0),
    "temporary_files": Limit(per_minute=0.2, least=2.0),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What is in use at one moment."""

    #: Resident memory of this process.
    rss_mb: float
    #: Of its descendants, with what several of them share counted once.
    workers_mb: float
    #: Resident pages of shared memory, with a name or without, in all of them; those that are shared count in each.
    shared_mb: float
    descriptors: int
    worker_descriptors: int
    threads: int
    processes: int
    #: In /dev/shm, made by this process, a descendant, or one that has ended.
    shared_files: int
    temporary_files: int

    def __str__(self) -> str:
        return (
            f"rss {self.rss_mb:6.1f} MB  workers {self.workers_mb:6.1f} MB  shared {self.shared_mb:5.1f} MB  "
            f"fds {self.descriptors:3d} + {self.worker_descriptors:3d}  threads {self.threads:3d}  "
            f"processes {self.processes:2d}  shm files {self.shared_files:3d}  temp files {self.temporary_files:2d}"
        )


assert set(LIMITS) == {field.name for field in fields(Sample)}


def is_available() -> bool:
    """Tell whether this system says what `measure` reads."""
    return sys.platform == "linux" and Path("/proc/self/smaps_rollup").exists()


def names_of_shared_memory() -> frozenset[str]:
    """Give what is in /dev/shm."""
    return frozenset(os.listdir(_SHARED_MEMORY) if _SHARED_MEMORY.exists() else ())


def give_back_memory() -> None:
    """Let nothing count that is in use no more: garbage, and what the allocator of glibc keeps for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def measure(temp_folder: Path, others: frozenset[str] = frozenset()) -> Sample:
    """Look at what is in use; best when nothing runs.

    Parameters
    ----------
    temp_folder
        The folder for temporary files, which nobody else uses.
    others
        Names in /dev/shm that were there before.
    """
    me = psutil.Process()
    workers_mb = 0.0
    shared_mb = _shared_mb(me.pid)
    worker_descriptors = n_processes = 0
    ours = {me.pid}
    for process in me.children(recursive=True):
        try:
            workers_mb += process.memory_full_info().pss / _MB
            worker_descriptors += process.num_fds()
            shared_mb += _shared_mb(process.pid)
        except (psutil.Error, OSError):  # has just ended
            continue
        n_processes += 1
        ours.add(process.pid)
    return Sample(
        rss_mb=me.memory_info().rss / _MB,
        workers_mb=workers_mb,
        shared_mb=shared_mb,
        descriptors=me.num_fds(),
        worker_descriptors=worker_descriptors,
        threads=me.num_threads(),
        processes=n_processes,
        shared_files=_count_shared_files(names_of_shared_memory() - others, ours),
        temporary_files=sum(len(files) + len(folders) for _, folders, files in os.walk(temp_folder)),
    )


def _shared_mb(process: int) -> float:
    found = re.search(r"^RssShmem:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def _count_shared_files(names: frozenset[str], ours: set[int]) -> int:
    """Count what has the id of one of our processes in its name, or of one that has ended, which may have been ours."""
    count = 0
    for name in names:
        found = _NAMES.search(name)
        if found:
            maker = int(found.group(1))
            count += maker in ours or not psutil.pid_exists(maker)
    return count
