"""What tasks find on workers of a backend: settings for calls inside them, and limits for the threads of libraries."""

from __future__ import annotations

from typing import NamedTuple

from parallel import _plugins
from parallel._cpu import cpu_budget
from parallel._inner_threads import Caps, caps_of
from parallel._settings import Settings
from parallel.backend import ParallelBackendBase

__all__ = ["Terms", "nested_settings", "terms_of"]


class Terms(NamedTuple):
    """What follows from a backend, its number of workers, the machine and the environment; see `Lease.terms`."""

    #: For calls made inside the tasks.
    nested: Settings
    #: Most threads of libraries in one worker.
    caps: Caps


def terms_of(backend: ParallelBackendBase, n_jobs: int) -> Terms:
    """Read the environment and the machine."""
    caps = caps_of(backend._prepare_worker_env(n_jobs), is_exact=backend.inner_max_num_threads is not None)
    return Terms(nested_settings(backend, n_jobs), caps)


def nested_settings(backend: ParallelBackendBase, n_jobs: int) -> Settings:
    """Give the settings in force inside the tasks of a backend that has `n_jobs` workers."""
    level = (backend.nesting_level or 0) + 1
    nested, nested_n_jobs = backend.get_nested_backend()
    if nested is None:
        nested = _plugins.names_for("threads")[0] if level == 1 else _plugins.BUILT_IN
    cpus = backend.inner_max_num_threads or max(cpu_budget() // max(n_jobs, 1), 1)
    return Settings(backend=nested, n_jobs=nested_n_jobs, nesting_level=level, cpus=cpus)
