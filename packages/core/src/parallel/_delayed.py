"""`delayed`: the usual way to write down a task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

__all__ = ["Task", "delayed"]

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


# The function that `delayed` wrapped last, and its wrapper: most inputs wrap one function again and again, and
# `functools.wraps` costs 3 µs, ten times the task tuple. Only functions without a closure are kept here.
_last_delayed: tuple[object, Callable[..., Task] | None] = (None, None)


def delayed(function: Callable[..., Any]) -> Callable[..., Task]:
    """Capture a call instead of making it: ``delayed(f)(x, y=1)`` is ``(f, (x,), {"y": 1})``.

    What it gives has the name and the docstring of the function.

    Parameters
    ----------
    function : callable
        What the task calls.
    """
    global _last_delayed
    known, wrapper = _last_delayed
    if known is function and wrapper is not None:
        return wrapper

    def delayed_function(*args: Any, **kwargs: Any) -> Task:
        return function, args, kwargs

    try:
        functools.update_wrapper(delayed_function, function)
    except AttributeError:  # it needs attributes that some callables refuse to give
        return delayed_function
    if type(function) is FunctionType and not function.__closure__:
        _last_delayed = (function, delayed_function)
    return delayed_function
