"""The settings in force, as one frozen value in one ContextVar.

They hold in the asyncio task or the thread that set them, and in what copies its context. Inside a task of a call, the
worker sets those for calls nested in it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

__all__ = ["ACTIVE", "BUSY", "UNSET", "Settings", "Unset"]


class Unset(enum.Enum):
    """The type of `UNSET`, where None means something."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


class Settings(NamedTuple):
    """What `parallel_config` sets; a field that is UNSET leaves the default.

    `backend` is a name, an instance of ParallelBackendBase or a multiprocessing context; it is Any here because this
    module is below all of these.
    """

    backend: Any = UNSET
    backend_options: Mapping[str, Any] = MappingProxyType({})
    n_jobs: int | None | Literal[Unset.UNSET] = UNSET
    return_as: str | Literal[Unset.UNSET] = UNSET
    verbose: int | Literal[Unset.UNSET] = UNSET
    timeout: float | None | Literal[Unset.UNSET] = UNSET
    pre_dispatch: int | str | Literal[Unset.UNSET] = UNSET
    batch_size: int | str | Literal[Unset.UNSET] = UNSET
    total_timeout: float | None | Literal[Unset.UNSET] = UNSET
    #: An int or a `Retry`, which is above this module.
    retries: Any = UNSET
    return_exceptions: bool | Literal[Unset.UNSET] = UNSET
    temp_folder: str | None | Literal[Unset.UNSET] = UNSET
    max_nbytes: int | str | None | Literal[Unset.UNSET] = UNSET
    mmap_mode: str | None | Literal[Unset.UNSET] = UNSET
    serializer: Any = UNSET
    compression: str | None | Literal[Unset.UNSET] = UNSET
    compression_threshold: int | str | Literal[Unset.UNSET] = UNSET
    propagate: Any = UNSET
    seed: Any = UNSET
    prefer: str | None | Literal[Unset.UNSET] = UNSET
    require: str | None | Literal[Unset.UNSET] = UNSET
    inner_max_num_threads: int | None | Literal[Unset.UNSET] = UNSET
    #: How many parallel calls are around this place; set by workers only.
    nesting_level: int = 0
    #: How many CPUs are for this place: a task's share of what its call has. 0 outside of tasks: all that there are.
    cpus: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # Travels to workers: a mapping proxy cannot be pickled, and what is UNSET need not be.
        fields = {name: getattr(self, name) for name in self._fields if getattr(self, name) is not UNSET}
        fields["backend_options"] = dict(self.backend_options)
        return _make_settings, (fields,)


def _make_settings(fields: dict[str, Any]) -> Settings:
    return Settings(**fields)


ACTIVE: ContextVar[Settings] = ContextVar("parallel_settings", default=Settings())  # noqa: B039 - it is frozen

#: Whose worker threads the code at this place runs on: process and id of what owns them. A call that would need the
#: same workers again could wait for itself for ever.
BUSY: ContextVar[frozenset[tuple[int, int]]] = ContextVar("parallel_busy", default=frozenset())
