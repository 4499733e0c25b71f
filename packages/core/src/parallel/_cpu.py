"""How many CPUs this process may use."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from time import monotonic

from parallel._settings import ACTIVE

__all__ = ["cpu_budget", "cpu_count", "cpu_limit"]

# Not pathlib, which takes 5 ms to import.
_Path = str | os.PathLike[str]


def cpu_count(only_physical_cores: bool = False) -> int:
    """Tell how many CPUs this process may use: at least 1.

    The smallest of: the CPUs of the host, the affinity of the process, the quota of its cgroup (versions 1 and 2,
    rounded up), and the environment variables ``PARALLEL_MAX_CPUS`` and ``LOKY_MAX_CPU_COUNT``.

    Parameters
    ----------
    only_physical_cores : bool, default False
        Count hyper-threads of one core once, where the system says (Linux); otherwise as without.

    Raises
    ------
    ValueError
        If one of the environment variables is not a positive integer.
    """
    count = max(min(_limits())[0], 1)
    if only_physical_cores:
        physical = _physical_cores()
        if physical is not None:
            count = max(min(count, physical), 1)
    return count


def cpu_limit() -> tuple[int, str]:
    """Give what `cpu_count` gives, and in a few words what limits it.

    Raises
    ------
    ValueError
        If one of the environment variables is not a positive integer.
    """
    count, reason = min(_limits(), key=lambda limit: limit[0])
    if count == os.cpu_count():
        reason = "as many as the host has"
    return max(count, 1), reason


def _limits() -> list[tuple[int, str]]:
    limits = [(_affinity(), "limited by the affinity of the process")]
    quota = _cgroup_quota()
    if quota < math.inf:
        limits.append((math.ceil(quota), f"limited by the cgroup's quota of {quota:g} CPUs"))
    return limits + [(count, f"limited by {name}") for name, count in _environment_limits()]


def cpu_budget() -> int:
    """Tell how many CPUs are for calls made here: inside a task its share of them, else `cpu_count`.

    Raises
    ------
    ValueError
        As for `cpu_count`.
    """
    return ACTIVE.get().cpus or cpu_count()


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows do not have it
        return os.cpu_count() or 1


def _environment_limits() -> list[tuple[str, int]]:
    limits = []
    for name in ("PARALLEL_MAX_CPUS", "LOKY_MAX_CPU_COUNT"):
        text = os.environ.get(name)
        if text:
            try:
                value = int(text)
            except ValueError:
                value = 0
            if value < 1:
                raise ValueError(f"the environment variable {name} must be a positive integer, not {text!r}")
            limits.append((name, value))
    return limits


#: For how long what was read of a quota holds: reading it costs more than a small call.
_QUOTA_SECONDS = 1.0

#: Until when it holds, and what it is.
_known_quota: tuple[float, float] = -math.inf, math.inf


def _cgroup_quota() -> float:
    """Give what `_read_cgroup_quota` gives, as it was a moment ago."""
    global _known_quota
    until, quota = _known_quota
    now = monotonic()
    if now >= until:
        quota = _read_cgroup_quota()
        _known_quota = now + _QUOTA_SECONDS, quota
    return quota


def _read_cgroup_quota(root: _Path = "/sys/fs/cgroup", own: _Path = "/proc/self/cgroup") -> float:
    """Give the CPUs that the cgroup's quota amounts to, 1.5 say; infinity without one.

    A quota may be set on any group on the way up, so all of them are read.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    smallest = math.inf
    for folder, version in _cgroup_folders(root, own):
        try:
            if version == 2:
                quota_text, period_text = _read(folder, "cpu.max").split()
            else:
                quota_text = _read(folder, "cpu.cfs_quota_us").strip()
                period_text = _read(folder, "cpu.cfs_period_us").strip()
            if quota_text not in ("max", "-1"):
                smallest = min(smallest, int(quota_text) / int(period_text))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return smallest


def _cgroup_folders(root: _Path, own: _Path) -> list[tuple[str, int]]:
    try:
        lines = _read(own).splitlines()
    except OSError:
        return []
    folders: list[tuple[str, int]] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base, version = os.fspath(root), 2
        elif "cpu" in controllers.split(","):
            base, version = os.path.join(root, "cpu"), 1
        else:
            continue
        parts = [part for part in path.split("/") if part]
        folders += [(os.path.join(base, *parts[:depth]), version) for depth in range(len(parts), -1, -1)]
    return folders


@functools.cache
def _physical_cores() -> int | None:
    cores = set()
    root = "/sys/devices/system/cpu"
    with contextlib.suppress(OSError):
        for name in os.listdir(root):
            with contextlib.suppress(OSError):  # also of what is no CPU
                cores.add(_read(root, name, "topology", "thread_siblings_list"))
    return len(cores) or None


def _read(*path: _Path) -> str:
    with open(os.path.join(*path)) as file:
        return file.read()
