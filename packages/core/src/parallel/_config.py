"""Settings: how they are given, and which of them wins.

An explicit argument wins over `parallel_config`, that over the environment, that over the default. `resolve_backend`
also says why a backend was chosen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self

from parallel import _plugins
from parallel._arguments import (
    DEFAULT_PRE_DISPATCH,
    check_batch_size,
    check_inner_max_num_threads,
    check_max_nbytes,
    check_mmap_mode,
    check_propagate,
    check_retries,
    check_return_as,
    check_seed,
    check_temp_folder,
    check_timeout,
    evaluate_pre_dispatch,
)
from parallel._codec import check_compression, check_serializer
from parallel._interpreter import is_exiting, warn_of_exit
from parallel._settings import ACTIVE, UNSET, Unset
from parallel.backend import ParallelBackendBase

__all__ = [
    "DEFAULTS",
    "N_JOBS_VARIABLE",
    "ChosenBackend",
    "asked_n_jobs",
    "checked",
    "parallel_backend",
    "parallel_config",
    "resolve",
    "resolve_backend",
    "resolve_n_jobs",
]

#: Environment variables that stand in for `parallel_config`, in programs that nobody wants to change. Not inside tasks:
#: what is nested has been told what it may use.
BACKEND_VARIABLE = "PARALLEL_BACKEND"
N_JOBS_VARIABLE = "PARALLEL_N_JOBS"

#: What holds where neither an argument nor `parallel_config` says otherwise.
DEFAULTS: Final[dict[str, Any]] = {
    "n_jobs": None,
    "return_as": "list",
    "verbose": 0,
    "timeout": None,
    "pre_dispatch": DEFAULT_PRE_DISPATCH,
    "batch_size": "auto",
    "total_timeout": None,
    "retries": 0,
    "return_exceptions": False,
    "temp_folder": None,
    "max_nbytes": "1M",
    "mmap_mode": "r",
    "serializer": "cloudpickle",
    "compression": None,
    "compression_threshold": "64K",
    "propagate": True,
    "seed": None,
    "prefer": None,
    "require": None,
    "inner_max_num_threads": None,
}

#: Checks the value of a setting where it is given, and gives it in the form in which it is used.
_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "return_as": check_return_as,
    "verbose": lambda value: int(value or 0),
    "timeout": check_timeout,
    "pre_dispatch": lambda value: evaluate_pre_dispatch(value, 2),
    "batch_size": check_batch_size,
    "total_timeout": lambda value: check_timeout(value, "total_timeout"),
    "retries": check_retries,
    "return_exceptions": bool,
    "temp_folder": check_temp_folder,
    "max_nbytes": check_max_nbytes,
    "mmap_mode": check_mmap_mode,
    "serializer": check_serializer,
    "compression": check_compression,
    "compression_threshold": lambda value: check_max_nbytes(value, "compression_threshold") or 0,
    "propagate": check_propagate,
    "inner_max_num_threads": check_inner_max_num_threads,
    "seed": check_seed,
}

_PREFERENCES = ("processes", "threads", None)
_REQUIREMENTS = ("sharedmem", None)


def resolve(name: str, explicit: Any) -> Any:
    """Give the value of a setting: the argument, else the context's, else the default."""
    if explicit is not UNSET:
        return explicit
    active = getattr(ACTIVE.get(), name)
    return DEFAULTS[name] if active is UNSET else active


def checked(name: str, explicit: Any = UNSET) -> Any:
    """Give the value of a setting that has a check, as `resolve` does, in the form in which it is used.

    Raises
    ------
    ValueError
        If it is out of range.
    """
    return _CHECKS[name](resolve(name, explicit))


def coerce_n_jobs(n_jobs: Any) -> int | None:
    """Check an n_jobs as users give it, with `int()` as joblib does.

    Raises
    ------
    ValueError
        If it is no number, or 0.
    """
    if n_jobs is None:
        return None
    try:
        number = int(n_jobs)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"n_jobs must be an integer, not {n_jobs!r}") from error
    if number == 0:
        raise ValueError("n_jobs == 0 in Parallel has no meaning: use 1 for no workers, -1 for one per CPU")
    return number


