from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from parallel import _watch

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfd")


def has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_descriptor_that_a_task_has_closed_is_not_taken_for_the_end_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    pidfd_open = os.pidfd_open

    def remember(pid: int) -> int:
        opened.append(pidfd_open(pid))
        return opened[-1]

    monkeypatch.setattr("os.pidfd_open", remember)
    seen: list[bool] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as caller:
        wait = _watch._waiter(caller.pid)
        assert wait is not None
        os.close(opened.pop())
        thread = threading.Thread(target=lambda: (wait(), seen.append(has_ended(caller.pid))))
        thread.start()
        caller.kill()
        thread.join()
    assert seen == [True]
    for descriptor in opened:
        os.close(descriptor)
