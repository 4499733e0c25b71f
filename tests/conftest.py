"""What holds for every test: none may hang."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from typing import IO

import pytest

_stderr: IO[str] | None = None


def pytest_configure() -> None:
    # Output is captured while a test runs, and lost when the run ends in the middle of one.
    global _stderr
    _stderr = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")  # type: ignore[union-attr]


def pytest_unconfigure() -> None:
    if _stderr is not None:
        _stderr.close()


@pytest.fixture
def hang_seconds(request: pytest.FixtureRequest) -> float:
    """How long a test may take; a module with longer ones overrides it."""
    return 600.0 if request.node.get_closest_marker("wheels") is not None else 60.0


@pytest.fixture(autouse=True)
def hang_guard(hang_seconds: float) -> Iterator[None]:
    """End the run, with the stacks of all threads, when a test hangs."""
    assert _stderr is not None
    faulthandler.dump_traceback_later(hang_seconds, exit=True, file=_stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
