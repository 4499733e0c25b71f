from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel import _setup
from parallel._results import OrderedResults, Results, UnorderedResults

Fragment = tuple[int, list[str]]


def fragments(lengths: list[int]) -> list[Fragment]:
    """Neighbouring fragments of these lengths; the results are named after their task."""
    made: list[Fragment] = []
    start = 0
    for length in lengths:
        made.append((start, [f"result {i}" for i in range(start, start + length)]))
        start += length
    return made


@given(lengths=st.lists(st.integers(1, 5), max_size=20), seed=st.integers(0, 1000))
def test_ordered_results_go_out_in_order_once_and_as_soon_as_they_can(lengths: list[int], seed: int) -> None:
    results = OrderedResults()
    arriving = fragments(lengths)
    random.Random(seed).shuffle(arriving)
    arrived: dict[int, list[str]] = {}
    out: list[Fragment] = []
    for start, values in arriving:
        arrived[start] = values
        out += results.add(start, values)
        expected = 0  # all that follow each other from the beginning
        while expected in arrived:
            expected += len(arrived[expected])
        assert sum(len(fragment) for _, fragment in out) == expected
    assert out == fragments(lengths)


@given(lengths=st.lists(st.integers(1, 5), max_size=20), seed=st.integers(0, 1000))
def test_ordered_results_tell_what_waits(lengths: list[int], seed: int) -> None:
    results = OrderedResults()
    arriving = fragments(lengths)
    random.Random(seed).shuffle(arriving)
    arrived: dict[int, Any] = {}
    for start, values in arriving:
        arrived.update(enumerate(values, start))
        for at, fragment in results.add(start, values):
            for index in range(at, at + len(fragment)):
                del arrived[index]
        assert dict(results.waiting()) == arrived


def test_a_fragment_goes_out_as_itself() -> None:
    values = ["a", "b"]
    for results in (OrderedResults(), UnorderedResults()):
        ((start, out),) = results.add(0, values)
        assert start == 0
        assert out is values


def test_fragments_are_never_joined() -> None:
    results = OrderedResults()
    results.add(2, ["c"])
    assert results.add(0, ["a", "b"]) == [(0, ["a", "b"]), (2, ["c"])]


def test_the_next_task_of_ordered_results_is_the_first_that_is_missing() -> None:
    results = OrderedResults()
    assert results.is_next(0)
    results.add(1, ["b"])
    assert results.is_next(0) and not results.is_next(1)
    results.add(0, ["a"])
    assert results.is_next(2)


def test_unordered_results_go_out_as_they_come_and_wait_for_nothing() -> None:
    results = UnorderedResults()
    assert results.add(7, ["h"]) == [(7, ["h"])]
    assert results.add(0, ["a"]) == [(0, ["a"])]
    assert list(results.waiting()) == []
    assert not results.is_next(1)


def test_a_result_that_comes_twice_is_a_bug_of_ours() -> None:
    results = OrderedResults()
    results.add(0, ["a"])
    with pytest.raises(AssertionError, match="twice"):
        results.add(0, ["a"])


@pytest.mark.parametrize(
    ("results", "text"),
    [
        (OrderedResults(), "<OrderedResults 1 out, 2 held>"),
        (UnorderedResults(), "<UnorderedResults 3 out>"),
    ],
)
def test_the_repr_counts(results: Results, text: str) -> None:
    results.add(0, ["a"])
    results.add(2, ["c", "d"])
    assert repr(results) == text


@pytest.mark.parametrize("count", [0, 1, 5, 64, 65, 1000])
def test_a_list_of_results_is_put_together_from_all_its_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_setup, "_PIECE", 4)
    monkeypatch.setattr(_setup, "_PIECES", 8)
    sink = _setup.ListSink()
    for start in range(0, count, 3):
        sink.deliver(start, list(range(start, min(start + 3, count))))
    assert sink.take() == list(range(count))
    assert sink.take() == []
