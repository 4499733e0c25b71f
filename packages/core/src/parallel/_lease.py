"""Workers of a backend object, shared by the calls that use the object at the same time.

`configure` is called for the first of them, `terminate` after the last, so that two threads may use one `Parallel`, or
two of these one backend instance.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from parallel._settings import ACTIVE, Settings
from parallel.backend import ParallelBackendBase
from parallel.errors import BackendContractError

__all__ = ["Lease", "checked_n_jobs"]

T = TypeVar("T")

#: How long a new user waits for a backend that cannot kill and is still being ended after an abort. That is not
#: waited for by anyone else, and may go on for ever if a task does; by then it has long left the backend's attributes
#: alone, which it must not change under a new user.
ENDING_SECONDS = 1.0


class _State:
    """What is known of one backend object while it is configured."""

    def __init__(self, backend: ParallelBackendBase) -> None:
        #: Kept alive, or another object could get its id while somebody has forgotten to release this one.
        self.backend = backend
        #: Calls and ``with`` blocks that hold the workers, and how many of them are calls.
        self.users = 0
        self.calls = 0
        self.n_jobs = 0
        #: A call was aborted while another one used the workers.
        self.needs_abort = False
        #: Tasks of an aborted call may still be running.
        self.was_aborted = False
        #: What `Lease.terms` has made last, and the settings that were active then.
        self.terms: tuple[Settings, Any] | None = None
        #: What calls have left to each other; closed with the workers.
        self.spare: list[Any] = []
        # Held while workers start or end, so that a second user waits until they are there.
        self.lock = threading.Lock()


_states: dict[int, _State] = {}
#: Threads that end a backend after an abort, by the id of that.
_endings: dict[int, threading.Thread] = {}
_states_lock = threading.Lock()


def _forget() -> None:
    # In a forked child: the workers are the parent's, and the lock may have been held by a thread that is not here.
    global _states_lock
    _states_lock = threading.Lock()
    _states.clear()
    _endings.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Lease:
    """One user's hold on the workers of a backend.

    Parameters
    ----------
    backend
        The backend object.
    configure
        Gets the workers and tells how many there are; called if nobody else holds them.
    is_block
        Whether the user is a ``with`` block, and not a call.
    """

    def __init__(self, backend: ParallelBackendBase, configure: Callable[[], int], *, is_block: bool = False) -> None:
        self._backend = backend
        self._is_block = is_block
        self._process = os.getpid()
        self._is_released = False
        #: Whether a call has ended by an exception: then tasks may run on, also where that came while it was aborted.
        self.is_failed = False
        while True:
            with _states_lock:
                state = _states.get(id(backend))
                if state is None:
                    state = _states[id(backend)] = _State(backend)
            self._state = state
            with state.lock:
                if _states.get(id(backend)) is not state:
                    continue  # the last user went away in between
                if state.users == 0:
                    try:
                        _wait_for_ending(backend)
                        state.n_jobs = checked_n_jobs(configure(), backend, "configure")
                    except BaseException:
                        _states.pop(id(backend), None)
                        raise
                state.users += 1
                state.calls += not is_block
                self.n_jobs: int = state.n_jobs
                return

    @property
    def spare(self) -> list[Any]:
        """What calls on these workers leave to each other, until the last user goes; each has a method `close`."""
        return self._state.spare

    def terms(self, make: Callable[[], T]) -> T:
        """Give what `make` gives, made once for all calls on these workers with the settings that are active here.

        For what is read of the environment and of the machine: it is as it was when the workers were got.
        """
        active = ACTIVE.get()
        known = self._state.terms
        if known is None or known[0] is not active:
            known = self._state.terms = active, make()
        return known[1]

    def abort(self) -> bool:
        """Stop what is running, unless other calls use the same workers; tell whether that was done.

        Inside a ``with`` block the backend is left ready for the next call.
        """
        if self._process != os.getpid():
            return True  # a child that was forked in the middle of the call: the workers are the parent's
        state = self._state
        # With the lock, so that no other call begins on workers that are about to be ended.
        with state.lock:
            state.was_aborted = True
            if state.calls > 1:
                state.needs_abort = True
                return False
            self._backend.abort_everything(ensure_ready=state.users > state.calls)
            return True

    def release(self) -> None:
        """Give the workers back; the last user's release ends them. Does nothing the second time.

        After an abort a backend that cannot kill is ended on a daemon thread, so that an endless task in a thread does
        not hold its caller.
        """
        if self._is_released or self._process != os.getpid():
            return
        self._is_released = True
        state, backend = self._state, self._backend
        with state.lock:
            state.users -= 1
            state.calls -= not self._is_block
            state.was_aborted |= self.is_failed
            if state.users:
                if state.needs_abort and not state.calls:
                    state.needs_abort = False
                    backend.abort_everything(ensure_ready=True)
                return
            for left in state.spare:
                with contextlib.suppress(OSError):  # somebody has closed its descriptor
                    left.close()
            state.spare.clear()
            try:
                if state.needs_abort:
                    backend.abort_everything(ensure_ready=False)
                if state.was_aborted and not backend.supports_kill:
                    _terminate_aside(backend)
                else:
                    backend.terminate()
            finally:
                # Not before: whoever wants the same backend meanwhile waits for the lock, and then begins anew.
                _states.pop(id(backend), None)


def checked_n_jobs(n_jobs: object, backend: ParallelBackendBase, method: str) -> int:
    """Check the number of workers that a backend gives.

    Raises
    ------
    BackendContractError
        If it is no integer.
    """
    try:
        return operator.index(n_jobs)  # type: ignore[arg-type]
    except TypeError:
        name = type(backend).__name__
        raise BackendContractError(
            f"{method}() of the backend {name} must return the number of workers, not {n_jobs!r}", backend=name
        ) from None


def _terminate_aside(backend: ParallelBackendBase) -> None:
    thread = threading.Thread(target=_terminate_quietly, args=(backend,), name="parallel-terminate", daemon=True)
    with _states_lock:
        _endings[id(backend)] = thread
    thread.start()


def _terminate_quietly(backend: ParallelBackendBase) -> None:
    with contextlib.suppress(Exception):  # the call has failed already, with an error of its own
        backend.terminate()
    with _states_lock:
        if _endings.get(id(backend)) is threading.current_thread():
            del _endings[id(backend)]


def _wait_for_ending(backend: ParallelBackendBase) -> None:
    thread = _endings.get(id(backend))
    if thread is not None:
        thread.join(ENDING_SECONDS)
