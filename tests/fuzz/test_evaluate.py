"""The comparison itself: what is right passes, and whatever is wrong in one point does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.fuzz.evaluate import ExpectedBlock, Runs, evaluate
from tests.fuzz.outcome import Came, Element, Failure
from tests.fuzz.programs import Block, Call, Flaky, Give, Lock, Nested, Raise, Settings, Stop, Task

THREADS = Settings("threads", 2, "list", None, None, 0, False, None, frozenset())
GIVES = (Give(7), Give(8), Give(9))
RAISES = (Give(7), Raise("lookup"), Give(9))
FAILURE = Failure("LookupError", "c0/1.1", (("task", 1),))


def expected_of(tasks: Iterable[Task], runs: Runs | None = None, **changes: Any) -> ExpectedBlock:
    call_changes = {name: changes.pop(name) for name in ("stop", "input_fails_at") if name in changes}
    call = replace(Call(tuple(tasks), "map", False, None, None), **call_changes)
    return evaluate(Block(replace(THREADS, **changes), (call,), False), "", runs or Runs())


def elements(*numbers: int) -> tuple[Element, ...]:
    """Give the results of tasks of GIVES, by their index."""
    return tuple(Element(number, 1, number + 7) for number in numbers)


def problems(expected: ExpectedBlock, came: Came, runs: Runs | None = None) -> list[str]:
    return expected.problems([came], runs or Runs())


@pytest.mark.parametrize("mode", ["list", "generator", "generator_unordered"])
def test_all_results(mode: str) -> None:
    expected = expected_of(GIVES, return_as=mode)
    assert problems(expected, Came(elements(0, 1, 2), "end")) == []
    for wrong in [(0, 1), (0, 1, 1), (0, 1, 2, 2), ()]:
        assert problems(expected, Came(elements(*wrong), "end"))
    assert problems(expected, Came((*elements(0, 1), Element(2, 1, 8)), "end"))
    assert problems(expected, Came((*elements(0, 1), Element(2, 2, 9)), "end"))
    assert problems(expected, Came((*elements(0, 1, 2), Element(3, 1, 10)), "end"))
    assert problems(expected, Came(elements(0, 1, 2), "left"))
    assert problems(expected, Came(elements(0, 1, 2), "end", ("something odd",)))
    assert problems(expected, Came(elements(0, 2), FAILURE))


def test_order_matters_where_there_is_one() -> None:
    came = Came(elements(1, 0, 2), "end")
    assert problems(expected_of(GIVES), came)
    assert problems(expected_of(GIVES, return_as="generator"), came)
    assert problems(expected_of(GIVES, return_as="generator_unordered", n_jobs=1), came)
    assert problems(expected_of(GIVES, return_as="generator_unordered"), came) == []


def test_a_failure_ends_the_call() -> None:
    expected = expected_of(RAISES)
    for partial in [(), (0,), (2,), (0, 2), (2, 0)]:
        assert problems(expected, Came(elements(*partial), FAILURE)) == []
    assert problems(expected, Came(elements(0, 1, 2), "end"))
    assert problems(expected, Came(elements(0, 1), FAILURE))
    for wrong in [
        replace(FAILURE, kind="KeyError"),
        replace(FAILURE, text="c0/0.1"),
        replace(FAILURE, notes=()),
        replace(FAILURE, notes=(("task", 2),)),
        replace(FAILURE, notes=(("task", 1), ("attempt", 2, 2))),
    ]:
        assert problems(expected, Came((), wrong))


def test_one_after_the_other_everything_before_the_failure_is_there() -> None:
    expected = expected_of(RAISES, n_jobs=1)
    assert problems(expected, Came(elements(0), FAILURE)) == []
    assert problems(expected, Came((), FAILURE))
    assert problems(expected, Came(elements(0, 2), FAILURE))


def test_an_exception_that_takes_no_attribute_cannot_bring_what_had_come() -> None:
    tasks = (Give(7), Raise("frozen"))
    failure = Failure("Frozen", "c0/1.1", ())
    assert problems(expected_of(tasks, n_jobs=1), Came((), failure)) == []
    assert problems(expected_of(tasks, n_jobs=1, return_as="generator"), Came((), failure))


def test_an_ordered_generator_gives_nothing_beyond_the_failure() -> None:
    expected = expected_of(RAISES, return_as="generator")
    assert problems(expected, Came((), FAILURE)) == []
    assert problems(expected, Came(elements(0), FAILURE)) == []
    assert problems(expected, Came(elements(0, 2), FAILURE))


def test_any_of_several_failures_may_be_first() -> None:
    tasks = (Raise("lookup"), Raise("lookup"))
    first = Failure("LookupError", "c0/0.1", (("task", 0),))
    assert problems(expected_of(tasks), Came((), first)) == []
    assert problems(expected_of(tasks), Came((), FAILURE)) == []
    assert problems(expected_of(tasks, n_jobs=1), Came((), first)) == []
    assert problems(expected_of(tasks, n_jobs=1), Came((), FAILURE))


def test_failures_in_place_of_results() -> None:
    runs = Runs()
    expected = expected_of(RAISES, return_exceptions=True, retries=1)
    failed = Element(1, 0, Failure("LookupError", "c0/1.2", (("task", 1), ("attempt", 2, 2))))
    right = Came((*elements(0), failed, *elements(2)), "end")
    assert problems(expected, right, runs) == []
    assert runs.must == {"c0/0.1", "c0/1.1", "c0/1.2", "c0/2.1"}
    assert problems(expected_of(RAISES, return_exceptions=True), right)
    assert problems(expected_of(GIVES), right)


def test_attempts() -> None:
    runs = Runs()
    expected = expected_of([Flaky(3)], runs, retries=2)
    assert runs.may == {"c0/0.1", "c0/0.2", "c0/0.3"}
    assert problems(expected, Came((Element(0, 3, 3),), "end"), runs) == []
    assert runs.must == runs.may
    assert problems(expected, Came((Element(0, 2, 2),), "end"))
    assert not expected_of([Flaky(3)], retries=1).calls[0].may_succeed()


def test_results_that_cannot_be_pickled() -> None:
    failure = Failure("ResultPicklingError", "whatever it says", (("task", 0),))
    value = Came((Element(0, 1, "Lock"),), "end")
    assert problems(expected_of([Lock()]), value) == []
    assert problems(expected_of([Lock()]), Came((), failure))
    assert problems(expected_of([Lock()], backend="mp"), Came((), failure)) == []
    assert problems(expected_of([Lock()], backend="mp"), value)


def test_generators_that_are_left() -> None:
    expected = expected_of(GIVES, return_as="generator", stop=Stop(2, "close"))
    assert problems(expected, Came(elements(0, 1), "left")) == []
    assert problems(expected, Came(elements(0), "left"))
    assert problems(expected, Came(elements(1, 2), "left"))
    beyond = expected_of(GIVES, return_as="generator", stop=Stop(4, "close"))
    assert problems(beyond, Came(elements(0, 1, 2), "end")) == []
    assert problems(beyond, Came(elements(0, 1, 2), "left"))


def test_the_failure_of_the_input() -> None:
    failure = Failure("InputFailed", "input of c0", ())
    expected = expected_of(GIVES, input_fails_at=2)
    assert problems(expected, Came(elements(0), failure)) == []
    assert problems(expected, Came(elements(0, 1), "end"))
    one_by_one = expected_of(GIVES, input_fails_at=2, n_jobs=1)
    assert problems(one_by_one, Came(elements(0), failure))
    assert problems(one_by_one, Came(elements(0, 1), failure)) == []
    assert expected.calls[0].ways_to_fail() == [failure]


@pytest.mark.parametrize("lets_through", [False, True])
def test_blocks_inside_of_tasks(lets_through: bool) -> None:
    inner = Block(THREADS, (Call(RAISES, "map", False, None, None),), False)
    expected = expected_of([Nested(inner, lets_through)])
    failure = Failure("LookupError", "c0/0.1/c0/1.1", (("task", 1),))
    passed_on = replace(failure, notes=(("task", 1), ("task", 0)))
    kept = Came((Element(0, 1, [Came((), failure)]),), "end")
    assert (problems(expected, Came((), passed_on)) == []) == lets_through
    assert (problems(expected, kept) == []) != lets_through
    assert problems(expected, Came((), failure))
