"""Pickles large containers among the results of a batch as soon as they are there, in a worker process.

What they are made of is a hundred bytes for an item, ten of it in the pickle. All results of a batch together would be
memory that is new to the process for each batch, and to get that from the system takes as long as the pickling.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from parallel._parcel import HAS_ARRAYS
from parallel._pickling import needs_value

__all__ = ["Keeper"]

#: What is pickled at once: containers of these types, with so many items.
CONTAINERS = frozenset({dict, frozenset, list, set, tuple})
MANY = 500


class _References:
    """Counts who has a value, as seen from inside a call with it."""

    def __call__(self, value: object) -> int:
        return sys.getrefcount(value)


#: What that is for a value that only the caller has.
_FRESH = _References()([]) if hasattr(sys, "getrefcount") else -1


class Keeper:
    """Takes the pickles of large results, which nobody but the worker's loop has.

    What somebody else has too, a table of a module say, may be the result of other tasks as well: it is left to the
    pickle of the whole batch, in which it is once. So is what does not pickle plainly.

    Parameters
    ----------
    limit
        Bytes from which on a pickle travels apart.
    values
        The results of the batch so far.
    """

    def __init__(self, limit: int, values: list[Any]) -> None:
        #: The pickles, by position.
        self.kept: dict[int, bytes] = {}
        self._limit = limit
        self._values = values
        self._is_off = False

    def __call__(self, value: Any) -> Any:
        """Give what to add to the results: the next one itself, or None if its pickle is kept. Does not raise."""
        if type(value) not in CONTAINERS or len(value) < MANY or self._is_off or sys.getrefcount(value) > _FRESH:
            return value
        self._is_off = True  # unless it goes well: others are likely to be like it, and would be pickled in vain
        offered: list[pickle.PickleBuffer] = []
        try:
            data = pickle.dumps(value, 5, buffer_callback=offered.append)
        except BaseException:  # the pickle of the batch will show
            return value
        if offered or len(data) >= self._limit or HAS_ARRAYS in data or needs_value(data):
            return value
        self._is_off = False
        self.kept[len(self._values)] = data
        return None