def asked_n_jobs(explicit: Any) -> int | None:
    """Give n_jobs as the user has said it, as an argument, in the context or in the environment; None for nowhere."""
    number = coerce_n_jobs(explicit if explicit is not UNSET else None)
    if number is None:
        number = coerce_n_jobs(resolve("n_jobs", UNSET))
    if number is None and ACTIVE.get().n_jobs is UNSET:
        number = _n_jobs_of_environment()
    return number


def _of_environment(name: str) -> str | None:
    """Give a variable that is set, and not empty; None inside a task."""
    return os.environ.get(name) or None if ACTIVE.get().nesting_level == 0 else None


def _n_jobs_of_environment() -> int | None:
    text = _of_environment(N_JOBS_VARIABLE)
    try:
        return coerce_n_jobs(text)
    except ValueError as error:
        raise ValueError(f"the environment variable {N_JOBS_VARIABLE}: {error}") from None


def resolve_n_jobs(explicit: Any, backend: ParallelBackendBase) -> int:
    """Give n_jobs as it goes to the backend; None as an argument leaves it to the context."""
    number = asked_n_jobs(explicit)
    return backend.default_n_jobs if number is None else number


class ChosenBackend(NamedTuple):
    """A backend, the name to call it by, and why it was chosen."""

    backend: ParallelBackendBase
    name: str
    reason: str
    #: Options that belong to `configure`.
    configure_options: dict[str, Any]


def resolve_backend(
    explicit: Any,
    prefer: str | None,
    require: str | None,
    options: dict[str, Any],
    inner_max_num_threads: int | None | Unset,
) -> ChosenBackend:
    """Choose the backend of a call.

    Parameters
    ----------
    explicit
        The argument of `Parallel`: a name, an instance, a multiprocessing context; None or UNSET where there was none.
    prefer, require
        Resolved already.
    options
        Keyword arguments that `Parallel` does not know: for the constructor of a backend given by name, for
        `configure` otherwise.
    inner_max_num_threads
        The argument of `Parallel`; UNSET where there was none. The limit of `parallel_config` is not meant for a
        backend that something else has put in the place of the one that is configured there.

    Raises
    ------
    ValueError
        If the settings contradict each other, or nobody provides the backend.
    """
    _check_hints(prefer, require)
    active = ACTIVE.get()
    if explicit is not UNSET and explicit is not None:
        chosen = _make(explicit, options, active.nesting_level, "argument")
        if require == "sharedmem" and not chosen.backend.supports_sharedmem:
            raise ValueError(
                f"require='sharedmem' contradicts backend={explicit!r}, whose workers do not share the caller's "
                "memory; use a backend of threads, or drop require"
            )
    elif active.backend is not UNSET and active.backend is not None:
        chosen = _make(active.backend, dict(active.backend_options), active.nesting_level, "context", options)
        if require == "sharedmem" and not chosen.backend.supports_sharedmem:
            chosen = _make_for("threads", options, active.nesting_level, "require='sharedmem'")
    elif require == "sharedmem" or prefer == "threads":
        reason = "require='sharedmem'" if require == "sharedmem" else "prefer='threads'"
        chosen = _make_for("threads", options, active.nesting_level, reason)
    else:
        given = _of_environment(BACKEND_VARIABLE)
        reason = "environment" if given is not None else "default"
        chosen = _make(given or _plugins.default_backend_name(), {}, active.nesting_level, reason, options)
        if prefer == "processes" and chosen.backend.uses_threads:
            chosen = _make_for("processes", options, active.nesting_level, "prefer='processes'")
    limit = checked("inner_max_num_threads", inner_max_num_threads)
    if limit is not None:
        if chosen.backend.supports_inner_max_num_threads:
            chosen.backend.inner_max_num_threads = limit
        elif inner_max_num_threads is not UNSET or chosen.reason == "context":
            raise ValueError(
                f"the backend {chosen.name!r} does not support inner_max_num_threads; set OMP_NUM_THREADS and the "
                "like, or use threadpoolctl inside the tasks"
            )
    return chosen


