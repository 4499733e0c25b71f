"""Keeps the tests of the core apart from what is installed, and from each other."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from parallel import _plugins
from parallel._settings import ACTIVE, Settings

# Time is no property of the core: nothing here waits, and a slow machine fails no test.
settings.register_profile("core", max_examples=300, deadline=None)
settings.load_profile("core")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No backend but the built-in one, no plugin, no settings: what a test needs it brings itself."""

    def scan(group: str) -> dict[str, list[Any]]:
        return {}

    monkeypatch.setattr(_plugins, "_entry_points", functools.cache(scan))
    monkeypatch.setattr(_plugins, "_registered", {})
    monkeypatch.setattr(_plugins, "_loaded", {})
    monkeypatch.setattr(_plugins, "_default", [])
    _plugins.plugin_manager.cache_clear()
    for name in ("PARALLEL_BACKEND", "PARALLEL_N_JOBS"):
        monkeypatch.delenv(name, raising=False)
    token = ACTIVE.set(Settings())
    yield
    ACTIVE.reset(token)
    _plugins.plugin_manager.cache_clear()
