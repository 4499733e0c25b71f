from __future__ import annotations

import os
import subprocess
import sys

import pytest

from parallel._tree import descendants, kill_process_tree

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="the system does not tell its children")

#: Children that nobody has to reap: each vanishes at some point between looking for it and reading what is there.
VANISHING = """
import os, signal
from parallel._tree import descendants

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(300):
    child = os.fork()
    if child == 0:
        os._exit(0)
    is_there = True
    while is_there:
        assert descendants(child) == []
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            is_there = False
"""

#: A process with a child, and one of that, which all say that they are there, and wait.
FAMILY = """
import os, sys
for _ in range(2):
    if os.fork():
        break
os.write(1, b"x")
os.read(0, 1)
"""


def test_a_process_that_vanishes_meanwhile_has_no_descendants() -> None:
    done = subprocess.run([sys.executable, "-c", VANISHING], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_process_is_killed_with_all_that_it_has_started() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(3)) == 3
        assert len(descendants(process.pid)) == 2
        kill_process_tree(process.pid)
        assert process.stdout.read() == b""  # all three have ended: nobody holds the other end
        assert process.wait() < 0


def test_a_process_that_is_gone_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        kill_process_tree(process.pid)
        assert descendants(process.pid) == []
