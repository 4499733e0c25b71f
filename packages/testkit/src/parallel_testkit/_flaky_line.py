"""What is on its way back from the workers of a `FlakyBackend`, and the thread that lets it through when it is due.

Guarantees:

- The thread is started with the first thing that has to wait, and has ended when `Line.close` returns.
- What a line brings is brought once, from whichever thread; nothing after `close`.
- No lock is held while a callback runs.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

from parallel_testkit._flaky_plan import FaultPlan

__all__ = ["FlakyFuture", "Later", "Line"]

#: How long outcomes are held at most for others to change places with. Long enough for the owner to send more and for a
#: short task to come back, short enough to be lost many times in a test.
HOLD_SECONDS = 0.05


class Later:
    """Does things when they are due, one after the other, on a daemon thread of its own.

    All methods may be called from any thread; what is to be done must not block.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # With a number, so that things due at the same time are done in the order in which they came.
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def at(self, due: float, act: Callable[[], None]) -> None:
        """Call `act` at a time of the monotonic clock; never once it is closed."""
        with self._changed:
            if self._is_closed:
                return
            heapq.heappush(self._waiting, (due, next(self._numbers), act))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flaky", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Forget what waits, and wait for the thread to end."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (act := self._next()) is not None:
            act()
            del act  # it may hold results, and nothing may be due for long

    def _next(self) -> Callable[[], None] | None:
        """Block until something is due, and give it; None once it is closed."""
        with self._changed:
            while not self._is_closed:
                left = self._waiting[0][0] - monotonic() if self._waiting else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(left)
            return None


class FlakyFuture:
    """What `FlakyBackend.submit` gives.

    Attributes
    ----------
    number : int
        Which of the backend's jobs it is, from 0.
    inner : object
        What the wrapped backend's `submit` gave.
    """

    def __init__(self, number: int, plan: FaultPlan, callback: Callable[[Any], None], line: Line) -> None:
        self.number = number
        self.plan = plan
        self.callback = callback
        self.line = line
        self.inner: Any = None
        #: What the wrapped backend called back with, if it did; only then there need be anything.
        self.brought: Any = None
        self.was_brought = False
        #: Whether its outcome was lost on the way, with the worker that was ended.
        self.is_lost = False
        self.has_arrived = False
        self.is_released = False
        self.is_killed = False

    def done(self) -> bool:
        """Tell whether the outcome has got through, or what is in its place."""
        if not self.has_arrived:
            done = getattr(self.inner, "done", None)
            if callable(done) and done():
                # Nobody has said so: the wrapped backend forgot, or is about to.
                self.line.arrive(self.number)
        return self.is_released

    def __repr__(self) -> str:
        state = "done" if self.is_released else "held" if self.has_arrived else "pending"
        faults = f" with {', '.join(sorted(self.plan.faults))}" if self.plan.faults else ""
        return f"<FlakyFuture {self.number} {state}{faults}>"


