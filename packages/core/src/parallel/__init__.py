"""Run Python functions side by side: on threads, processes, any executor, or a cluster, found by name.

::

    from parallel import Parallel, delayed

    Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(10))

Importing this package starts nothing and looks for nothing; what a name needs is imported when it is first used, so
that a worker, which needs little, starts quickly (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel import backend as backend
    from parallel import errors as errors
    from parallel._config import parallel_backend, parallel_config
    from parallel._cpu import cpu_count
    from parallel._current import CurrentTask, current_task
    from parallel._delayed import delayed
    from parallel._explanation import Explanation
    from parallel._parallel import Parallel, effective_n_jobs, explain
    from parallel._plugins import register_parallel_backend, register_plugin, unregister_plugin
    from parallel._retry import Retry
    from parallel._share import share
    from parallel._shared import Shared
    from parallel.backend import ParallelBackendBase

__version__ = "0.1.0"

__all__ = [
    "CurrentTask",
    "Explanation",
    "Parallel",
    "ParallelBackendBase",
    "Retry",
    "Shared",
    "cpu_count",
    "current_task",
    "delayed",
    "effective_n_jobs",
    "explain",
    "parallel_backend",
    "parallel_config",
    "register_parallel_backend",
    "register_plugin",
    "share",
    "unregister_plugin",
]

#: Public name to the module that has it.
_HOMES = {
    "CurrentTask": "_current",
    "Explanation": "_explanation",
    "Parallel": "_parallel",
    "ParallelBackendBase": "backend",
    "Retry": "_retry",
    "Shared": "_shared",
    "cpu_count": "_cpu",
    "current_task": "_current",
    "delayed": "_delayed",
    "effective_n_jobs": "_parallel",
    "explain": "_parallel",
    "parallel_backend": "_config",
    "parallel_config": "_config",
    "register_parallel_backend": "_plugins",
    "register_plugin": "_plugins",
    "share": "_share",
    "unregister_plugin": "_plugins",
}


def __getattr__(name: str) -> Any:
    if name in ("backend", "errors"):
        return import_module(f"parallel.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'parallel' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"parallel.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
