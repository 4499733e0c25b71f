"""The check for leaks itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from parallel_testkit import LeakCheck

pytestmark = pytest.mark.skipif(not LeakCheck.is_available, reason="looks at /proc")


def test_a_thread_that_somebody_is_about_to_start_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = LeakCheck(tmp_path)
    there, new = threading.enumerate(), threading.Thread(name="about to start")
    monkeypatch.setattr(threading, "enumerate", lambda: [*there, new])
    with pytest.raises(AssertionError, match="about to start"):
        check.assert_nothing_left(settle_seconds=0.01)