def _check_hints(prefer: Any, require: Any) -> None:
    if prefer not in _PREFERENCES:
        raise ValueError(f"prefer must be one of {_PREFERENCES}, not {prefer!r}")
    if require not in _REQUIREMENTS:
        raise ValueError(f"require must be one of {_REQUIREMENTS}, not {require!r}")
    if prefer == "processes" and require == "sharedmem":
        raise ValueError("prefer='processes' contradicts require='sharedmem': processes do not share memory; drop one")


def _make_for(need: str, options: dict[str, Any], level: int, reason: str) -> ChosenBackend:
    return _make(_plugins.names_for(need)[0], {}, level, reason, options)


def _make(
    spec: Any, options: dict[str, Any], level: int, reason: str, configure_options: dict[str, Any] | None = None
) -> ChosenBackend:
    """Make a backend of what a user may give for one."""
    if isinstance(spec, str):
        try:
            factory = _plugins.backend_factory(spec)
        except RuntimeError:
            # What a backend imports may want to register exit handlers, which is refused by then.
            if not is_exiting():
                raise
            warn_of_exit(stacklevel=4)
            factory, options = _plugins.backend_factory(_plugins.BUILT_IN), {}
        backend, name = _plugins.make_backend(factory, spec, options), spec
        rest = configure_options or {}
    elif isinstance(spec, type) and issubclass(spec, ParallelBackendBase):
        backend, name = _plugins.make_backend(spec, spec.__name__, options), spec.__name__
        rest = configure_options or {}
    elif isinstance(spec, ParallelBackendBase):
        backend, name = spec, type(spec).__name__
        rest = {**options, **(configure_options or {})}
    elif is_multiprocessing_context(spec):
        name = _plugins.require_for("multiprocessing context")
        backend = _plugins.make_backend(_plugins.backend_factory(name), name, {"context": spec, **options})
        rest = configure_options or {}
    else:
        raise _no_backend(spec)
    if backend.nesting_level is None:
        backend.nesting_level = level
    return ChosenBackend(backend, name, reason, rest)


def _no_backend(spec: object) -> ValueError:
    return ValueError(f"backend must be a name, a ParallelBackendBase or a multiprocessing context, not {spec!r}")


def _is_backend(spec: object) -> bool:
    is_class = isinstance(spec, type) and issubclass(spec, ParallelBackendBase)
    return is_class or isinstance(spec, ParallelBackendBase) or is_multiprocessing_context(spec)


def is_multiprocessing_context(spec: object) -> bool:
    """Tell whether it is one, without importing multiprocessing: who has one has imported it."""
    module = sys.modules.get("multiprocessing.context")
    if module is None:
        return False
    return isinstance(spec, module.BaseContext) or spec is sys.modules.get("multiprocessing")


