"""Results handed out one by one, while a thread of the call's own keeps the workers busy."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from operator import length_hint
from queue import SimpleQueue
from typing import Any

from parallel._call import Call
from parallel._failures import safe_text
from parallel._interpreter import is_exiting
from parallel._scheduler import State

__all__ = ["GeneratorSink", "OwnedCall"]


class _End:
    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def take_error(self) -> BaseException:
        """Give the error, which is about to have whoever raises it in its traceback, and forget it."""
        error, self.error = self.error, None
        assert error is not None
        return error


class GeneratorSink:
    """Takes what the owner delivers, for the consumer to fetch."""

    def __init__(self) -> None:
        self.outbox: SimpleQueue[list[Any] | _End] = SimpleQueue()

    def deliver(self, start: int, values: list[Any]) -> None:
        """Take the results of one fragment; does not block."""
        self.outbox.put(values)

    def drop(self) -> None:
        """Forget what nobody is going to fetch."""
        while not self.outbox.empty():
            self.outbox.get_nowait()


class OwnedCall:
    """A call whose owner is a thread of its own, and the generator of its results.

    Parameters
    ----------
    call
        Not yet running.
    sink
        The sink of the call.
    finish
        Called by the owner when the call is over, with its error: gives the workers back.
    where
        File and line of the code that made the call.
    """

    def __init__(
        self,
        call: Call,
        sink: GeneratorSink,
        finish: Callable[[BaseException | None], None],
        where: tuple[str, int],
    ) -> None:
        self._where = where
        self._call = call
        self._sink = sink
        self._finish = finish
        self._is_over = threading.Event()
        #: What the call has failed with, as text.
        self._failure = ""
        # What the consumer gets instead of a plain end.
        self._end_error: BaseException | None = None
        self._handed_out = 0
        # Taken by whoever warns: the owner, or the finaliser where the owner has ended already.
        self._may_warn = deque([True])
        # Taken by the owner when it begins, or by who gives up starting it.
        self._may_begin = deque([True])
        #: Set, and never reset, before the Close event is posted.
        self.is_closing = False

    @property
    def is_over(self) -> bool:
        """Whether the owner has ended: nothing runs any more and the workers were given back."""
        return self._is_over.is_set()

    def wait(self) -> None:
        """Block until the owner has ended."""
        self._is_over.wait()

    def close(self, handed_out: int = 0) -> None:
        """Stop the call, from any thread, without waiting: also from a finaliser that runs on the owner itself.

        Parameters
        ----------
        handed_out : int
            How many results the consumer has got.
        """
        self._handed_out = handed_out
        self.is_closing = True
        self._call.close()
        if self.is_over:
            self._warn()

    def close_with_block(self) -> None:
        """Stop the call because the ``with`` block of its workers ends: who still asks for results gets an error."""
        self._end_error = RuntimeError(
            "the with block of this generator's workers has ended: consume the generator inside the block"
        )
        self.close(self._call.scheduler.n_completed)

    def forsake(self) -> None:
        """Stop the call without a warning, because the interpreter exits."""
        self._may_warn.clear()
        self.is_closing = True
        self._call.close()
        self._is_over.wait(EXIT_SECONDS)

    def start(self) -> Generator[Any, None, None]:
        """Start the owner and give the generator of results."""
        # The owner's warning shows a line of code. Were that imported then: tokenize makes a named tuple by `eval`, and
        # so CPython forgets, while the main thread ends by KeyboardInterrupt, that its exit status is to say so.
        import linecache  # noqa: F401

        context = contextvars.copy_context()  # the input iterator sees what it would see in the caller
        thread = threading.Thread(target=context.run, args=(self._own,), name="parallel-call", daemon=True)
        results = _results(self._sink.outbox, self._call.consumed, self.close)
        next(results)  # up to its first yield: a generator that was never started does not run its finally clause
        _live_calls.add(self)
        thread.start()
        return results

    def give_up(self) -> bool:
        """Do without the owner, after `start` was interrupted; False if it has begun: then it ends the call itself.

        Starting a thread waits for it, and Ctrl-C may come while it does: nobody else can tell whether it has begun.
        """
        try:
            self._may_begin.pop()
        except IndexError:
            self.close()
            return False
        _live_calls.discard(self)
        return True

    def _own(self) -> None:
        try:
            self._may_begin.pop()
        except IndexError:
            return
        error: BaseException | None = None
        try:
            self._call.run()
        except BaseException as raised:
            error = raised
        try:
            self._finish(error)
        except BaseException as raised:
            error = error or raised
        if error is not None:
            self._failure = safe_text(error, repr)
        self._call.scheduler.held_results(forget=True)
        self._finish = _nothing  # as an object that keeps this is in there
        self._is_over.set()
        _live_calls.discard(self)
        self._sink.outbox.put(_End(error or self._end_error))
        # This frame is in the traceback of the error: together they would keep all that there was until garbage is
        # collected, and so would what nobody is going to ask for.
        del error
        if self.is_closing:
            self._warn()
            if self._end_error is None:
                self._sink.drop()

    def _warn(self) -> None:
        try:
            self._may_warn.pop()
        except IndexError:
            return
        if is_exiting():
            return
        scheduler = self._call.scheduler
        unused = scheduler.n_completed - self._handed_out
        if not unused and scheduler.state is State.FINISHED and not self._failure:
            return  # all that was missing is the question whether there is more
        text = f"a generator of results was closed before its end: {unused} results were computed and not used"
        if self._failure:
            text += f", and the call had failed with {self._failure}"
        # At the line that made the call: where a finaliser runs says nothing.
        warnings.warn_explicit(text, RuntimeWarning, *self._where)


def _nothing(_: BaseException | None) -> None:
    return None


#: How long the exit of the interpreter waits for a call to stop, which takes some milliseconds where tasks can be
#: killed, and is not worth waiting for where they cannot.
EXIT_SECONDS = 1.0

#: Calls whose owner has not ended.
_live_calls: weakref.WeakSet[OwnedCall] = weakref.WeakSet()


def _forget_live_calls() -> None:
    _live_calls.clear()  # in a forked child: their owners are threads of the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_live_calls)


@atexit.register
def _forsake_live_calls() -> None:
    for call in list(_live_calls):
        call.forsake()


def _results(
    outbox: SimpleQueue[list[Any] | _End], consumed: Callable[[int], None], close: Callable[[int], None]
) -> Generator[Any, None, None]:
    """Yield results; a fragment that has been handed out whole is reported, so that workers go on.

    Dropping the generator is enough to stop the call: neither the call nor its thread refer to it.
    """
    handed_out = 0
    is_done = False
    rest: Iterator[Any] = iter(())
    process = os.getpid()
    try:
        yield None
        while True:
            if os.getpid() != process:
                is_done = True  # and it is not for this process to end the call
                raise RuntimeError("this generator belongs to the parent process, whose threads a fork does not copy")
            item = outbox.get()
            if isinstance(item, _End):
                is_done = True
                if item.error is not None:
                    raise item.take_error()
                return
            handed_out += len(item)
            rest = iter(item)
            yield from rest
            consumed(len(item))
    finally:
        if not is_done:
            close(handed_out - length_hint(rest))
