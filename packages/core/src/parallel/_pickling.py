"""Pickles by cloudpickle's rules, at the speed of C where that gives the same."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from parallel._variables import reduce_variable

__all__ = ["cloud_pickler", "dumps", "dumps_by_value", "needs_value"]

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
    file = io.BytesIO()
    cloud_pickler(file).dump(value)
    return file.getvalue()


def cloud_pickler(
    file: io.BytesIO,
    reducers: Mapping[type, Callable[[Any], Any]] | None = None,
    methods: Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> pickle.Pickler:
    """Give a pickler by cloudpickle's rules, with reducers that come before these, and other methods."""
    import cloudpickle  # 20 ms, and many programs never need it

    kind: Any = cloudpickle.Pickler
    if methods:
        kind = type("_CloudPickler", (kind,), dict(methods))
    pickler = kind(file, 5, **options)
    table = {**pickler.dispatch_table, ContextVar: reduce_variable, **(reducers or {})}
    # Not by assignment: the class has an attribute of that name, so that would not reach what the pickler looks at.
    pickle.Pickler.dispatch_table.__set__(pickler, table)  # type: ignore[attr-defined]
    return pickler  # type: ignore[no-any-return]


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
