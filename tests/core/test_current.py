from __future__ import annotations

import threading
from collections import Counter
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest

from parallel import CurrentTask, Parallel, Retry, current_task, delayed, parallel_config
from tests.core.fakes import HereBackend


def see(_: object = None) -> CurrentTask:
    return current_task()


def draw(_: object = None) -> float:
    return float(current_task().rng().random())


WAYS: list[Any] = [{"n_jobs": 1}, {"n_jobs": 2, "backend": HereBackend()}]
every_way = pytest.mark.parametrize("way", WAYS, ids=["caller", "here"])


@every_way
@pytest.mark.parametrize("mode", ["list", "generator"])
def test_a_task_knows_its_place_in_the_input(way: dict[str, Any], mode: str) -> None:
    found = list(Parallel(return_as=mode, **way).map(see, range(50)))
    assert [task.index for task in found] == list(range(50))
    assert {task.attempt for task in found} == {1}


@every_way
def test_workers_are_numbered_from_0(way: dict[str, Any]) -> None:
    found = Parallel(batch_size=1, **way).map(see, range(50))
    assert {task.worker for task in found} <= set(range(way["n_jobs"]))


def test_a_call_in_its_caller_says_so() -> None:
    assert Parallel(1).map(see, [0])[0].backend == "sequential"
    assert Parallel(2, HereBackend).map(see, [0])[0].backend == "HereBackend"


@every_way
def test_a_task_that_runs_again_knows_which_attempt_it_is(way: dict[str, Any]) -> None:
    tries: Counter[int] = Counter()

    def fail_at_first(number: int) -> tuple[int, int]:
        tries[number] += 1
        task = current_task()
        assert task.attempt == tries[number]
        if number % 3 == 0 and task.attempt < 3:
            raise ValueError(number)
        return task.index, task.attempt

    found = Parallel(retries=Retry(attempts=3, on=(ValueError,)), **way).map(fail_at_first, range(10))
    assert found == [(number, 3 if number % 3 == 0 else 1) for number in range(10)]


@every_way
def test_inside_a_call_the_innermost_one_counts(way: dict[str, Any]) -> None:
    def outer(_: int) -> tuple[int, list[int], int]:
        before = current_task().index
        inner = Parallel(1).map(see, range(3))
        return before, [task.index for task in inner], current_task().index

    assert Parallel(**way).map(outer, range(4)) == [(number, [0, 1, 2], number) for number in range(4)]


def test_outside_of_tasks_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="inside a task"):
        current_task()
    Parallel(1).map(see, range(2))
    with pytest.raises(RuntimeError, match="inside a task"):
        current_task()


def test_who_asks_for_the_results_of_a_generator_is_in_no_task() -> None:
    for _ in Parallel(1, return_as="generator").map(see, range(2)):
        with pytest.raises(RuntimeError):
            current_task()


def test_the_input_of_a_call_inside_a_task_is_in_the_outer_task() -> None:
    def outer(_: int) -> list[int]:
        seen = []

        def tasks() -> Any:
            for number in range(2):
                seen.append(current_task().index)
                yield delayed(abs)(number)

        Parallel(1)(tasks())
        return seen

    assert Parallel(1).map(outer, range(3)) == [[0, 0], [1, 1], [2, 2]]


def test_a_thread_with_a_copy_of_the_context_knows_the_task() -> None:
    def ask(_: int) -> int:
        found: list[int] = []
        context = copy_context()
        thread = threading.Thread(target=lambda: found.append(context.run(see).index))
        thread.start()
        thread.join()
        return found[0]

    assert Parallel(2, HereBackend).map(ask, range(4)) == [0, 1, 2, 3]


# -- random numbers ----------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_random_numbers_depend_on_the_seed_and_the_index_only(way: dict[str, Any], batch_size: Any) -> None:
    children = np.random.SeedSequence(42).spawn(20)
    expected = [float(np.random.default_rng(child).random()) for child in children]
    assert Parallel(seed=42, batch_size=batch_size, **way).map(draw, range(20)) == expected


def test_a_task_that_runs_again_has_the_same_random_numbers() -> None:
    drawn = []

    def fail_once(_: int) -> None:
        drawn.append(draw())
        if current_task().attempt == 1:
            raise ValueError

    Parallel(1, retries=1, seed=1).map(fail_once, range(1))
    assert drawn[0] == drawn[1]


def test_a_seed_may_be_said_in_the_task_or_for_a_block() -> None:
    expected = Parallel(1, seed=5).map(draw, range(3))
    assert Parallel(1).map(lambda _: float(current_task().rng(5).random()), range(3)) == expected
    assert Parallel(1, seed=6).map(lambda _: float(current_task().rng(5).random()), range(3)) == expected
    with parallel_config(seed=5):
        assert Parallel(1).map(draw, range(3)) == expected


def test_a_seed_sequence_is_a_seed() -> None:
    parent = np.random.SeedSequence(7).spawn(3)[2]
    expected = [float(np.random.default_rng(child).random()) for child in parent.spawn(4)]
    assert Parallel(1, seed=np.random.SeedSequence(7).spawn(3)[2]).map(draw, range(4)) == expected
    assert len(set(Parallel(1, seed=[1, 2]).map(draw, range(4)))) == 4


def test_without_a_seed_nobody_can_foresee_them() -> None:
    assert len(set(Parallel(1).map(draw, range(4)) + Parallel(1).map(draw, range(4)))) == 8


@pytest.mark.parametrize("seed", [-1, 1.5, "x", [1, -1], True, object()])
def test_what_is_no_seed_is_refused_where_it_is_written(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        Parallel(seed=seed)
    with pytest.raises(ValueError, match="seed must be"):
        parallel_config(seed=seed)


def test_what_a_task_is_told_can_be_compared() -> None:
    first, same, other = CurrentTask(1, 1, 0, "b"), CurrentTask(1, 1, 0, "b"), CurrentTask(2, 1, 0, "b")
    assert first == same != other
    assert len({first, same, other}) == 2
