"""Calls that begin with what earlier calls of the same function have shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parallel import Parallel, _experience, delayed
from parallel._batching import AdaptiveBatching
from parallel._experience import MAX_FUNCTIONS, HeadStart
from parallel._source import Source
from parallel._states import State
from tests.core.fakes import HereBackend, SizesBackend


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_experience, "_known", {})


def noop(value: Any = None) -> Any:
    return value


def show(function: Callable[..., Any], task_seconds: float, backend: str = "b", state: State = State.FINISHED) -> None:
    """Let a call have shown how long a task of a function lasts."""
    batching = AdaptiveBatching(2)
    head_start = HeadStart(backend, batching, None)
    head_start.begin(function, [1])
    batching.record(10, 10, 10 * task_seconds, 0.0001)
    head_start.end(state)


def first_size(function: Any, args: list[Any], backend: str = "b", total: int | None = None) -> int:
    return HeadStart(backend, AdaptiveBatching(2), total).begin(function, args)


def test_a_function_that_is_not_known_begins_with_one_task() -> None:
    assert first_size(noop, [1]) == 1


def test_a_function_that_is_known_begins_with_a_batch_as_long_as_it_should_be() -> None:
    show(noop, 0.0001)
    size = first_size(noop, [1], total=100_000)
    assert 0.5 * 0.005 < size * 0.0001 <= 2 * 0.005  # a round trip of 0.1 ms is to be 2 % of it


def test_where_the_length_is_not_known_it_begins_with_a_shorter_one() -> None:
    show(noop, 0.0001)
    assert first_size(noop, [1]) * 0.0001 == pytest.approx(0.002)


def test_an_input_of_known_length_is_divided_among_the_workers() -> None:
    show(noop, 0.0001)
    assert first_size(noop, [1], total=40) == 10


def test_functions_that_are_made_anew_have_their_code_in_common() -> None:
    def make(number: int) -> Callable[[int], int]:
        return lambda value: value + number

    show(make(1), 0.0001)
    assert first_size(make(2), [1]) > 1


@pytest.mark.parametrize("function", [len, abs])
def test_what_is_built_in_is_known_too(function: Callable[..., Any]) -> None:
    show(function, 0.0001)
    assert first_size(function, ["x"]) > 1


def test_what_is_known_is_of_one_backend() -> None:
    show(noop, 0.0001, "one")
    assert first_size(noop, [1], "other") == 1


@pytest.mark.parametrize("value", [[1], bytearray(1), object(), (1, 2), b"x" * 1001, "x" * 1001])
def test_arguments_that_are_large_or_may_change_are_begun_with_one_by_one(value: object) -> None:
    show(noop, 0.0001)
    assert first_size(noop, [1, value]) == 1


@pytest.mark.parametrize("function", [HereBackend, [].append, type("Callable", (), {"__call__": noop})()])
def test_what_may_be_another_each_time_is_not_remembered(function: Any) -> None:
    show(function, 0.0001)
    assert _experience._known == {}
    assert first_size(function, [1]) == 1


@pytest.mark.parametrize("state", [State.FAILED, State.CLOSED])
def test_a_call_that_did_not_come_to_its_end_shows_nothing(state: State) -> None:
    show(noop, 0.0001, state=state)
    assert first_size(noop, [1]) == 1


def test_news_count() -> None:
    show(noop, 0.0001)
    show(noop, 1.0)
    assert first_size(noop, [1]) == 1


def test_a_round_trip_that_a_large_batch_has_made_longer_counts_little() -> None:
    show(noop, 0.0001)
    head_start = HeadStart("b", batching := AdaptiveBatching(2), None)
    head_start.begin(noop, [1])
    batching.record(100, 100, 0.01, 0.1)
    head_start.end(State.FINISHED)
    ((_, round_trip),) = _experience._known.values()
    assert round_trip == pytest.approx(0.00011)


def test_so_many_functions_are_remembered_and_no_more() -> None:
    for number in range(MAX_FUNCTIONS + 10):
        show(noop, 0.0001, str(number))
    assert len(_experience._known) == MAX_FUNCTIONS
    assert first_size(noop, [1], "0") == 1
    assert first_size(noop, [1], str(MAX_FUNCTIONS + 9)) > 1


# -- in calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["calls", "generator of calls", "map", "starmap"])
def test_a_second_call_begins_with_a_large_batch(form: str) -> None:
    backend = SizesBackend()

    def call() -> list[Any]:
        backend.sizes.clear()
        parallel = Parallel(n_jobs=2, backend=backend)
        if form == "map":
            return parallel.map(noop, range(500))  # type: ignore[no-any-return]
        if form == "starmap":
            return parallel.starmap(noop, [(i,) for i in range(500)])  # type: ignore[no-any-return]
        tasks: Any = (delayed(noop)(i) for i in range(500))
        return parallel(tasks if form == "generator of calls" else list(tasks))  # type: ignore[no-any-return]

    assert call() == list(range(500))
    assert backend.sizes[0] == 1
    assert call() == list(range(500))
    assert backend.sizes[0] >= 8


def test_a_first_task_that_is_none_is_told_as_ever() -> None:
    parallel = Parallel(n_jobs=2, backend=HereBackend())
    parallel(delayed(noop)(i) for i in range(10))
    wrong: Any = [5]
    with pytest.raises(TypeError, match="task 0 of the input"):
        parallel(wrong)


def test_an_input_that_raises_at_once_raises() -> None:
    def tasks() -> Iterator[Any]:
        raise LookupError("the input")
        yield

    parallel = Parallel(n_jobs=2, backend=HereBackend())
    with pytest.raises(LookupError, match="the input"):
        parallel(tasks())


def test_an_empty_input_has_no_first_task() -> None:
    source = Source.of_calls([])
    source.begin = lambda function, args: pytest.fail("there is no task")  # type: ignore[assignment,return-value]
    assert source.read(1) == ([], True, None)


def test_the_first_read_gives_as_many_as_were_asked_for_then() -> None:
    source = Source.of_map(noop, (iter(range(10)),))
    source.begin = lambda function, args: 4
    assert source.read(1) == ([0, 1, 2, 3], False, None)
    assert source.read(2) == ([4, 5], False, None)


def test_keyword_arguments_are_begun_with_one_by_one() -> None:
    source = Source.of_calls([delayed(noop)(value=1)] * 5)
    source.begin = lambda function, args: pytest.fail("was asked")  # type: ignore[assignment,return-value]
    tasks, _, _ = source.read(1)
    assert len(tasks) == 1


def count_of_known(tasks: Source) -> tuple[int, AdaptiveBatching, list[bool]]:
    """Read the beginning of an input of a function that is known; tell how many were read, and who was trusted."""
    show(noop, 0.0001)
    batching, trusted = AdaptiveBatching(2), list[bool]()
    head_start = HeadStart("b", batching, None, trusted.append)
    tasks.begin, tasks.allows = head_start.begin, head_start.allows
    return len(tasks.read(1)[0]), batching, trusted


SMALL: list[Any] = [1, 2.5, "text", b"bytes", None, True]


@pytest.mark.parametrize(
    "form", [Source.of_calls, lambda tasks: Source.of_starmap(noop, (args for _, args, _ in tasks))]
)
def test_tasks_of_small_constants_are_read_many_at_a_time(form: Callable[[Any], Source]) -> None:
    count, batching, trusted = count_of_known(form(delayed(noop)(SMALL[i % 6]) for i in range(1000)))
    assert count == batching.next_size(None) > 8
    assert trusted == [True]


@pytest.mark.parametrize(
    "second",
    [
        delayed(noop)([1]),
        delayed(noop)(bytearray(1)),
        delayed(noop)(value=1),
        (noop, [1], {}),
        (noop, iter([1]), {}),
        (noop, 5, {}),
    ],
)
def test_a_task_that_could_be_changed_is_the_last_to_be_read(second: Any) -> None:
    read: list[Any] = []

    def tasks() -> Iterator[Any]:
        for task in [delayed(noop)(1), *[second] * 1000]:
            read.append(task)
            yield task

    count, batching, trusted = count_of_known(Source.of_calls(tasks()))
    assert count == len(read) == 2
    assert (batching.next_size(None), batching.task_seconds) == (1, None)
    assert trusted == [True, False]


def test_a_list_need_not_be_looked_at() -> None:
    count, batching, trusted = count_of_known(Source.of_calls([delayed(noop)(1), *[delayed(noop)([1])] * 1000]))
    assert count == batching.next_size(None) > 8
    assert trusted == [True]


@pytest.mark.parametrize("large", [b"x" * 1001, "x" * 1001])
def test_large_constants_are_not_read_many_at_a_time(large: Any) -> None:
    count, batching, trusted = count_of_known(Source.of_calls(delayed(noop)(large if i else 1) for i in range(1000)))
    assert count == 2
    assert batching.next_size(None) == 1
    assert trusted == [True, False]
