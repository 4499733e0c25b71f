"""`explain`: what a call would do, and why."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from parallel._arguments import evaluate_pre_dispatch
from parallel._config import DEFAULTS, N_JOBS_VARIABLE, ChosenBackend
from parallel._cpu import cpu_budget, cpu_limit
from parallel._inner_threads import caps_of
from parallel._interpreter import EXITING, warn_outside
from parallel._plugins import BUILT_IN
from parallel._region import has_anonymous
from parallel._settings import ACTIVE, UNSET
from parallel.backend import resolve_n_jobs as backend_n_jobs

__all__ = [
    "SHOWN_SETTINGS",
    "Explanation",
    "Facts",
    "InCaller",
    "Origin",
    "explain_facts",
    "warn_of_caller",
]

#: Settings that an explanation shows as they are, in this order.
SHOWN_SETTINGS = (
    "batch_size",
    "pre_dispatch",
    "return_as",
    "timeout",
    "total_timeout",
    "retries",
    "return_exceptions",
    "max_nbytes",
    "mmap_mode",
    "propagate",
    "seed",
)


class Explanation(Mapping[str, Any]):
    """What a call would do, by name, and for each the reason; made by `parallel.explain`.

    ::

        explanation = parallel.explain(n_jobs=-1)
        explanation["n_jobs"]
        explanation.reasons["n_jobs"]
        print(explanation)

    It is a mapping of names to values. The names: backend, n_jobs, runs_in, inner_threads, nesting_level, batch_size,
    pre_dispatch, return_as, timeout, total_timeout, retries, return_exceptions, sharing, propagate, seed, and what the
    backend adds, as the start_method of its processes.

    Attributes
    ----------
    reasons : mapping of str to str
        Why each is what it is.
    """

    def __init__(self, entries: Mapping[str, tuple[Any, str]]) -> None:
        self._values = {name: value for name, (value, _) in entries.items()}
        self.reasons = {name: reason for name, (_, reason) in entries.items()}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        rows = [(name, _text(value), self.reasons[name]) for name, value in self._values.items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {reason}".rstrip() for name, value, reason in rows)

    def __repr__(self) -> str:
        return f"<Explanation\n{self}>"


class InCaller(enum.Enum):
    """Why a call runs in its caller."""

    SINGLE = "one worker is left out: the caller does the work itself"
    EXITING = EXITING
    OWN_WORKERS = "its workers are those that this task runs on, and waiting for them could take for ever"


class Origin:
    """Where the settings of a `Parallel` are from; made of the arguments of its constructor, when it is made."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.n_jobs = arguments["n_jobs"]
        self._explicit = frozenset(name for name in DEFAULTS if arguments.get(name, UNSET) is not UNSET)
        self._active = ACTIVE.get()

    def of(self, name: str) -> str:
        """Tell where a setting is from."""
        if name in self._explicit and not (name == "n_jobs" and self.n_jobs is None):
            return "argument"
        if getattr(self._active, name) is not UNSET:
            return "in force inside tasks" if self._active.nesting_level and name == "n_jobs" else "parallel_config"
        return "default"


class Facts(NamedTuple):
    """What `Parallel` has resolved.

    Attributes
    ----------
    chosen
        The backend.
    asked
        `n_jobs` as the user has said it; None if nowhere.
    n_jobs, workers
        What went to the backend, and what this made of it.
    settings
        Values of `SHOWN_SETTINGS`.
    origin
        Where they are from.
    in_caller
        Why the call would run in its caller; None if it would not.
    """

    chosen: ChosenBackend
    asked: int | None
    n_jobs: int
    workers: int
    settings: Mapping[str, Any]
    origin: Origin
    in_caller: InCaller | None


def explain_facts(facts: Facts) -> Explanation:
    """Put into words what a call would do."""
    backend = facts.chosen.backend
    added = dict(backend.explain(facts.n_jobs))
    entries: dict[str, tuple[Any, str]] = {
        "backend": (facts.chosen.name, _why_backend(facts)),
        "n_jobs": (facts.workers, _why_n_jobs(facts, added.pop("n_jobs", (None, ""))[1])),
        "runs_in": _runs_in(facts),
    }
    if not facts.in_caller:
        entries.update(added)
    entries["inner_threads"] = _inner_threads(facts)
    level = ACTIVE.get().nesting_level
    entries["nesting_level"] = level, "inside a task" if level else "not inside a task"
    for name, value in facts.settings.items():
        entries[name] = _setting(name, value, facts)
    entries["sharing"] = _sharing(facts)
    return Explanation(entries)


