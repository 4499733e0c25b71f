"""Run Python functions side by side: on threads, processes, any executor, or a cluster, found by name.

::

    from parallel import Parallel, delayed

    Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(10))

Importing this package starts nothing and looks for nothing.
"""

from __future__ import annotations

from parallel._config import parallel_backend, parallel_config
from parallel._cpu import cpu_count
from parallel._parallel import Parallel, delayed, effective_n_jobs
from parallel._plugins import register_parallel_backend, register_plugin, unregister_plugin
from parallel._retry import Retry
from parallel.backend import ParallelBackendBase

__version__ = "0.1.0"

__all__ = [
    "Parallel",
    "ParallelBackendBase",
    "Retry",
    "cpu_count",
    "delayed",
    "effective_n_jobs",
    "parallel_backend",
    "parallel_config",
    "register_parallel_backend",
    "register_plugin",
    "unregister_plugin",
]
