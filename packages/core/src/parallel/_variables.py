"""Context variables by the modules that have them: how they are known in another process."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

__all__ = ["Places", "find_variable", "places_of", "reduce_variable"]

#: Modules that have a context variable, and under which name: the one where it is at home, and others that import it.
Places = tuple[tuple[str, str], ...]

_NOT_IMPORTABLE = ("__main__", "__mp_main__")

#: Where variables were found, and how many modules there were when they were looked for.
_places: dict[ContextVar[Any], tuple[Places, int]] = {}

#: So many are enough: a worker takes the first that it has, or else that it can import.
_MAX_PLACES = 4


def places_of(variable: ContextVar[Any]) -> Places:
    """Give where a variable is found in this process; nothing if that is nowhere, or only in the script."""
    found, n_modules = _places.get(variable, ((), -1))
    if not found and n_modules != len(sys.modules):
        found = tuple(_search(variable))[:_MAX_PLACES]
        _places[variable] = found, len(sys.modules)
    return found


def _search(variable: ContextVar[Any]) -> Iterable[tuple[str, str]]:
    for name, module in reversed(list(sys.modules.items())):  # who imports a module is there before it, mostly
        if name not in _NOT_IMPORTABLE:
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is variable:
                    yield name, attribute


def find_variable(places: Places) -> ContextVar[Any] | None:
    """Give a variable in another process."""
    for module, name in sorted(places, key=lambda place: place[0] not in sys.modules):
        with contextlib.suppress(Exception):  # not to be had here, or not what it is there
            found = getattr(importlib.import_module(module), name)
            if isinstance(found, ContextVar):
                return found
    return None


def reduce_variable(variable: ContextVar[Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Let a function that refers to a variable travel: the worker has the variable of its own module.

    Raises
    ------
    TypeError
        If no module that can be imported has it.
    """
    places = places_of(variable)
    if not places:
        raise TypeError(
            f"cannot pickle the context variable {variable.name!r}: define it in a module, not in the script"
        )
    return _variable, (places,)


def _variable(places: Places) -> ContextVar[Any]:
    found = find_variable(places)
    if found is None:
        raise ImportError(f"there is no context variable at {' or '.join('.'.join(place) for place in places)}")
    return found
