"""How the tests of the suite say what they are about: marks that `parallel_testkit.plugin` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

__all__ = ["capability", "probe"]

T = TypeVar("T")


def capability(name: str) -> Callable[[T], T]:
    """Say which capability of a backend a test, or every test of a class that does not say so itself, is about."""
    mark = pytest.mark.capability(name)

    def decorate(target: T) -> T:
        if not isinstance(target, type):
            mark(target)
            return target
        # Each by itself: a mark of the class would be one of every test of a class that derives from it.
        for attribute, test in vars(target).items():
            if attribute.startswith("test_") and not _has_capability(test):
                mark(test)
        return target

    return decorate


#: Says that a test runs first, and that after its failure no other is worth running.
probe = pytest.mark.probe


def _has_capability(test: Any) -> bool:
    return any(mark.name == "capability" for mark in getattr(test, "pytestmark", ()))
