from __future__ import annotations

import gc
import weakref
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pytest

from parallel import Parallel, _source, delayed
from parallel._experience import are_small
from parallel._source import Source
from parallel._task import Kind
from tests.core.fakes import HereBackend


def calls(count: int) -> list[Any]:
    return [delayed(abs)(i) for i in range(count)]


def read_all(source: Source, piece: int = 3) -> list[Any]:
    tasks: list[Any] = []
    exhausted = False
    while not exhausted:
        some, exhausted, error = source.read(piece)
        if error is not None:
            raise error
        assert len(some) <= piece
        assert some or exhausted
        tasks += some
    return tasks


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_all_tasks_are_read_once_and_in_order(count: int, kind: type) -> None:
    assert read_all(Source.of_calls(kind(calls(count)))) == calls(count)


def test_no_more_is_taken_from_the_iterator_than_was_asked_for() -> None:
    iterator = iter(calls(10))
    Source.of_calls(iterator).read(4)
    assert len(list(iterator)) == 6


def test_a_slow_iterator_gives_one_task_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slow() -> Iterator[Any]:
        nonlocal now
        for task in calls(5):
            now += 10.0
            yield task

    monkeypatch.setattr(_source, "monotonic", lambda: now)
    source = Source.of_calls(slow())
    assert [len(source.read(100)[0]) for _ in range(5)] == [1] * 5
    assert source.read(100) == ([], True, None)


def test_a_fast_iterator_gives_all_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_source, "monotonic", lambda: 0.0)
    source = Source.of_calls(iter(calls(5000)))
    assert len(source.read(4000)[0]) == 4000


def test_an_iterator_that_becomes_slow_holds_few_tasks_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slower() -> Iterator[Any]:
        nonlocal now
        for i, task in enumerate(calls(10_000)):
            now += 1.0 if i >= 1000 else 0.0
            yield task

    monkeypatch.setattr(_source, "monotonic", lambda: now)
    source = Source.of_calls(slower())
    tasks, _, _ = source.read(9000)
    assert 1000 <= len(tasks) <= 1256


def test_an_error_of_the_iterator_comes_with_what_was_read_before_it() -> None:
    error = LookupError("in the middle")

    def broken() -> Iterator[Any]:
        yield from calls(2)
        raise error

    source = Source.of_calls(broken())
    tasks: list[Any] = []
    raised = None
    while raised is None:
        some, _, raised = source.read(10)
        tasks += some
    assert tasks == calls(2)
    assert raised is error


def test_a_keyboard_interrupt_in_the_iterator_is_not_caught() -> None:
    def interrupted() -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        Source.of_calls(interrupted()).read(1)


@pytest.mark.parametrize("wrong", [abs, 5, None, (abs, (1,)), [abs, (1,), {}], "abc", {}])
def test_what_is_no_task_is_a_type_error_that_gives_its_index(wrong: Any) -> None:
    tasks, _, error = Source.of_calls([*calls(2), wrong, *calls(1)]).read(10)
    assert tasks == calls(2)
    assert isinstance(error, TypeError)
    assert str(error).startswith("task 2 of the input is ")
    assert "delayed" in str(error)


def test_the_index_of_a_wrong_task_counts_from_the_beginning_of_the_input() -> None:
    source = Source.of_calls([*calls(5), abs])
    source.read(3)
    _, _, error = source.read(3)
    assert "task 5 of the input is a function (abs)" in str(error)


def test_a_named_tuple_is_a_task() -> None:
    Task = namedtuple("Task", "function args kwargs")  # noqa: PYI024
    tasks = [Task(abs, (1,), {}), *calls(1)]
    assert read_all(Source.of_calls(tasks)) == tasks
    assert list(Source.of_calls(tasks)) == tasks


def test_a_map_of_one_iterable_has_bare_items() -> None:
    source = Source.of_map(abs, (range(3),))
    assert (source.kind, source.function) == (Kind.ITEMS, abs)
    assert read_all(source) == [0, 1, 2]


def test_a_map_of_several_iterables_ends_with_the_shortest() -> None:
    source = Source.of_map(pow, (range(5), [2, 3]))
    assert source.kind is Kind.ARGS
    assert source.total == 2
    assert read_all(source) == [(0, 2), (1, 3)]


def test_starmap_takes_any_iterable_of_arguments() -> None:
    source = Source.of_starmap(pow, [[2, 3], (4, 5), iter([6, 7])])
    assert source.kind is Kind.ARGS
    assert read_all(source) == [(2, 3), (4, 5), (6, 7)]


def test_starmap_of_what_is_no_iterable_is_an_error_of_the_input() -> None:
    _, _, error = Source.of_starmap(abs, [5]).read(1)  # type: ignore[list-item]
    assert isinstance(error, TypeError)


class Lazy:
    """A sequence that does not know its length."""

    def __len__(self) -> int:
        raise RuntimeError("not known yet")

    def __iter__(self) -> Iterator[Any]:
        return iter(calls(2))


