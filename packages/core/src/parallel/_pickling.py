"""Pickles by cloudpickle's rules, at the speed of C where that gives the same."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from parallel._variables import reduce_variable

__all__ = ["brings_nothing", "cloud_pickler", "dumps", "dumps_by_value", "is_module_function", "needs_value"]

#: What the names of modules have in common that mean something else, or nothing, in a worker: __main__, __mp_main__.
_MAIN_NAMES = b"_main__"


def needs_value(data: bytes) -> bool:
    """Tell whether a plain pickle refers to something that only this process can import."""
    if _MAIN_NAMES in data:
        return True
    # A module that another thread is just importing does not have it yet, and nobody can have used it.
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registry is not None and bool(registry())


def brings_nothing(function: object) -> bool:
    """Tell whether nothing travels with a function that could be changed while it stays what it is."""
    if type(function) is not FunctionType:
        return is_module_function(function)
    if function.__closure__ is not None:
        return False
    is_found = getattr(sys.modules.get(function.__module__), function.__qualname__, None) is function
    if is_found and function.__module__ != "__main__" and not needs_value(b""):
        return True  # only its name does
    # It travels with those globals that it names, as they are then. Those of functions inside it are not looked for.
    names, known = function.__code__.co_names, function.__globals__
    has_inner = any(isinstance(constant, CodeType) for constant in function.__code__.co_consts)
    has_own = function.__defaults__ or function.__kwdefaults__ or function.__dict__
    return not has_inner and not has_own and all(_is_fixed(known[name]) for name in names if name in known)


def _is_fixed(value: object) -> bool:
    """Tell whether a global travels by its name: a module, or a function of one that is written in C."""
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value and not needs_value(b"")
    return is_module_function(value)


def is_module_function(value: object) -> bool:
    """Tell whether something is a function written in C, and not a method, which has an object of its own."""
    return isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType)


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
