"""`share`: writes an object for several calls."""

from __future__ import annotations

from parallel._config import checked
from parallel._memory import Sharing
from parallel._shared import Shared

__all__ = ["make_shared", "share"]

#: Buffers of at least this size are written apart where the automatic sharing is off.
_SHARE_FROM = 1 << 20


def share(value: object) -> Shared:
    """Write an object once, for tasks of several calls, by the settings in force; see `Shared` and `Parallel.share`.

    ::

        with parallel.share(table) as shared:
            Parallel(n_jobs=2)(delayed(search)(shared, word) for word in words)

    Parameters
    ----------
    value : object
        Anything that can be pickled. It must not be changed afterwards.

    Raises
    ------
    Exception
        Whatever the pickling of the object raises.
    """
    return make_shared(
        value,
        checked("max_nbytes"),
        checked("mmap_mode"),
        checked("temp_folder"),
    )


def make_shared(
    value: object, limit: int | None, mode: str | None, temp_folder: str | None, *, is_mapped: bool = True
) -> Shared:
    """Share an object by settings that were checked; without writing it if nobody maps it (`is_mapped`)."""
    sharing = Sharing(_SHARE_FROM if limit is None else limit, mode) if is_mapped else None
    return Shared(value, sharing, temp_folder)
