"""Puts results in the order in which they are to be delivered. Pure.

Results come in fragments: neighbours in the input that one batch brought back. A fragment is delivered as a whole and
as itself, never joined with others, so that the consumer's progress can be counted by fragments.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Protocol

__all__ = ["OrderedResults", "Results", "UnorderedResults"]


class Results(Protocol):
    """What the scheduler needs of a buffer."""

    def add(self, start: int, values: list[Any]) -> list[tuple[int, list[Any]]]:
        """Take the results of tasks `start` and following; give the fragments (start, values) that can go out now."""

    def is_next(self, start: int) -> bool:
        """Tell whether nothing can be delivered before task `start` is done."""

    def waiting(self, *, forget: bool = False) -> Iterator[tuple[int, Any]]:
        """Give the results, with their indices, that cannot go out yet; and `forget` them."""


class OrderedResults:
    """Delivers in the order of the input."""

    def __init__(self) -> None:
        self._next = 0
        self._held: dict[int, list[Any]] = {}

    def add(self, start: int, values: list[Any]) -> list[tuple[int, list[Any]]]:
        """Hold the fragment until all before it are out; see `Results`."""
        assert start >= self._next and start not in self._held, "a result came twice"
        if start != self._next:
            self._held[start] = values
            return []
        ready = [(start, values)]
        self._next += len(values)
        while (following := self._held.pop(self._next, None)) is not None:
            ready.append((self._next, following))
            self._next += len(following)
        return ready

    def is_next(self, start: int) -> bool:
        """Tell whether task `start` is the one that everything waits for."""
        return start == self._next

    def waiting(self, *, forget: bool = False) -> Iterator[tuple[int, Any]]:
        """Give what waits for earlier results."""
        held = self._held
        if forget:
            self._held = {}
        return chain.from_iterable(enumerate(values, start) for start, values in held.items())

    def __repr__(self) -> str:
        return f"<OrderedResults {self._next} out, {sum(map(len, self._held.values()))} held>"


class UnorderedResults:
    """Delivers as results come."""

    def __init__(self) -> None:
        self._out = 0

    def add(self, start: int, values: list[Any]) -> list[tuple[int, list[Any]]]:
        """Let the fragment through."""
        self._out += len(values)
        return [(start, values)]

    def is_next(self, start: int) -> bool:
        """Nothing ever waits for one task."""
        return False

    def waiting(self, *, forget: bool = False) -> Iterator[tuple[int, Any]]:
        """Nothing waits."""
        return iter(())

    def __repr__(self) -> str:
        return f"<UnorderedResults {self._out} out>"
