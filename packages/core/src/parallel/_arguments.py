"""Checks the arguments of `Parallel` that have a form of their own."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Literal

from parallel._context import ALL_KINDS
from parallel._retry import ONCE, Retry

__all__ = [
    "DEFAULT_PRE_DISPATCH",
    "RETURN_AS",
    "ReturnAs",
    "check_batch_size",
    "check_function",
    "check_inner_max_num_threads",
    "check_max_nbytes",
    "check_mmap_mode",
    "check_propagate",
    "check_retries",
    "check_return_as",
    "check_seed",
    "check_temp_folder",
    "check_timeout",
    "evaluate_pre_dispatch",
]

ReturnAs = Literal["list", "generator", "generator_unordered"]
RETURN_AS = ("list", "generator", "generator_unordered")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

#: "w+" means a new file, in numpy; what is mapped here is always new.
_MMAP_MODES = {"r": "r", "c": "c", "r+": "r+", "w+": "r+", None: None}

#: Most calls leave it at this, which needs no parser.
DEFAULT_PRE_DISPATCH = "2 * n_jobs"


def check_return_as(return_as: Any) -> ReturnAs:
    """Check `return_as`.

    Raises
    ------
    ValueError
        If it is none of "list", "generator", "generator_unordered".
    """
    if return_as not in RETURN_AS:
        raise ValueError(f"return_as must be one of {', '.join(RETURN_AS)}, not {return_as!r}")
    return return_as  # type: ignore[no-any-return]


def check_batch_size(batch_size: Any) -> int | None:
    """Check `batch_size` and give it as an int, None for "auto".

    Raises
    ------
    ValueError
        If it is neither "auto" nor a positive integer.
    """
    if isinstance(batch_size, str) and batch_size == "auto":
        return None
    size = _integer(batch_size, 1)
    if size is None:
        raise ValueError(f"batch_size must be 'auto' or a positive integer, not {batch_size!r}")
    return size


def check_timeout(timeout: Any, name: str = "timeout") -> float | None:
    """Check a time limit and give it as seconds.

    Raises
    ------
    ValueError
        If it is neither None nor a positive number.
    """
    if timeout is None:
        return None
    try:
        seconds = float(timeout)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number of seconds or None, not {timeout!r}") from error
    if not seconds > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {timeout!r}")
    return None if seconds == float("inf") else seconds


def check_max_nbytes(max_nbytes: Any, name: str = "max_nbytes") -> int | None:
    """Check `max_nbytes` and give it as a number of bytes; None for no limit.

    Raises
    ------
    ValueError
        If it is neither None, nor an integer of at least 0, nor one with a unit, as "1M".
    """
    if max_nbytes is None:
        return None
    number: Any = max_nbytes if not isinstance(max_nbytes, bool) else None
    unit = 1
    if isinstance(max_nbytes, str):
        text = max_nbytes.strip().upper()
        unit = _UNITS.get(text[-1:], 0)
        number = int(text[:-1]) if unit and text[:-1].isdecimal() and text.isascii() else None
    try:
        n_bytes = operator.index(number) * unit
    except TypeError:
        n_bytes = -1
    if n_bytes < 0:
        raise ValueError(f"{name} must be an integer, a number with K, M or G, or None, not {max_nbytes!r}")
    return n_bytes


def check_temp_folder(temp_folder: Any) -> str | None:
    """Check `temp_folder` and give it as a text; whether it is there shows when it is needed.

    Raises
    ------
    ValueError
        If it is neither None nor a path.
    """
    if temp_folder is None:
        return None
    path = temp_folder if isinstance(temp_folder, str) else getattr(temp_folder, "__fspath__", lambda: None)()
    if not isinstance(path, str) or not path:
        raise ValueError(f"temp_folder must be a path or None, not {temp_folder!r}")
    return path


def check_mmap_mode(mmap_mode: Any) -> str | None:
    """Check `mmap_mode`, and give the way to map that it stands for.

    Raises
    ------
    ValueError
        If it is none of numpy's modes, nor None.
    """
    if not isinstance(mmap_mode, str | None) or mmap_mode not in _MMAP_MODES:
        known = ", ".join(map(repr, _MMAP_MODES))
        raise ValueError(f"mmap_mode must be one of {known}, not {mmap_mode!r}")
    return _MMAP_MODES[mmap_mode]


def check_retries(retries: Any) -> Retry:
    """Check `retries` and give it as a `Retry`.

    Raises
    ------
    ValueError
        If it is neither a `Retry` nor an integer of at least 0.
    """
    if isinstance(retries, Retry):
        return retries
    if retries is None:
        return ONCE
    count = _integer(retries, 0)
    if count is None:
        raise ValueError(f"retries must be an integer of at least 0 or a Retry, not {retries!r}")
    return Retry(attempts=count + 1)


def check_propagate(propagate: Any) -> frozenset[str]:
    """Check `propagate`, and give it as a set.

    Raises
    ------
    ValueError
        If it is neither a bool, nor a collection of what can be propagated.
    """
    if propagate is None or isinstance(propagate, bool):
        return ALL_KINDS if propagate else frozenset()
    try:
        kinds = frozenset((propagate,) if isinstance(propagate, str) else propagate)
    except TypeError:
        kinds = frozenset((repr(propagate),))
    if not kinds <= ALL_KINDS:
        known = ", ".join(sorted(ALL_KINDS))
        raise ValueError(f"propagate must be True, False or a collection of {known}, not {propagate!r}")
    return kinds


def check_inner_max_num_threads(threads: Any) -> int | None:
    """Check `inner_max_num_threads`.

    Raises
    ------
    ValueError
        If it is neither None nor an integer of at least 1.
    """
    if threads is None:
        return None
    number = _integer(threads, 1)
    if number is None:
        raise ValueError(f"inner_max_num_threads must be an integer of at least 1 or None, not {threads!r}")
    return number


def check_seed(seed: Any) -> Any:
    """Check `seed`.

    Raises
    ------
    ValueError
        If it is neither None, nor an integer of at least 0 or some of them, nor a SeedSequence.
    """
    if seed is None or hasattr(seed, "spawn_key"):
        return seed
    try:
        numbers = [operator.index(seed)] if hasattr(seed, "__index__") else [operator.index(part) for part in seed]
    except TypeError:
        numbers = [-1]
    if isinstance(seed, bool) or any(number < 0 for number in numbers):
        raise ValueError(f"seed must be an integer of at least 0, a sequence of them or a SeedSequence, not {seed!r}")
    return seed


def check_function(function: Any) -> Callable[..., Any]:
    """Check what is to be called.

    Raises
    ------
    TypeError
        If it cannot be called.
    """
    if not callable(function):
        raise TypeError(f"the function to call must be callable, not {function!r}")
    return function  # type: ignore[no-any-return]


def _integer(value: Any, least: int) -> int | None:
    """Give an integer of at least `least`; None for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if number >= least else None


