from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import pytest

from parallel._pickling import brings_nothing


def by_name(value: int) -> int:
    return value + COUNT


COUNT = 1


def in_main(text: str) -> Any:
    """Make the function `task` of a script."""
    module = types.ModuleType("__main__")
    exec(text, module.__dict__)
    module.task.__module__ = "__main__"
    return module.task


@pytest.mark.parametrize("function", [by_name, abs, math.sqrt])
def test_what_is_found_by_its_name_brings_nothing(function: Callable[..., Any]) -> None:
    assert brings_nothing(function)


@pytest.mark.parametrize(
    "function", [partial(by_name, 1), [].append, "".join, COUNT.__add__, int, lambda: COUNT, types.SimpleNamespace()]
)
def test_objects_with_data_of_their_own_may_bring_some(function: Any) -> None:
    assert not brings_nothing(function)


def test_what_a_closure_holds_comes_along() -> None:
    values = [1]
    assert not brings_nothing(lambda: values)


@pytest.mark.parametrize(
    "text",
    [
        "def task(i): return i",
        "def task(i): return abs(i)",
        "import math\ndef task(i): return math.sqrt(i)",
        "from math import sqrt\ndef task(i): return sqrt(i)",
        "task = lambda i: i",
    ],
)
def test_a_function_of_a_script_that_names_no_data_brings_nothing(text: str) -> None:
    assert brings_nothing(in_main(text))


@pytest.mark.parametrize(
    "text",
    [
        "count = 0\ndef task(i): return i + count",
        "values = []\ndef task(i): return values",
        "def other(): pass\ndef task(i): return other()",
        "class A: pass\ndef task(i): return A()",
        "def task(i, seen=[]): return seen",
        "def task(i, *, seen=[]): return seen",
        "def task(i): pass\ntask.seen = []",
        "def task(i): return [i for _ in (lambda: values)()]",
        # Methods of objects, and modules that nobody can import, are data too.
        "look = {}.get\ndef task(i): return look(i)",
        "from random import random\ndef task(i): return random()",
        "import types\nconfig = types.ModuleType('made_here')\ndef task(i): return config.value",
    ],
)
def test_a_function_of_a_script_that_names_data_brings_it(text: str) -> None:
    assert not brings_nothing(in_main(text))


def test_what_is_pickled_by_value_at_the_users_wish_brings_its_data() -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        assert not brings_nothing(by_name)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
