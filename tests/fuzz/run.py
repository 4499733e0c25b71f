"""The same programs, through `parallel`. Workers import this: no pytest and no hypothesis here."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from parallel import Parallel, current_task, delayed, parallel_config
from tests.fuzz.evaluate import key_of
from tests.fuzz.outcome import Came, Element, Failure, describe
from tests.fuzz.programs import Array, Block, Call, Flaky, Give, Lock, Look, Nested, Raise, Settings, Stop, Task
from tests.fuzz.programs import Unreadable as UnreadableTask

__all__ = ["InputFailed", "Journal", "run"]

#: Which call is under way, for tasks to look at.
TRAIL: ContextVar[str] = ContextVar("TRAIL", default="")

#: Threads that an executor of the backend futures has.
EXECUTOR_THREADS = 2


class Journal:
    """Which tasks ran, in a file; pickles as its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, key: str) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{key}\n".encode())  # in one piece
        finally:
            os.close(descriptor)

    def read(self) -> list[str]:
        path = Path(self.path)
        return path.read_text().split() if path.exists() else []


@dataclass(frozen=True)
class Place:
    """Where a task is in its program."""

    journal: Journal
    trail: str


# -- what tasks raise and give -----------------------------------------------------------------------------------------


class InputFailed(Exception):  # noqa: N818 - what it stands for is in its name
    """Raised by the input of a call."""


class ConsumerFailed(Exception):  # noqa: N818
    """Raised by who reads a generator."""


class ThreeArguments(Exception):  # noqa: N818
    def __init__(self, what: str, where: str, code: int) -> None:
        super().__init__(f"{what} in {where}")
        self.code = code


class KeywordOnly(Exception):  # noqa: N818
    def __init__(self, *, what: str) -> None:
        super().__init__(f"only {what}")


class HoldsLock(Exception):  # noqa: N818
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    """Takes no attribute, and so no note."""

    what: str

    def __str__(self) -> str:
        return self.what


class Unreadable:
    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("x",)


def _raise(kind: str, key: str) -> NoReturn:
    match kind:
        case "lookup":
            raise LookupError(key)
        case "os":
            raise FileNotFoundError(2, key, "a file")
        case "three":
            raise ThreeArguments(key, "the middle", 3)
        case "keyword":
            raise KeywordOnly(what=key)
        case "lock":
            raise HoldsLock(key)
        case "frozen":
            raise Frozen(key)
        case "group":
            raise ExceptionGroup(key, [ValueError(1), KeyError(2)])
        case "exit":
            raise SystemExit(key)
        case "leave":
            raise GeneratorExit(key)
    raise AssertionError(kind)


# -- a task ------------------------------------------------------------------------------------------------------------


def run_task(place: Place, index: int, task: Task, array: Any = None) -> tuple[int, int, Any]:
    """Do what a task says; gives its index and attempt with the value."""
    me = current_task()
    key = key_of(place.trail, index, me.attempt)
    place.journal.add(key)
    if me.index != index:
        raise AssertionError(f"task {index} takes itself for {me.index}")
    return index, me.attempt, _value(place, key, me.attempt, index, task, array)


def run_item(item: tuple[Any, ...]) -> tuple[int, int, Any]:
    """Do the same, with one argument."""
    return run_task(*item)


def _value(place: Place, key: str, attempt: int, index: int, task: Task, array: Any) -> Any:
    match task:
        case Give(number):
            return number
        case Look():
            return TRAIL.get()
        case Raise(kind):
            _raise(kind, key)
        case Flaky(until):
            return attempt if attempt >= until else _raise("lookup", key)
        case Array(size, gives):
            if gives == "made":
                return np.full(size, float(index))
            return array if gives == "same" else float(array.sum())
        case Lock():
            return threading.Lock()
        case UnreadableTask():
            return Unreadable()
        case Nested(block, lets_through):
            return run(block, place.journal, f"{key}/", lets_through)
    raise AssertionError(task)


def _array(task: Task, index: int) -> Any:
    return np.full(task.size, float(index)) if isinstance(task, Array) and task.gives != "made" else None


# -- a block -----------------------------------------------------------------------------------------------------------


def run(block: Block, journal: Journal, trail: str = "", lets_through: bool = False) -> list[Came]:
    """Run the calls of a block; gives what came of each, or raises the first failure if it `lets_through`."""
    came = []
    with ExitStack() as stack:
        parallel = _make(block.settings, stack)
        if block.is_with:
            stack.enter_context(parallel)
        for number, call in enumerate(block.calls):
            place = Place(journal, f"{trail}c{number}")
            token = TRAIL.set(place.trail)
            try:
                came.append(_run_call(parallel, call, place, lets_through))
            finally:
                TRAIL.reset(token)
    return came