@pytest.mark.parametrize(
    ("source", "total"),
    [
        (Source.of_calls(calls(4)), 4),
        (Source.of_calls(iter(calls(4))), None),
        (Source.of_calls(Lazy()), None),
        (Source.of_map(pow, (range(3), iter([1]))), None),
        (Source.of_starmap(pow, [(1, 2)]), 1),
    ],
)
def test_the_total_is_known_where_the_input_has_a_length(source: Source, total: int | None) -> None:
    assert source.total == total


def test_what_is_not_iterable_is_a_type_error_at_once() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        Source.of_calls(5)  # type: ignore[arg-type]


def test_one_by_one_every_form_gives_whole_tasks() -> None:
    assert list(Source.of_calls(calls(2))) == calls(2)
    assert list(Source.of_map(abs, ([1, 2],))) == [(abs, (1,), {}), (abs, (2,), {})]
    assert list(Source.of_map(pow, ([1], [2]))) == [(pow, (1, 2), {})]
    assert list(Source.of_starmap(pow, [(1, 2)])) == [(pow, (1, 2), {})]


def test_one_by_one_a_wrong_task_is_found_when_it_is_reached() -> None:
    iterator = iter(Source.of_calls([*calls(1), abs]))
    assert next(iterator) == calls(1)[0]
    with pytest.raises(TypeError, match="task 1 of the input"):
        next(iterator)


def test_a_list_whose_class_iterates_in_its_own_way_is_read_that_way() -> None:
    class Backwards(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            return reversed(self)

    assert read_all(Source.of_calls(Backwards(calls(5)))) == calls(5)[::-1]


@pytest.mark.parametrize("numbers", [range(0), range(1), range(7), range(10, -11, -3)])
def test_parts_of_a_range_are_ranges(numbers: range) -> None:
    source = Source.of_map(abs, (numbers,))
    tasks: list[Any] = []
    exhausted = False
    while not exhausted:
        some, exhausted, error = source.read(3)
        assert isinstance(some, range) and error is None
        assert len(some) == 3 or exhausted
        tasks += some
    assert tasks == list(numbers)


def test_the_first_of_a_range_says_how_many_are_read_with_it() -> None:
    source = Source.of_map(abs, (range(5, 100),))
    source.begin = lambda function, args: 40 if function is abs and list(args) == [5] else 0
    assert source.read(1) == (range(5, 45), False, None)
    assert source.read(1) == (range(45, 46), False, None)


def test_the_numbers_of_a_range_are_no_tasks() -> None:
    tasks, exhausted, error = Source.of_calls(range(3)).read(2)
    assert (tasks, exhausted) == ([], False)
    assert isinstance(error, TypeError)


# -- few tasks at once -------------------------------------------------------------------------------------------------


def always(*_: Any) -> bool:
    return True


def take_few(source: Source, most: int) -> list[Any] | None:
    return source.take_few(most, always, are_small)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("form", ["list", "tuple", "range", "iterator", "generator"])
def test_few_tasks_are_taken_at_once_and_of_more_none_is_lost(count: int, form: str) -> None:
    items: Any = range(count)
    made: Any = {"list": list, "tuple": tuple, "range": lambda x: x, "iterator": iter}.get(
        form, lambda x: (i for i in x)
    )
    source = Source.of_map(abs, (made(items),))
    few = take_few(source, 2)
    if few is not None:
        assert few == list(items)
        assert 0 < count <= 2
        source.give_back(few)
    else:
        assert count == 0 or count > 2
    tasks: list[Any] = []
    is_exhausted = False
    while not is_exhausted:
        some, is_exhausted, error = source.read(1)
        assert error is None
        tasks += some
    assert tasks == list(items)


def test_a_slow_iterator_is_left_after_the_task_that_it_was_slow_with(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slow() -> Iterator[int]:
        nonlocal now
        for item in range(3):
            now += 10.0
            yield item

    monkeypatch.setattr(_source, "monotonic", lambda: now)
    source = Source.of_map(abs, (slow(),))
    assert take_few(source, 5) is None
    assert source.read(1) == ([0], False, None)
    assert source.read(1) == ([1], False, None)


def test_what_the_input_raises_meanwhile_comes_with_what_came_before() -> None:
    def broken() -> Iterator[int]:
        yield 0
        raise LookupError("the input")

    source = Source.of_map(abs, (broken(),))
    assert take_few(source, 5) is None
    tasks, is_exhausted, error = source.read(1)
    assert (tasks, is_exhausted) == ([0], False)
    assert isinstance(error, LookupError)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_what_the_input_raises_is_freed_with_its_last_reference(count: int) -> None:
    class BrokenError(Exception):
        """Can be watched."""

    def broken() -> Iterator[Any]:
        yield from calls(count)
        raise BrokenError

    seen = None
    gc.disable()
    try:
        try:
            Parallel(n_jobs=2, backend=HereBackend())(broken())
        except BrokenError as error:
            seen = weakref.ref(error)
        assert seen is not None
        assert seen() is None
    finally:
        gc.enable()