class Line:
    """What the jobs between a `configure`, or an abort, and the end of that have to go through on their way back.

    Parameters
    ----------
    reorder
        How many outcomes to collect before they are let through, in the order of their ranks.
    released
        Gets the number of each job that is let through, in that order.
    """

    def __init__(self, reorder: int, released: list[int]) -> None:
        self._reorder = reorder
        self._released = released
        self._later = Later()
        # Guards what follows; callbacks of the wrapped backend come from any thread.
        self._lock = threading.Lock()
        self._is_closed = False
        # By number, and not in the callbacks themselves: a future and a callback that know each other would only be
        # freed when garbage is collected, with all results.
        self._live: dict[int, FlakyFuture] = {}
        self._held: list[FlakyFuture] = []
        self._lost_until = 0.0
        # Reports about futures that are not known yet, because `submit` of the wrapped backend has not returned.
        self._n_submitting = 0
        self._early: list[tuple[Any, Callable[[FlakyFuture], None]]] = []

    # -- the owner of a call -------------------------------------------------------------------------------------------

    def enter(self, future: FlakyFuture) -> None:
        """A job is about to be submitted."""
        with self._lock:
            self._n_submitting += 1
            self._live[future.number] = future

    def entered(self, future: FlakyFuture, inner: Any) -> None:
        """A job was submitted; the wrapped backend knows it as `inner`."""
        with self._lock:
            future.inner = inner
            self._n_submitting -= 1
            early = [act for known, act in self._early if known is inner]
            self._early = [entry for entry in self._early if entry[0] is not inner] if self._n_submitting else []
        for act in early:
            self._pass_on(partial(act, future))

    def refused(self, future: FlakyFuture) -> None:
        """A job was not taken by the wrapped backend."""
        with self._lock:
            self._n_submitting -= 1
            self._live.pop(future.number, None)

    def lose_connection(self, seconds: float) -> None:
        """Let nothing through from now on, for so long."""
        with self._lock:
            self._lost_until = monotonic() + seconds

    def lose(self, future: FlakyFuture) -> bool:
        """The worker of a job is to be ended; if the job has one no more, but its outcome is held, lose that."""
        with self._lock:
            future.is_killed = True
            future.is_lost = future.has_arrived and not future.is_released and not self._is_closed
        if future.is_lost:
            self._pass_on(partial(self._release, future))
        return future.is_lost

    def close(self) -> None:
        """Let nothing through any more, and forget what is held. Blocks until the thread has ended."""
        with self._lock:
            self._is_closed = True
            self._live.clear()
            self._held.clear()
            self._early.clear()
        self._later.close()

    # -- from any thread -----------------------------------------------------------------------------------------------

    def called_back(self, number: int, brought: Any = None) -> None:
        """The wrapped backend called the callback of a job."""
        with self._lock:
            future = self._live.get(number)
            if future is None or future.has_arrived:
                return
            future.brought = brought
            future.was_brought = True
        self.arrive(number)

    def arrive(self, number: int) -> None:
        """The outcome of a job is there: let it through, or begin to hold it."""
        with self._lock:
            future = self._live.get(number)
            if future is None or future.has_arrived:
                return
            future.has_arrived = True
            if "never" in future.plan.faults and not future.is_killed:
                return
            delay_seconds = 0.0 if future.is_killed else future.plan.delay_seconds
        if delay_seconds:
            self._later.at(monotonic() + delay_seconds, partial(self._line_up, future))
        else:
            self._line_up(future)

    def report(self, inner: Any, act: Callable[[FlakyFuture], None]) -> None:
        """Pass on what the wrapped backend reports about one of its futures."""
        with self._lock:
            future = next((known for known in self._live.values() if known.inner is inner), None)
            if future is None:
                if self._n_submitting and not self._is_closed:
                    self._early.append((inner, act))
                return
        self._pass_on(partial(act, future))

    def _pass_on(self, act: Callable[[], None]) -> None:
        if monotonic() < self._lost_until:
            self._later.at(self._lost_until, act)
        else:
            act()

    def _line_up(self, future: FlakyFuture) -> None:
        """Let an outcome through, or hold it until there are others to change places with."""
        if self._reorder == 1 or future.is_killed:
            self._pass_on(partial(self._release, future))
            return
        with self._lock:
            if self._is_closed:
                return
            self._held.append(future)
            is_first, is_full = len(self._held) == 1, len(self._held) == self._reorder
        if is_full:
            self._let_go()
        elif is_first:
            self._later.at(monotonic() + HOLD_SECONDS, self._let_go)

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        for future in sorted(held, key=lambda future: future.plan.rank):
            self._pass_on(partial(self._release, future))

    def _release(self, future: FlakyFuture) -> None:
        with self._lock:
            if self._live.pop(future.number, None) is None:
                return  # a kill was faster, or the line is closed
            future.is_released = True
            self._released.append(future.number)
        faults = future.plan.faults
        if "missing" in faults and not future.is_killed:
            return
        future.callback(future)
        if "duplicate" in faults:
            again = partial(future.callback, future)
            if future.plan.repeat_seconds:
                self._later.at(monotonic() + future.plan.repeat_seconds, partial(self._pass_on, again))
            else:
                again()
