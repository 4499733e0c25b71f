from __future__ import annotations

import functools
import pickle
import threading
from collections import deque
from typing import Any

import pytest

from parallel._culprit import find_culprit
from parallel.backend import dumps

LOCK = threading.Lock()


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        pass


class Slotted:
    __slots__ = ("inner", "other")

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Refusing:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class Silent:
    def __reduce__(self) -> Any:
        raise ValueError


def find(value: object) -> tuple[str, str] | None:
    return find_culprit(value, "args[1]", dumps)


def path(value: object) -> str:
    found = find(value)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("value", [1, "text", [1, {2: (3,)}], Holder(a=1), len, lambda: 1])
def test_there_is_no_culprit_in_what_can_be_pickled(value: object) -> None:
    assert find(value) is None


def test_the_culprit_is_named_by_its_path_and_the_reason() -> None:
    assert find(Holder(cache=Holder(_lock=LOCK))) == ("args[1].cache._lock", "cannot pickle '_thread.lock' object")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LOCK, "args[1]"),
        ([0, LOCK], "args[1][1]"),
        ((LOCK,), "args[1][0]"),
        (deque([1, LOCK]), "args[1][1]"),
        ({"model": LOCK}, "args[1]['model']"),
        ({LOCK: 1}, "args[1].key("),
        ({LOCK}, "args[1].element("),
        (frozenset([LOCK]), "args[1].element("),
        (Holder(inner=[{"x": LOCK}]), "args[1].inner[0]['x']"),
        (Slotted(LOCK), "args[1].inner"),
        (functools.partial(len, LOCK), "args[1].args[0]"),
        (functools.partial(len, x=LOCK), "args[1].keywords['x']"),
        (Holder(lock=LOCK).method, "args[1].__self__.lock"),
        (ValueError("text", LOCK), "args[1].args[1]"),
    ],
)
def test_the_path_leads_through(value: object, expected: str) -> None:
    assert path(value).startswith(expected)


def test_the_path_leads_into_a_closure() -> None:
    lock = threading.Lock()
    assert path(lambda: lock) == "args[1].<closure lock>"


def test_the_path_leads_into_defaults() -> None:
    assert path(lambda x=LOCK: x) == "args[1].__defaults__[0]"
    assert path(lambda *, x=LOCK: x) == "args[1].__kwdefaults__['x']"


def test_the_path_leads_into_globals_of_functions_that_travel_by_value() -> None:
    assert path(lambda: LOCK) == "args[1].<global LOCK>"
    assert path(lambda: [LOCK for _ in "a"]) == "args[1].<global LOCK>"


def test_the_path_leads_into_a_class_that_travels_by_value() -> None:
    class Local:
        shared = LOCK

    assert path(Local) == "args[1].shared"


def test_the_path_ends_at_an_object_that_refuses() -> None:
    assert find([Refusing()]) == ("args[1][0]", "not me")


def test_a_refusal_without_a_word_is_shown_by_its_type() -> None:
    assert find([Silent()]) == ("args[1][0]", "ValueError()")


def test_the_first_of_several_culprits_is_named() -> None:
    assert path([1, LOCK, LOCK]) == "args[1][1]"


def test_a_cycle_ends_the_search() -> None:
    holder = Holder()
    holder.me = holder
    holder.lock = LOCK
    assert path(holder) == "args[1].lock"


def test_what_is_nested_too_deeply_is_said_to_be() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    found = find(value)
    try:
        assert found is not None
        assert found[1] == "it is nested too deeply to be pickled"
        assert len(found[0]) < 200
    finally:
        while value:  # taken apart from the outside, or freeing it may overflow the stack
            value = value.pop()


def test_an_object_that_cannot_be_looked_into_ends_the_path() -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            raise RuntimeError("no")

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("and no")

    assert find([Hostile()]) == ("args[1][0]", "no")


def test_a_repr_that_fails_does_not_hide_the_culprit() -> None:
    class Unprintable:
        def __hash__(self) -> int:
            return 1

        def __repr__(self) -> str:
            raise RuntimeError("no text")

    found = find_culprit({Unprintable(): LOCK}, "x", pickle.dumps)
    assert found is not None


def test_long_keys_are_cut() -> None:
    assert len(path({"k" * 1000: LOCK})) < 100
