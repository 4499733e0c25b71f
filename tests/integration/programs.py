"""Programs that tests run as processes of their own, to see how they end and what they leave behind."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

from parallel_testkit import Gate, Mailbox

BACKENDS = {
    "threads": "backend='threads'",
    "loky": "backend='loky'",
    "mp-fork": "backend='mp', start_method='fork'",
    "mp-spawn": "backend='mp', start_method='spawn'",
    "mp-forkserver": "backend='mp', start_method='forkserver'",
}

#: A program; its backend, a mailbox, a gate and what it does are filled in.
PROGRAM = """
import atexit, multiprocessing, os, pickle, subprocess, sys, threading, warnings
from parallel import Parallel, delayed

mailbox, gate = pickle.loads({signals!r})

def quick(i):
    return i

def slow(i):
    mailbox.send(os.getpid())
    gate.wait()
    return i

def make(**arguments):
    return Parallel(n_jobs=2, {backend}, batch_size=1, **arguments)

{definitions}

if __name__ == "__main__":
{body}
"""


class Program:
    """A program under way, in a session of its own, by which its processes are found whoever their parent is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temp = folder / "tmp"
        self.temp.mkdir()
        self.mailbox = Mailbox(folder / "mailbox")
        self.gate = Gate(folder / "gate")
        self._before = set(os.listdir("/dev/shm"))
        self._process: subprocess.Popen[str] | None = None

    def start(self, backend: str, body: str, definitions: str = "") -> subprocess.Popen[str]:
        """Start it; `backend` is one of `BACKENDS`, or arguments of `Parallel`."""
        file = self.folder / "program.py"
        signals = pickle.dumps((self.mailbox, self.gate))
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        text = PROGRAM.format(
            signals=signals, backend=BACKENDS.get(backend, backend), body=indented, definitions=definitions
        )
        file.write_text(text, "utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.temp)},
        )
        return self._process

    def assert_nothing_left(self, session: int, seconds: float = 30.0) -> None:
        """Wait for the end of all processes of the session; look at what they leave in folders."""
        give_up = monotonic() + seconds
        for process in members_of(session):
            try:
                descriptor = os.pidfd_open(process)
            except OSError:
                continue
            try:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                ended = poll.poll(max(give_up - monotonic(), 0) * 1000)
                assert ended, f"left behind: {Path(f'/proc/{process}/cmdline').read_bytes()!r}"
            finally:
                os.close(descriptor)
        assert [process for process in members_of(session) if process != session] == []
        # A fork server is multiprocessing's own, and so is the folder with its socket, which nobody else can clean up.
        assert [name for name in os.listdir(self.temp) if not name.startswith("pymp-")] == []
        assert [name for name in set(os.listdir("/dev/shm")) - self._before if str(session) in name] == []

    def close(self) -> None:
        self.gate.close()
        self.mailbox.close()
        if self._process is not None and self._process.poll() is None:  # a test has failed
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def members_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(name))
    return found


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end of a program.

    Raises
    ------
    AssertionError
        If it does not come; with the stacks of its threads, which faulthandler prints.
    """
    try:
        out, err = process.communicate(timeout=50)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
        raise AssertionError(f"the program hangs; it has printed {out!r}, and\n{err}") from None
    return process.returncode, out, err


def without_tracker(err: str) -> str:
    """Leave out what loky's resource tracker says: program and forked children share one, and it may lose count."""
    lines = [line for line in err.splitlines() if line.strip() != "warnings.warn("]
    return "\n".join(line for line in lines if "resource_tracker" not in line)
