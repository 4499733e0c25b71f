"""Pickles by cloudpickle's rules, at the speed of C where that gives the same."""

from __future__ import annotations

import pickle
import sys

__all__ = ["dumps", "dumps_by_value", "needs_value"]

#: What the names of modules have in common that mean something else, or nothing, in a worker: __main__, __mp_main__.
_MAIN_NAMES = b"_main__"


def needs_value(data: bytes) -> bool:
    """Tell whether a plain pickle refers to something that only this process can import."""
    if _MAIN_NAMES in data:
        return True
    # A module that another thread is just importing does not have it yet, and nobody can have used it.
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registry is not None and bool(registry())


def dumps_by_value(value: object) -> bytes:
    import cloudpickle  # 20 ms, and many programs never need it

    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


def dumps(value: object) -> bytes:
    """Pickle by cloudpickle's rules, at the speed of C where that gives the same.

    Raises
    ------
    Exception
        Whatever the pickling of a user's object raises.
    """
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # lambdas, local classes, modules: cloudpickle's; it raises for what nobody can pickle
        return dumps_by_value(value)
    return dumps_by_value(value) if needs_value(data) else data
