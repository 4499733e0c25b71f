"""Short ways to write the entries of a row: a contender, and the way in which it is given work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.row import Entry

__all__ = ["Style", "ours", "peer"]

Style = Callable[[Any, Callable[..., Any], Any], object]


def ours(contender: str, style: Style, function: Callable[..., Any], items: Sequence[Any], *, n_jobs: int = 2) -> Entry:
    """Make an entry of `parallel` itself; its label is the contender's name."""
    return Entry(contender, lambda pool: style(pool, function, items), contender, n_jobs=n_jobs)


def peer(
    contender: str,
    style: Style,
    function: Callable[..., Any],
    items: Sequence[Any],
    *,
    label: str | None = None,
    n_jobs: int = 2,
) -> Entry:
    """Make an entry of a peer."""
    return Entry(label or contender, lambda pool: style(pool, function, items), contender, is_peer=True, n_jobs=n_jobs)
