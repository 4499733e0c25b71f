"""What installed distributions declare as entry points, where that can be had without importing much.

importlib.metadata finds them anywhere; importing it and what it needs takes some 40 ms, more than the first call of a
program should. In folders on `sys.path`, where nearly all distributions are, they are two lines in a small file
(https://packaging.python.org/specifications/entry-points/). Whatever else is found there is left to importlib_metadata.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any, NamedTuple, Protocol

__all__ = ["EntryPoint", "entry_points", "forget", "normalized"]


class Named(Protocol):
    """A distribution."""

    @property
    def name(self) -> str:
        """Its name, as it is written."""


class EntryPoint(Protocol):
    """What there is to know of an entry point; importlib_metadata has more."""

    @property
    def name(self) -> str:
        """What it is found by."""

    @property
    def value(self) -> str:
        """Where it is: ``module`` or ``module:attribute``."""

    @property
    def dist(self) -> Named | None:
        """Who declares it."""

    def load(self) -> Any:
        """Import it."""


def entry_points(group: str) -> list[EntryPoint]:
    """Give the entry points of a group; of a distribution that is found twice those of the first."""
    found = _scan()
    if found is None:
        import importlib_metadata

        return list(importlib_metadata.entry_points(group=group))
    return [entry_point for entry_point in found if entry_point.group == group]


def forget() -> None:
    """Look again the next time: something may have been installed."""
    _scan.cache_clear()


def normalized(name: str) -> str:
    """Give the form in which names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


class _Distribution(NamedTuple):
    folder: str

    @property
    def name(self) -> str:
        for file in ("METADATA", "PKG-INFO"):
            try:
                with open(os.path.join(self.folder, file), encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        if line.lower().startswith("name:"):
                            return line[5:].strip()
            except OSError:
                continue
        return _name_of(self.folder)


class _Found(NamedTuple):
    name: str
    value: str
    group: str
    dist: _Distribution

    def load(self) -> Any:
        """Import it."""
        module, _, path = self.value.partition("[")[0].strip().partition(":")
        found: Any = import_module(module.strip())
        for attribute in filter(None, path.strip().split(".")):
            found = getattr(found, attribute)
        return found


@functools.cache
def _scan() -> list[_Found] | None:
    """Give all entry points of groups of this library; None if that is for importlib_metadata to find out."""
    if not all(map(_looks_into_folders, sys.meta_path)):
        return None
    found: list[_Found] = []
    seen: set[str] = set()
    for path in sys.path:
        try:
            names = os.listdir(path or ".")
        except NotADirectoryError:  # an archive
            return None
        except OSError:
            continue
        for name in names:
            if not name.endswith((".dist-info", ".egg-info")) and not (name == "EGG-INFO" and path.endswith(".egg")):
                continue
            folder = os.path.join(path or ".", name)
            distribution = normalized(_name_of(folder))
            if distribution not in seen:
                seen.add(distribution)
                found += _read(folder)
    return found


def _looks_into_folders(finder: object) -> bool:
    # A finder of somebody else's may know of distributions anywhere; importlib_metadata has one that does what it does.
    kind = finder if isinstance(finder, type) else type(finder)
    return finder is PathFinder or not hasattr(finder, "find_distributions") or kind.__module__ == "importlib_metadata"


def _name_of(folder: str) -> str:
    name = os.path.basename(folder)
    if name == "EGG-INFO":
        name = os.path.basename(os.path.dirname(folder))
    return name.rpartition(".")[0].partition("-")[0]


def _read(folder: str) -> Iterator[_Found]:
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return
    if "[parallel." not in text:
        return
    distribution = _Distribution(folder)
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield _Found(name.strip(), value.strip(), group, distribution)