def evaluate_pre_dispatch(pre_dispatch: Any, n_jobs: int) -> int | None:
    """Turn `pre_dispatch` into a number of batches, None for "all".

    Parameters
    ----------
    pre_dispatch : int or str
        A positive integer, "all", or arithmetic (``+ - * / // % **`` and brackets) in ``n_jobs``. Never evaluated as
        Python: an earlier version of joblib did, and that was CVE-2022-21797.
    n_jobs : int
        What ``n_jobs`` stands for.

    Raises
    ------
    ValueError
        If it is anything else, or does not come to at least 1.
    """
    if not isinstance(pre_dispatch, str):
        if isinstance(pre_dispatch, float) and not pre_dispatch.is_integer():
            raise _wrong_pre_dispatch(pre_dispatch)
        value = pre_dispatch
    elif pre_dispatch == "all":
        return None
    elif pre_dispatch == DEFAULT_PRE_DISPATCH:
        return 2 * n_jobs
    else:
        value = _evaluate(pre_dispatch, n_jobs)
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong_pre_dispatch(pre_dispatch) from error
    if count < 1:
        raise _wrong_pre_dispatch(pre_dispatch)
    return count


def _wrong_pre_dispatch(pre_dispatch: Any) -> ValueError:
    return ValueError(
        f"pre_dispatch must be 'all', a positive integer, or arithmetic in n_jobs that gives one, "
        f"not {pre_dispatch!r:.80}"
    )


@functools.lru_cache(maxsize=64)
def _evaluate(text: str, n_jobs: int) -> int | float:
    from parallel._arithmetic import evaluate  # ast is 3 ms, for an argument that few give

    try:
        return evaluate(text, {"n_jobs": n_jobs})
    except ValueError as error:
        raise _wrong_pre_dispatch(text) from error