class parallel_config:  # noqa: N801 - joblib's name, used like a function
    """Set defaults for all calls of `Parallel` in this context.

    As a context manager the settings hold inside the ``with`` block; as a plain call they stay in force until
    `unregister`. What is not given is inherited from the settings around. They hold in the thread, or the asyncio
    task, that set them.

    Parameters
    ----------
    backend : str, ParallelBackendBase (instance or class) or multiprocessing context, optional
        The backend.
    n_jobs : int, optional
        Number of workers; None leaves it to the backend's default.
    return_as, verbose, timeout, pre_dispatch, batch_size, temp_folder, max_nbytes, mmap_mode, prefer, require
        Defaults for the arguments of `Parallel` of these names. They do not hold for calls made inside tasks.
    total_timeout, retries, return_exceptions, serializer, compression, compression_threshold, propagate, seed
        The same.
    inner_max_num_threads : int, optional
        Most threads of BLAS and OpenMP in each worker.
    **backend_params
        Options of the backend's constructor; need a backend given by name or as a multiprocessing context.

    Raises
    ------
    ValueError
        If a value is out of range, a backend is not installed, or `backend_params` come without a backend by name.
    """

    def __init__(
        self,
        backend: Any = UNSET,
        *,
        n_jobs: Any = UNSET,
        return_as: str | Unset = UNSET,
        verbose: int | Unset = UNSET,
        timeout: float | None | Unset = UNSET,
        pre_dispatch: int | str | Unset = UNSET,
        batch_size: int | str | Unset = UNSET,
        temp_folder: str | None | Unset = UNSET,
        max_nbytes: int | str | None | Unset = UNSET,
        mmap_mode: str | None | Unset = UNSET,
        prefer: str | None | Unset = UNSET,
        require: str | None | Unset = UNSET,
        total_timeout: float | None | Unset = UNSET,
        retries: Any = UNSET,
        return_exceptions: bool | Unset = UNSET,
        serializer: Any = UNSET,
        compression: str | None | Unset = UNSET,
        compression_threshold: int | str | Unset = UNSET,
        propagate: Any = UNSET,
        seed: Any = UNSET,
        inner_max_num_threads: int | None | Unset = UNSET,
        **backend_params: Any,
    ) -> None:
        given: dict[str, Any] = {
            "n_jobs": n_jobs if n_jobs is UNSET else coerce_n_jobs(n_jobs),
            "return_as": return_as,
            "verbose": verbose,
            "timeout": timeout,
            "pre_dispatch": pre_dispatch,
            "batch_size": batch_size,
            "total_timeout": total_timeout,
            "retries": retries,
            "return_exceptions": return_exceptions,
            "temp_folder": temp_folder,
            "max_nbytes": max_nbytes,
            "mmap_mode": mmap_mode,
            "prefer": prefer,
            "require": require,
            "serializer": serializer,
            "compression": compression,
            "compression_threshold": compression_threshold,
            "propagate": propagate,
            "seed": seed,
            "inner_max_num_threads": inner_max_num_threads,
        }
        given = {name: value for name, value in given.items() if value is not UNSET}
        _check_hints(given.get("prefer"), given.get("require"))
        for name, check in _CHECKS.items():
            if name in given:
                check(given[name])  # here, where the user wrote it, and not at the first call
        if backend is not UNSET and backend is not None:
            if isinstance(backend, str):
                _plugins.backend_factory(backend)  # an unknown name is an error here, not at the first call
            elif backend_params and not (isinstance(backend, type) or is_multiprocessing_context(backend)):
                raise ValueError(
                    f"options ({', '.join(backend_params)}) need a backend given by name; "
                    "give them to the constructor of the instance instead"
                )
            elif not _is_backend(backend):
                raise _no_backend(backend)
            given["backend"] = backend
            given["backend_options"] = MappingProxyType(backend_params)
        elif backend_params:
            raise ValueError(f"options ({', '.join(backend_params)}) need a backend given by name")
        self._before = ACTIVE.get()
        ACTIVE.set(self._before._replace(**given))

    def unregister(self) -> None:
        """Bring back the settings that held before."""
        ACTIVE.set(self._before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unregister()


class parallel_backend(parallel_config):  # noqa: N801 - joblib's name, used like a function
    """The older spelling of `parallel_config`: a backend, and by default as many workers as there are CPUs.

    Parameters
    ----------
    backend : str, ParallelBackendBase or multiprocessing context
        The backend.
    n_jobs : int, default -1
        Number of workers.
    inner_max_num_threads : int, optional
        Most threads of BLAS and OpenMP in each worker.
    **backend_params
        Options of the backend's constructor.
    """

    def __init__(
        self, backend: Any, n_jobs: Any = -1, inner_max_num_threads: int | None | Unset = UNSET, **backend_params: Any
    ) -> None:
        super().__init__(backend, n_jobs=n_jobs, inner_max_num_threads=inner_max_num_threads, **backend_params)

    def __enter__(self) -> Any:
        """Give (backend, n_jobs), as joblib does: an instance of the backend, and what was asked for."""
        return resolve_backend(None, None, None, {}, None).backend, ACTIVE.get().n_jobs
