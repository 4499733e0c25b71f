"""Finds what inside an object cannot be pickled.

Only used once pickling has failed, so it may take its time: it pickles the parts of the object one by one and goes down
into the one that fails.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

__all__ = ["find_culprit"]

#: How far down to look. The path is for a person to read; a longer one helps nobody.
_MAX_DEPTH = 40


def find_culprit(value: object, path: str, dumps: Callable[[object], bytes]) -> tuple[str, str] | None:
    """Give the path to the part of `value` that cannot be pickled, and why; None if all of it can.

    Parameters
    ----------
    value
        The object.
    path
        What to call it, such as ``args[1]``.
    dumps
        Pickles an object or raises.
    """
    reason = _why_not(value, dumps)
    if reason is None:
        return None
    seen: set[int] = set()
    for _ in range(_MAX_DEPTH):
        seen.add(id(value))
        for step, part in _parts(value):
            if id(part) in seen:
                continue
            part_reason = _why_not(part, dumps)
            if part_reason is not None:
                value, path, reason = part, path + step, part_reason
                break
        else:
            break
    return path, reason


def _why_not(value: object, dumps: Callable[[object], bytes]) -> str | None:
    try:
        dumps(value)
    except RecursionError:
        return "it is nested too deeply to be pickled"
    except BaseException as error:  # user code in __reduce__ and __getstate__ may raise anything
        text = str(error)
        if "recursion" in text:
            return "it is nested too deeply to be pickled"
        return text if text else repr(error)
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what an object is made of, each with the step of the path that leads to it."""
    try:
        yield from _known_parts(value)
    except Exception:  # an object that cannot even be looked into ends the path here
        return


def _known_parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{_short(key)}]", part
        for key in value:
            yield f".key({_short(key)})", key
    elif isinstance(value, (list, tuple, deque)):
        for i, part in enumerate(value):
            yield f"[{i}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield f".element({_short(part)})", part
    if isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{i}]", part) for i, part in enumerate(value.args))
        yield from ((f".keywords[{name!r}]", part) for name, part in value.keywords.items())
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("__"))
    else:
        yield from _state_parts(value)


def _function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".<closure {name}>", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for i, part in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{i}]", part
    for name, part in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{name!r}]", part
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f".<global {name}>", function.__globals__[name]
    yield from ((f".{name}", part) for name, part in vars(function).items())


def _global_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _state_parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseException):
        yield from ((f".args[{i}]", part) for i, part in enumerate(value.args))
    yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
