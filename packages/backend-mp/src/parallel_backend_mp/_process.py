"""The caller's side of one worker process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from parallel.backend import BackendError, WorkerLostError, kill_process_tree
from parallel_backend_mp._frames import FrameReader
from parallel_backend_mp._importing import wait_for_imports
from parallel_backend_mp._start import process_class
from parallel_backend_mp._worker import WorkerSetup, serve

__all__ = ["Future", "Worker"]


class Future:
    """The outcome of one job, once there is one."""

    __slots__ = ("_error", "_outcome", "callback", "is_doomed")

    def __init__(self, callback: Callable[[Future], None]) -> None:
        self.callback = callback
        #: Whether its worker is to be ended when it runs this job.
        self.is_doomed = False
        self._outcome: bytearray | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Tell whether the job has ended."""
        return self._outcome is not None or self._error is not None

    def result(self) -> bytearray:
        """Give the outcome, or raise what kept it from coming; only once it is done."""
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome

    def settle(self, outcome: bytearray | None, error: BaseException | None = None) -> None:
        """End the future and call back."""
        self._outcome, self._error = outcome, error
        self.callback(self)


class Worker:
    """A process, the caller's end of its socket, and what it was sent.

    Parameters
    ----------
    index
        Its number in the pool.
    context
        The multiprocessing context that starts it.
    setup
        What it does first; without `inherited`.
    to_close
        Descriptors that a fork must close in the child.
    is_replacement
        Whether other threads of the pool run already.
    """

    def __init__(
        self, index: int, context: BaseContext, setup: WorkerSetup, to_close: Sequence[int], is_replacement: bool
    ) -> None:
        self.index = index
        #: Jobs that were sent and not answered, in the order in which the worker answers.
        self.futures: deque[Future] = deque()
        #: What the socket did not take yet.
        self.unsent: deque[memoryview] = deque()
        self.is_ready = False
        self.is_lost = False
        #: Whether it was ended for the sake of a job that it had.
        self.was_killed = False
        #: Whether its connection was gone while it still ran, and it had to be ended for that.
        self.was_cut_off = False
        self._start_error: str | None = None
        self._is_closed = False
        self.sock, theirs = socket.socketpair()
        try:
            self.process = _start(index, context, setup, theirs, [self.sock.fileno(), *to_close], is_replacement)
        except BaseException:
            self.sock.close()
            raise
        finally:
            theirs.close()
        self.sock.setblocking(False)
        self.reader = FrameReader(self.sock)
        #: What becomes readable when the process ends, also if a grandchild still holds its end of the socket; None
        #: where there is no such thing, and the end of the socket has to do.
        self.death, self._owns_death = _death_of(self.process)

    def descriptors(self) -> list[int]:
        """Give what a process forked later must close."""
        own = [self.death] if self._owns_death and self.death is not None else []
        return [self.sock.fileno(), *own]

    def has_ended(self) -> bool:
        """Look whether the process has ended, though nobody may have noticed yet. Does not block."""
        if self.is_lost or self.death is None:
            return self.is_lost
        # Not `is_alive`: it takes a process for alive that another thread, or the fork server, is about to reap.
        poll = select.poll()
        poll.register(self.death, select.POLLIN)
        return bool(poll.poll(0))

    def fail_start(self, text: str) -> None:
        """Keep the traceback of why the worker cannot take jobs."""
        self._start_error = text

    def wait(self, seconds: float) -> None:
        """Wait for the process, for so long at most, where the system has something to wait for."""
        if self.death is not None:
            poll = select.poll()
            poll.register(self.death, select.POLLIN)
            poll.poll(seconds * 1000)

    def kill(self) -> None:
        """End the process with all that it has started."""
        if self._is_closed:
            return
        if self.process.pid is not None and self.process.is_alive():
            kill_process_tree(self.process.pid)

    def join(self, seconds: float) -> None:
        """Wait for the process, for so long at most."""
        if not self._is_closed:
            self.process.join(seconds)

    def sacrifice(self) -> None:
        """End the process for the sake of a job that it runs; what else it has is to run again."""
        self.was_killed = True
        self.kill()

    def close(self) -> None:
        """Wait for the process, which must have been told or made to end, and give its descriptors back, once."""
        if self._is_closed:
            return
        try:
            self.process.join()
            # Another thread that starts a process may reap ours for us (multiprocessing does that), and be about to
            # write down that it did: then close takes it for alive.
            with contextlib.suppress(ValueError):
                self.process.close()
        finally:
            self._is_closed = True
            self.sock.close()
            if self._owns_death and self.death is not None:
                os.close(self.death)

    def end_error(self, is_deliberate: bool = False) -> BackendError:
        """Make the error for a job that the worker had when it ended, be it `is_deliberate` for another one's sake."""
        if self._start_error is not None:
            return BackendError(f"worker {self.index} of the backend 'mp' could not start:\n{self._start_error}")
        code = self.process.exitcode
        signal = -code if code is not None and code < 0 else None
        how = f"was killed by signal {signal}" if signal is not None else f"ended with exit code {code}"
        if self.was_cut_off:
            how = "lost its connection, as when a task closes all descriptors of its process, and had to be ended"
        name = f"worker {self.index} (pid {self.process.pid}) of the backend 'mp'"
        if not self.is_ready and signal is None:
            text = f"{name} {how} before it could take a job; what it wrote to stderr says why"
            return BackendError(text, backend="mp")
        return WorkerLostError(
            f"{name} {how}",
            backend="mp",
            exit_code=code if signal is None else None,
            signal=signal,
            is_deliberate=is_deliberate,
            is_culprit_unclear=self.was_cut_off,
        )


def _start(
    index: int,
    context: BaseContext,
    setup: WorkerSetup,
    sock: socket.socket,
    to_close: Sequence[int],
    is_replacement: bool,
) -> BaseProcess:
    forks = context.get_start_method() == "fork"
    if forks:
        setup = WorkerSetup(setup.caller, setup.environment, setup.initializer, to_close, is_forked=True)
        wait_for_imports()
    process: BaseProcess = process_class(context)(
        target=serve,
        args=(sock, setup),
        name=f"parallel-mp-{index}",
        daemon=False,  # a task may have children of its own
    )
    if forks and is_replacement:
        # Python 3.12+ warns that a process with threads forks. The first workers are forked before the pool has a
        # thread; one that replaces a lost one cannot be. It takes no lock of ours before it serves.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    else:
        process.start()
    return process


def _death_of(process: BaseProcess) -> tuple[int | None, bool]:
    """Give a descriptor that becomes readable when a process ends, and whether it is ours to close."""
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(process.pid or 0), True
        except OSError:  # an old kernel, or no descriptor left
            return process.sentinel, False
    return (process.sentinel, False) if os.name == "posix" else (None, False)
