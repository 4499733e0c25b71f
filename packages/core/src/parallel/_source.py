"""The input of a call: reads the user's iterator, in pieces whose size follows its pace, and checks what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import length_hint
from time import monotonic
from typing import Any

from parallel._task import Kind, describe_function

__all__ = ["Source"]

#: How long to read at a time. Meanwhile results wait and workers may run dry, so it is kept short against the time of a
#: batch (some milliseconds).
_READ_SECONDS = 0.001

#: The most that is read without a look at the clock, from an iterator that was fast so far: if it becomes slow or
#: blocks, this many tasks are held back at most.
_MAX_PIECE = 256

#: Inputs that are read without running code of the user.
_PLAIN_INPUTS = (list, tuple, range)


class Source:
    """An iterator over tasks of one form.

    Parameters
    ----------
    tasks
        The user's iterable.
    kind, function
        The form of the tasks, and their function where the form has one.
    total
        How many there are, if known.
    """

    def __init__(
        self, tasks: Iterable[Any], kind: Kind, function: Callable[..., Any] | None = None, total: int | None = None
    ) -> None:
        self.kind = kind
        self.function = function
        self.total = total
        #: Whether it is read without running code of the user.
        self.is_plain = isinstance(tasks, _PLAIN_INPUTS)
        self._iterator: Iterator[Any] = iter(tasks)
        # What is left of a range: its parts are ranges, too, and cost the same to send whatever their length.
        self._range = tasks if isinstance(tasks, range) and kind is Kind.ITEMS else None
        self._n_read = 0
        self._piece = 1
        # What `take_few` has read and not given, and what the iterator raised then.
        self._ahead: list[Any] = []
        self._ahead_error: BaseException | None = None
        #: Told the function and the arguments of the first task; says how many to read at first.
        self.begin: Callable[[Callable[..., Any] | None, Iterable[Any]], int] | None = None
        #: Told the arguments of those that are read with it, piece by piece; says whether that may go on.
        self.allows: Callable[[Iterable[object]], bool] | None = None

    @classmethod
    def of_calls(cls, tasks: Iterable[Any]) -> Source:
        """Read ``(function, args, kwargs)`` tuples."""
        return cls(tasks, Kind.CALLS, total=_length(tasks))

    @classmethod
    def of_map(cls, function: Callable[..., Any], iterables: tuple[Iterable[Any], ...]) -> Source:
        """Read the arguments of ``map(function, *iterables)``, which ends with the shortest of them."""
        if len(iterables) == 1:
            return cls(iterables[0], Kind.ITEMS, function, _length(iterables[0]))
        lengths = [_length(iterable) for iterable in iterables]
        total = None if None in lengths else min(length for length in lengths if length is not None)
        return cls(zip(*iterables, strict=False), Kind.ARGS, function, total)

    @classmethod
    def of_starmap(cls, function: Callable[..., Any], iterable: Iterable[Iterable[Any]]) -> Source:
        """Read tuples of arguments."""
        return cls(map(tuple, iterable), Kind.ARGS, function, _length(iterable))

    def read(self, count: int) -> tuple[list[Any] | range, bool, BaseException | None]:
        """Read up to `count` tasks; fewer when the iterator is slow, but at least one unless it ends.

        Returns
        -------
        tasks
            What was read; also when the iterator raised after them.
        exhausted
            Whether it has no more.
        error
            What the iterator raised, or a TypeError about a task that is none.
        """
        if self._range is not None:
            return self._read_range(self._range, count)
        tasks, self._ahead = self._ahead, []
        exhausted = False
        error: BaseException | None = None
        try:
            if self._ahead_error is not None:
                raise self._ahead_error_taken()
            granted = self._begin(tasks) if self.begin is not None else 0
            count = max(count, granted)
            exhausted = self._read_plain(tasks, count) if self.is_plain else self._read_paced(tasks, count, granted > 1)
        except Exception as raised:
            error = raised
        if self.kind is Kind.CALLS:
            wrong = _find_wrong(tasks)
            if wrong is not None:
                error = _wrong_task(self._n_read + wrong, tasks[wrong])
                del tasks[wrong:]
                exhausted = False  # or the call could be over before it hears of the error
        self._n_read += len(tasks)
        try:
            return tasks, exhausted, error
        finally:
            error = None  # no cycle between it, its traceback and this frame

    def take_few(
        self,
        most: int,
        knows: Callable[[Callable[..., Any] | None, Iterable[Any]], bool],
        allows: Callable[[Iterable[object]], bool],
    ) -> list[Any] | None:
        """Read the whole input at once, if it has `most` tasks at most.

        Where that runs code of the user, it goes no further than the first task unless more may be read with that, and
        not on when it takes long.

        Parameters
        ----------
        knows
            Told the function and the arguments of the first task; says whether more may be read with it.
        allows
            Told the arguments of those; says whether that may go on.

        Returns
        -------
        list or None
            All tasks, one at least. None if there are more or none, if they are no tasks, or if it cannot be said at
            once: what was read is what `read` gives first.
        """
        if self.total is not None and not 0 < self.total <= most:
            return None
        if self._range is not None:
            self._n_read = len(self._range)
            return list(self._range)
        ahead = self._ahead
        try:
            if self.is_plain:
                ahead.extend(islice(self._iterator, most + 1))
                is_whole = len(ahead) <= most
            else:
                is_whole = self._take_paced(ahead, most, knows, allows)
        except BaseException as error:  # Ctrl-C, too: it is for `read` to raise, where the call knows what to do
            self._ahead_error = error
            return None
        if not is_whole or not ahead or (self.kind is Kind.CALLS and _find_wrong(ahead) is not None):
            return None
        self._ahead = []
        self._n_read = len(ahead)
        return ahead

    def give_back(self, tasks: list[Any]) -> None:
        """Let `read` give first what `take_few` has given."""
        self._n_read = 0
        if self._range is None:
            self._ahead = tasks

    def _take_paced(
        self,
        ahead: list[Any],
        most: int,
        knows: Callable[[Callable[..., Any] | None, Iterable[Any]], bool],
        allows: Callable[[Iterable[object]], bool],
    ) -> bool:
        stop_at = monotonic() + _READ_SECONDS
        ahead.extend(islice(self._iterator, 1))
        first = self._parts_of(ahead)
        if first is None or not knows(*first):
            return False
        while len(ahead) <= most and monotonic() < stop_at:
            at = len(ahead)
            ahead.extend(islice(self._iterator, 1))
            if len(ahead) == at:
                return True
            if not allows(self._arguments(ahead, at)):
                return False
        return False

    def _ahead_error_taken(self) -> BaseException:
        error, self._ahead_error = self._ahead_error, None
        assert error is not None
        return error

    def _arguments(self, tasks: list[Any], at: int) -> Iterable[object]:
        """Give the arguments of the tasks from position `at` on, if they are like the first."""
        piece = tasks[at:]
        if self.kind is Kind.ITEMS:
            return piece
        if self.kind is Kind.ARGS:
            return chain.from_iterable(piece)
        first = tasks[0][0]
        if _find_wrong(piece) is None and not any(f is not first or kw or type(a) is not tuple for f, a, kw in piece):
            return chain.from_iterable([args for _, args, _ in piece])
        return [piece]  # a list: who knows

    def _may_go_on(self, tasks: list[Any], at: int) -> bool:
        """Tell whether more may be read with the first task after those from position `at` on."""
        return self.allows is None or self.allows(self._arguments(tasks, at))

    def _read_range(self, left: range, count: int) -> tuple[range, bool, None]:
        begin, self.begin = self.begin, None
        if begin is not None and left:
            count = max(count, begin(self.function, left[:1]))
        tasks, self._range = left[:count], left[count:]
        self._n_read += len(tasks)
        return tasks, not self._range, None

    def _begin(self, tasks: list[Any]) -> int:
        """Read the first task, and give how many are to be read with it."""
        begin, self.begin = self.begin, None
        if not tasks:
            tasks.extend(islice(self._iterator, 1))
        first = self._parts_of(tasks)
        return begin(*first) if begin is not None and first is not None else 1

    def _parts_of(self, tasks: list[Any]) -> tuple[Callable[..., Any] | None, Iterable[Any]] | None:
        """Give the function and the positional arguments of the first task; None if it has others, or there is none."""
        if not tasks:
            return None
        if self.kind is not Kind.CALLS:
            return self.function, tasks[:1] if self.kind is Kind.ITEMS else tasks[0]
        if _find_wrong(tasks[:1]) is not None:
            return None
        function, args, kwargs = tasks[0]
        return (function, args) if not kwargs and type(args) is tuple else None  # else an iterator, which ends

    def _read_plain(self, tasks: list[Any], count: int) -> bool:
        tasks.extend(islice(self._iterator, max(count - len(tasks), 0)))
        return len(tasks) < count or not length_hint(self._iterator, 1)  # a subclass may have an iterator of its own

    def _read_paced(self, tasks: list[Any], count: int, asks: bool) -> bool:
        begin = now = monotonic()
        if asks and len(tasks) > 1 and not self._may_go_on(tasks, 1):  # what was read ahead
            return False
        while len(tasks) < count and now - begin < _READ_SECONDS:
            size = min(self._piece, count - len(tasks))
            before = len(tasks)
            tasks.extend(islice(self._iterator, size))  # keeps what came before an error
            if asks and not self._may_go_on(tasks, before):
                break
            if len(tasks) - before < size:
                return True
            last, now = now, monotonic()
            if now - last < _READ_SECONDS / 4:
                self._piece = min(max(self._piece, size * 4), _MAX_PIECE)
            else:
                self._piece = max(size // 2, 1)
        return False

    def __iter__(self) -> Iterator[tuple[Callable[..., Any], Iterable[Any], dict[str, Any]]]:
        """Yield every task as (function, args, kwargs), read one at a time, for a call without workers."""
        if self.kind is not Kind.CALLS:
            function = self.function
            assert function is not None
            for item in self._iterator:
                yield function, (item,) if self.kind is Kind.ITEMS else item, {}
            return
        for index, task in enumerate(self._iterator):
            if type(task) is not tuple or len(task) != 3:
                wrong = _find_wrong([task])
                if wrong is not None:
                    raise _wrong_task(index, task)
            yield task


def _length(tasks: object) -> int | None:
    try:
        return len(tasks)  # type: ignore[arg-type]
    except Exception:  # generators have none, and a lazy sequence may fail to tell
        return None


def _find_wrong(tasks: list[Any]) -> int | None:
    """Give the position of the first that is not a task. Two passes in C are enough where all are tuples of three."""
    if set(map(type, tasks)) <= {tuple} and set(map(len, tasks)) <= {3}:
        return None
    for position, task in enumerate(tasks):
        if not isinstance(task, tuple) or len(task) != 3:
            return position
    return None


def _wrong_task(index: int, task: object) -> TypeError:
    what = f"a function ({describe_function(task)})" if callable(task) else f"{type(task).__name__} {task!r:.80}"
    return TypeError(
        f"task {index} of the input is {what}; a task is the tuple (function, args, kwargs), as delayed(f)(x) makes "
        "it; to call one function on many items, use Parallel(...).map(f, items)"
    )