def _make(settings: Settings, stack: ExitStack) -> Parallel:
    names = [name for name in settings.__dataclass_fields__ if name != "in_config"]
    values = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    config = {name: value for name, value in values.items() if name in settings.in_config}
    arguments = {name: value for name, value in values.items() if name not in settings.in_config}
    options: dict[str, Any] = {}  # of the backend: they go where its name goes
    if settings.backend == "futures":
        options["executor"] = stack.enter_context(ThreadPoolExecutor(EXECUTOR_THREADS))
    elif settings.backend == "mp":
        options["start_method"] = "fork"
    (config if "backend" in config else arguments).update(options)
    if config:
        stack.enter_context(parallel_config(**config))
    return Parallel(**arguments)


def _start(parallel: Parallel, call: Call, place: Place, error: InputFailed) -> Any:
    """Make the call, in its form."""

    def items() -> Iterator[tuple[Any, ...]]:
        for index, task in enumerate(call.tasks):
            if index == call.input_fails_at:
                raise error
            yield place, index, task, _array(task, index)
        if call.input_fails_at == len(call.tasks):
            raise error

    def given(each: Callable[[tuple[Any, ...]], Any]) -> Any:
        made = map(each, items())
        return list(made) if call.is_sized else (one for one in made)

    match call.form:
        case "delayed":
            return parallel(given(lambda item: delayed(run_task)(*item[:3], array=item[3])))
        case "map":
            return parallel.map(run_item, given(lambda item: item))
        case "starmap":
            return parallel.starmap(run_task, given(lambda item: item))
        case "zip":
            return parallel.map(
                run_task,
                [place] * (len(call.tasks) + 1),
                range(len(call.tasks) + 1),
                (*call.tasks, None),
                given(lambda item: item[3]),
            )
    raise AssertionError(call.form)


def _run_call(parallel: Parallel, call: Call, place: Place, lets_through: bool) -> Came:
    fault = InputFailed(f"input of {place.trail}")
    elements: list[Element] = []
    oddities: list[str] = []
    try:
        results = _start(parallel, call, place, fault)
        if isinstance(results, list):
            elements += [_element(one, oddities, place) for one in results]
            return Came(tuple(elements), "end", tuple(oddities))
        try:
            end = _consume(results, call.stop, lambda one: elements.append(_element(one, oddities, place)))
        except BaseException:
            if next(results, None) is not None:
                oddities.append("a generator that has failed gave one more result")
            raise
        del results
        gc.collect()
        return Came(tuple(elements), end, tuple(oddities))
    except (Exception, SystemExit, GeneratorExit) as error:
        if lets_through:
            raise
        if type(error) is InputFailed and error.args == fault.args and error is not fault:
            oddities.append("the input's exception came as another object")
        partial = getattr(error, "partial_results", None)
        if isinstance(partial, dict) and parallel.return_as == "list":
            for index, one in partial.items():
                elements.append(_element(one, oddities, place))
                if elements[-1].index not in (index, None):
                    oddities.append(f"partial result {index} is {elements[-1]}")
        return Came(tuple(elements), describe(error), tuple(oddities))


def _consume(results: Any, stop: Stop | None, take: Callable[[Any], None]) -> str:
    if stop is None:
        for one in results:
            take(one)
        return "end"
    n_taken = 0
    if stop.how == "raise" and stop.after > 0:
        try:
            for one in results:
                take(one)
                n_taken += 1
                if n_taken == stop.after:
                    raise ConsumerFailed
        except ConsumerFailed:
            return "left"
        return "end"
    for one in islice(results, stop.after):
        take(one)
        n_taken += 1
    if n_taken < stop.after:
        return "end"
    if stop.how == "close":
        results.close()
    return "left"  # dropped by the caller


def _element(one: Any, oddities: list[str], place: Place) -> Element:
    if isinstance(one, BaseException):
        failure = describe(one)
        return Element(_index_of(failure, place), 0, failure)
    index, attempt, value = one
    if isinstance(value, np.ndarray):
        if not value.flags.writeable:
            oddities.append(f"array {index} is read-only")
        value = ("array", value.shape, float(value.sum()))
    elif isinstance(value, Unreadable):
        value = "Unreadable"
    elif isinstance(value, type(threading.Lock())):
        value = "Lock"
    return Element(index, attempt, value)


def _index_of(failure: Failure, place: Place) -> int | None:
    said = [note[1] for note in failure.notes or () if note[0] == "task"]
    if said:
        return int(said[-1])
    _, found, rest = (failure.text or "").partition(f"{place.trail}/")
    return int(rest.partition(".")[0]) if found else None