def _why_backend(facts: Facts) -> str:
    reason = facts.chosen.reason
    level = ACTIVE.get().nesting_level
    if reason == "context" and level:
        return f"in force inside tasks, nested at level {level}"
    if reason == "default" and facts.chosen.name == BUILT_IN:
        return "default: no other backend is installed"
    return {
        "argument": "argument",
        "context": "parallel_config",
        "environment": "environment variable PARALLEL_BACKEND",
        "default": "default: the best that is installed",
    }.get(reason, reason)


def _why_n_jobs(facts: Facts, by_backend: str) -> str:
    asked = facts.asked
    source = facts.origin.of("n_jobs")
    if asked is None:
        text = f"default of the backend {facts.chosen.name!r}"
    elif source == "default":
        text = f"environment variable {N_JOBS_VARIABLE}={asked}"
    else:
        text = f"{source} n_jobs={asked}"
    if by_backend:
        return f"{text}; {by_backend}"
    if facts.n_jobs < 0:
        share = ACTIVE.get().cpus
        count, limit = cpu_limit()
        of = f"this task's share is {_cpus(share)}" if share else f"{_cpus(count)}, {limit}"
        return f"{text}: {of}"
    if facts.workers != facts.n_jobs:
        return f"{text}; the backend {facts.chosen.name!r} has {facts.workers}"
    if facts.workers > cpu_budget():
        return f"{text}, which is more than the {_cpus(cpu_budget())} that there are for it"
    return text


def _runs_in(facts: Facts) -> tuple[str, str]:
    backend = facts.chosen.backend
    if facts.in_caller:
        return "caller", facts.in_caller.value
    if backend.uses_threads:
        return "threads", "workers are threads of this process"
    if backend.same_host:
        return "processes", "workers are processes of this host"
    return "workers", "the backend does not say where its workers are"


def _inner_threads(facts: Facts) -> tuple[int | None, str]:
    backend = facts.chosen.backend
    if facts.in_caller:
        share = ACTIVE.get().cpus
        return (share, "as in the task around") if share else (None, "not limited in the caller")
    name = "OMP_NUM_THREADS"
    environment = backend._prepare_worker_env(facts.workers)
    value = caps_of({name: environment.get(name, "")}, is_exact=True).most.get("openmp")
    if backend.inner_max_num_threads is not None:
        return value, "inner_max_num_threads"
    share = max(cpu_budget() // facts.workers, 1)
    if value != share:
        return value, f"environment variable {name}"
    over = " (oversubscribed, because n_jobs says so)" if facts.workers > cpu_budget() else ""
    return value, f"each worker's share: {_cpus(cpu_budget())} for {facts.workers} workers{over}"


def _setting(name: str, value: Any, facts: Facts) -> tuple[Any, str]:
    source = facts.origin.of(name)
    if name == "pre_dispatch" and not facts.in_caller:
        count = evaluate_pre_dispatch(value, facts.workers)
        return value, f"{source}: " + ("the whole input is read first" if count is None else f"{count} batches")
    if name == "retries":
        return value.attempts - 1, source
    if name == "batch_size" and value == "auto":
        return value, f"{source}: measured, so that dispatch costs next to nothing"
    return value, source


def _sharing(facts: Facts) -> tuple[str | None, str]:
    backend = facts.chosen.backend
    if facts.in_caller or backend.uses_threads:
        return None, "tasks have the caller's own objects"
    if not (backend.same_host and backend.wire == "bytes"):
        return None, "workers may be on another host"
    limit, mode = facts.settings["max_nbytes"], facts.settings["mmap_mode"]
    if limit is None:
        return None, f"max_nbytes=None ({facts.origin.of('max_nbytes')})"
    what = "results" if mode is None else "arguments and results"
    where = "anonymous memory" if has_anonymous() else "files"
    return f"{what} from {limit}", f"in {where}; max_nbytes: {facts.origin.of('max_nbytes')}"


def warn_of_caller(why: InCaller, chosen: ChosenBackend, n_jobs: int, workers: int) -> None:
    """Warn that a call runs in its caller, if it was to have more than one worker and nobody has said otherwise."""
    text = why.value
    if why is InCaller.SINGLE:
        if chosen.name != BUILT_IN or chosen.reason == "argument":
            return
        workers = backend_n_jobs(n_jobs)
        text = "no other backend is installed (pip install 'parallel-core[local]')"
        if chosen.reason == "context":
            level = ACTIVE.get().nesting_level
            text = f"that is the backend in force here, at nesting level {level}; name another one"
    if workers > 1 or why is InCaller.EXITING:
        _warn(workers, text)


def _warn(workers: int, why: str) -> None:
    warn_outside(f"tasks run one after the other instead of on {workers} workers: {why}")


def _cpus(count: int) -> str:
    return "1 CPU" if count == 1 else f"{count} CPUs"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
