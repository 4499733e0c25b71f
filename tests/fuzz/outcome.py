"""What came of a call, in a form that can be compared, and sent from wherever it ran."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Came", "Element", "Failure", "Note", "describe", "notes_of"]

#: What a note of an exception says: ("task", index), or ("attempt", which, of how many).
Note: TypeAlias = tuple[Any, ...]

_NOTES = {
    "task": re.compile(r"raised by task (\d+) "),
    "attempt": re.compile(r"this was attempt (\d+) of (\d+)"),
}


@dataclass(frozen=True)
class Failure:
    """An exception: the name of its type, its text, its notes from the inside out; None where that does not matter."""

    kind: str
    text: str | None
    notes: tuple[Note, ...] | None

    def covers(self, other: Failure) -> bool:
        """Tell whether an exception that came is this one, as far as this one says."""
        return (
            self.kind == other.kind
            and self.text in (None, other.text)
            and (self.notes is None or self.notes == other.notes)
        )


@dataclass(frozen=True)
class Element:
    """A result, or a failure in its place."""

    #: None for a failure that does not say which task it was.
    index: int | None
    #: The attempt that gave it; 0 for a failure.
    attempt: int
    value: Any


@dataclass(frozen=True)
class Came:
    """What came of one call."""

    #: In the order in which they came; of a list call that failed, the partial results.
    elements: tuple[Element, ...]
    #: "end", "left", or the failure that was raised.
    end: str | Failure
    #: What must never be seen.
    oddities: tuple[str, ...] = ()


def notes_of(error: BaseException) -> tuple[Note, ...]:
    """Give what the notes of an exception say."""
    found: list[Note] = []
    for note in getattr(error, "__notes__", None) or ():
        for name, pattern in _NOTES.items():
            match = pattern.match(note)
            if match:
                found.append((name, *map(int, match.groups())))
    return tuple(found)


def describe(error: BaseException) -> Failure:
    """Give an exception as it can be compared."""
    return Failure(type(error).__name__, str(error), notes_of(error))
