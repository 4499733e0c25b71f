"""The calls: each makes some, with numbers of its own, and checks what comes out."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parallel import Parallel, delayed
from parallel.errors import ResultPicklingError, WorkerLostError
from parallel_testkit import Gate
from tests.soak import tasks
from tests.soak.kinds import Kind

__all__ = ["ITEMS", "Item", "Turn"]

#: Well above what is shared by default.
LARGE = 300_000

#: A limit that every innocent task keeps, on a machine that is busy; waited for in some calls, so not longer.
LIMIT_SECONDS = 0.5

MODES = ("list", "generator", "generator_unordered")


@dataclass(frozen=True)
class Turn:
    """What one item has to work with."""

    kind: Kind
    random: random.Random
    #: Empty, and the item's own.
    folder: Path

    def make(self, **arguments: Any) -> Parallel:
        """Make a `Parallel` whose batches have some size or other."""
        return self.kind.make(**{"batch_size": self.random.choice(["auto", 1, 3]), **arguments})

    def count(self, least: int = 1, most: int = 60) -> int:
        return self.random.randint(least, most)


@dataclass(frozen=True)
class Item:
    """Something to do: its name is that of the function."""

    do: Callable[[Turn], None]
    #: Needs workers that can end.
    needs_processes: bool = False
    #: Needs a backend that goes on when they do.
    needs_replacement: bool = False
    #: Needs a backend without faults of its own: an error of it would not come out of the call as itself, or the number
    #: of attempts would be another one.
    needs_calm: bool = False

    @property
    def name(self) -> str:
        return self.do.__name__

    def suits(self, kind: Kind) -> bool:
        """Tell whether it can be done on a backend."""
        return (
            (kind.in_processes or not self.needs_processes)
            and (kind.replaces_workers or not self.needs_replacement)
            and not (kind.may_raise and self.needs_calm)
        )


class _Raised:
    """What a block has raised, in `error`, when it is over."""

    error: Any = None


@contextmanager
def raises(*kinds: type[BaseException]) -> Iterator[_Raised]:
    """Expect an error of one of these kinds."""
    raised = _Raised()
    try:
        yield raised
    except kinds as error:
        raised.error = error.with_traceback(None)
        return
    raise AssertionError(f"{kinds} expected, nothing was raised")


# -- that succeed ------------------------------------------------------------------------------------------------------


def lists(turn: Turn) -> None:
    count = turn.count(0, 300)
    assert turn.make().map(tasks.square, range(count)) == [i * i for i in range(count)]
    assert turn.make()(delayed(tasks.square)(i) for i in range(count)) == [i * i for i in range(count)]


def generators(turn: Turn) -> None:
    count = turn.count(0, 300)
    expected = [i * i for i in range(count)]
    assert list(turn.make(return_as="generator").map(tasks.square, range(count))) == expected
    assert sorted(turn.make(return_as="generator_unordered").map(tasks.square, range(count))) == expected


def generators_that_are_left(turn: Turn) -> None:
    results = turn.make(return_as=turn.random.choice(MODES[1:]), batch_size=1).map(tasks.square, range(200))
    taken = [next(results) for _ in range(turn.count(0, 20))]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= {i * i for i in range(200)}
    if turn.random.random() < 0.5:
        results.close()
    del results  # else this is what ends it


def large_arrays(turn: Turn) -> None:
    array = np.arange(float(LARGE + turn.count()))
    count = turn.count(1, 6)
    with turn.make() as parallel:
        for one in parallel.map(tasks.twice, [array] * count):
            assert np.array_equal(one, array * 2)
        array[0] = -1.0
        assert parallel.map(tasks.look_up, [array] * count, range(count)) == array[:count].tolist()


def shared_objects(turn: Turn) -> None:
    table = np.arange(float(LARGE))
    with turn.make() as parallel, parallel.share(table) as shared:
        for _ in range(2):
            found = parallel(delayed(tasks.look_up)(shared, i) for i in range(20))
            assert found == [float(i) for i in range(20)]
    if turn.random.random() < 0.5:
        forgotten = turn.make().share(table)  # never closed
        assert turn.make().map(tasks.look_up, [forgotten] * 3, range(3)) == [0.0, 1.0, 2.0]


def nested_calls(turn: Turn) -> None:
    # Workers of their own in every task take long to start.
    backend = turn.random.choice([None, "threads", "threads", "threads", "mp", "loky"])
    count = turn.count(1, 8)
    expected = [sum(i * i for i in range(number, number + count)) for number in range(4)]
    assert turn.make().map(tasks.nested, [backend] * 4, [count] * 4, range(4)) == expected


def calls_of_two_threads(turn: Turn) -> None:
    found: dict[int, list[int]] = {}
    counts = [turn.count(), turn.count()]

    def call(number: int) -> None:
        found[number] = turn.make().map(tasks.square, range(counts[number]))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(found[number]) for number in range(2)] == counts


def warnings_and_log_records(turn: Turn) -> None:
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("tests.soak")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert turn.make().map(tasks.noisy, range(10)) == list(range(10))
    finally:
        logger.removeHandler(handler)
    assert sorted(seen) == [f"number {i}" for i in range(10)]


# -- that fail ---------------------------------------------------------------------------------------------------------


def failures(turn: Turn) -> None:
    bad = set(turn.random.sample(range(40), 3))
    with raises(LookupError) as raised:
        list(turn.make(return_as=turn.random.choice(MODES)).map(tasks.fail_at, [bad] * 40, range(40)))
    assert any(f"task {index} " in raised.error.__notes__[0] for index in bad)


def failures_in_place_of_results(turn: Turn) -> None:
    bad = set(turn.random.sample(range(40), 5))
    found = turn.make(return_exceptions=True).map(tasks.fail_at, [bad] * 40, range(40))
    assert [index for index, one in enumerate(found) if isinstance(one, LookupError)] == sorted(bad)
    assert all(one == index for index, one in enumerate(found) if index not in bad)


def calls_of_a_block_with_failures(turn: Turn) -> None:
    with turn.make() as parallel:
        for _ in range(2):
            with raises(LookupError):
                parallel.map(tasks.fail_at, [{7}] * 20, range(20))
            assert parallel.map(tasks.square, range(20)) == [i * i for i in range(20)]


def retries(turn: Turn) -> None:
    parallel = turn.make(retries=2)
    assert parallel.map(tasks.fail_until, [str(turn.folder)] * 10, [3] * 10, range(10)) == list(range(10))


def inputs_that_fail(turn: Turn) -> None:
    last = turn.count(0, 50)

    def numbers() -> Iterator[int]:
        yield from range(last)
        raise LookupError("no more input")

    with raises(LookupError):
        list(turn.make(return_as=turn.random.choice(MODES)).map(tasks.square, numbers()))


def results_that_cannot_travel(turn: Turn) -> None:
    with raises(ResultPicklingError):
        turn.make().map(tasks.give_lock_at, [5] * 10, range(10))


def tasks_that_pass_their_limit(turn: Turn) -> None:
    seconds = 60.0 if turn.kind.replaces_workers else 2 * LIMIT_SECONDS  # elsewhere they go on
    parallel = turn.make(timeout=LIMIT_SECONDS, return_exceptions=True)
    found = parallel.map(tasks.sleep_at, [3] * 8, [seconds] * 8, range(8))
    assert isinstance(found[3], TimeoutError)
    assert [one for one in found if not isinstance(one, TimeoutError)] == [
        index for index, one in enumerate(found) if not isinstance(one, TimeoutError)
    ]


def interrupted_calls(turn: Turn) -> None:
    with Gate(turn.folder / "gate") as gate, raises(KeyboardInterrupt):
        turn.make(batch_size=1).map(  # or the second task would wait for the first
            tasks.interrupt_and_wait, [os.getpid()] * 8, [gate] * 8, range(8)
        )
    assert turn.make().map(tasks.square, range(8)) == [i * i for i in range(8)]


# -- whose workers end -------------------------------------------------------------------------------------------------


def _end(turn: Turn, mark: str | None, **arguments: Any) -> list[Any]:
    how, bad = turn.random.choice(["exit", "kill"]), turn.random.randrange(20)
    found = turn.make(**arguments).map(tasks.end_worker_at, [how] * 20, [bad] * 20, [mark] * 20, range(20))
    return [one for index, one in enumerate(found) if one != index or isinstance(one, Exception)]


def workers_that_end(turn: Turn) -> None:
    with raises(WorkerLostError):
        _end(turn, None)
    turn.kind.close()  # an executor has broken


def workers_that_end_for_one_result(turn: Turn) -> None:
    (lost,) = _end(turn, None, return_exceptions=True)
    assert isinstance(lost, WorkerLostError)


def workers_that_end_once(turn: Turn) -> None:
    assert _end(turn, str(turn.folder / "mark"), retries=1) == []


def workers_that_end_between_calls(turn: Turn) -> None:
    with turn.make(batch_size=1, retries=1) as parallel:  # the call may begin before they have quite ended
        for process in set(parallel.map(tasks.process_id, range(8))):
            with contextlib.suppress(ProcessLookupError):  # a fault was faster
                os.kill(process, signal.SIGKILL)
        assert parallel.map(tasks.square, range(8)) == [i * i for i in range(8)]


ITEMS = (
    *map(Item, (lists, generators, generators_that_are_left, large_arrays, shared_objects, nested_calls)),
    *map(Item, (warnings_and_log_records, failures, calls_of_a_block_with_failures, inputs_that_fail)),
    *(
        Item(do, needs_calm=True)
        for do in (
            calls_of_two_threads,
            failures_in_place_of_results,
            retries,
            tasks_that_pass_their_limit,
            interrupted_calls,
        )
    ),
    Item(results_that_cannot_travel, needs_processes=True),
    Item(workers_that_end, needs_processes=True),
    Item(workers_that_end_for_one_result, needs_replacement=True, needs_calm=True),
    Item(workers_that_end_once, needs_replacement=True),
    Item(workers_that_end_between_calls, needs_replacement=True),
)
