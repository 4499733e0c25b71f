"""`Parallel.share` on every backend."""

from __future__ import annotations

import functools
import gc
import operator
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from parallel import Parallel, Shared, delayed
from parallel.errors import TaskPicklingError

LOCAL: dict[str, dict[str, Any]] = {
    "caller": {"n_jobs": 1},
    "threads": {"n_jobs": 2, "backend": "threads"},
    "futures-threads": {"n_jobs": 2, "backend": "futures"},
}
PROCESSES: dict[str, dict[str, Any]] = {
    "mp-fork": {"n_jobs": 2, "backend": "mp", "start_method": "fork"},
    "mp-spawn": {"n_jobs": 2, "backend": "mp", "start_method": "spawn"},
    "loky": {"n_jobs": 2, "backend": "loky"},
    "futures": {"n_jobs": 2, "backend": "futures"},
}

every_kind = pytest.mark.parametrize("kind", LOCAL | PROCESSES)
every_process_kind = pytest.mark.parametrize("kind", PROCESSES)


@pytest.fixture
def parallel(kind: str) -> Iterator[Parallel]:
    arguments = (LOCAL | PROCESSES)[kind]
    if arguments.get("backend") != "futures":
        with Parallel(**arguments) as made:
            yield made
        return
    with (ThreadPoolExecutor if kind in LOCAL else ProcessPoolExecutor)(2) as executor:
        yield Parallel(**arguments, executor=executor)


def get_inside(holder: dict[str, Shared], position: int) -> float:
    return float(holder["deep"].get()[position])


def is_writable(array: np.ndarray[Any, Any]) -> bool:
    return array.flags.writeable


def fail_if_negative(array: np.ndarray[Any, Any], position: int) -> float:
    if array[position] < 0:
        raise LookupError(position)
    return float(array[position])


def n_regions(process: int | str = "self") -> int:
    folder = f"/proc/{process}/fd"
    targets = []
    for name in os.listdir(folder):
        try:
            targets.append(os.readlink(f"{folder}/{name}"))
        except OSError:
            continue
    # Without those for results, which calls of one block leave to each other.
    return sum("memfd:parallel" in target and "-results-" not in target for target in targets)


@every_kind
def test_as_an_argument_it_arrives_as_the_object(parallel: Parallel) -> None:
    values = np.arange(100_000.0)
    with parallel.share(values) as shared:
        for _ in range(2):  # several calls
            assert parallel(delayed(operator.getitem)(shared, i) for i in range(5)) == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert parallel(delayed(is_same_sum)(array=shared) for _ in range(2)) == [True, True]
        assert parallel.map(len, [shared, shared]) == [100_000] * 2
        assert parallel.starmap(operator.getitem, [(shared, 7)]) == [7.0]


def is_same_sum(*, array: np.ndarray[Any, Any]) -> bool:
    return bool(array.sum() == 100_000 * 99_999 / 2)


@every_kind
def test_deeper_the_task_asks_for_it(parallel: Parallel) -> None:
    with parallel.share(np.arange(100_000.0)) as shared:
        assert parallel(delayed(get_inside)({"deep": shared}, i) for i in range(3)) == [0.0, 1.0, 2.0]
        assert parallel.map(lambda i: float(shared.get()[i]), range(3)) == [0.0, 1.0, 2.0]
        assert parallel.map(functools.partial(get_inside, {"deep": shared}), range(3)) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("kind", LOCAL)
def test_in_this_process_it_is_the_callers_own_object(parallel: Parallel) -> None:
    found: list[object] = []
    with parallel.share(found) as shared:
        parallel(delayed(list.append)(shared, i) for i in range(4))
        assert shared.get() is found
    assert sorted(found) == [0, 1, 2, 3]  # type: ignore[type-var]


@every_kind
def test_anything_that_can_be_pickled_can_be_shared(parallel: Parallel) -> None:
    value = {"numbers": list(range(1000)), "text": "x" * 100_000, "array": np.ones(20_000), "function": is_writable}
    with parallel.share(value) as shared:
        (result,) = parallel(delayed(dict.copy)(shared) for _ in range(1))
    assert (result["array"] == 1).all()
    assert {**result, "array": None} == {**value, "array": None}


@every_process_kind
def test_arrays_are_read_only_or_as_the_mode_says(kind: str, parallel: Parallel) -> None:
    with parallel.share(np.ones(100_000)) as shared:
        assert parallel.map(is_writable, [shared] * 2) == [False, False]
    private = Parallel(n_jobs=2, backend="mp", mmap_mode="c")
    with private.share(np.ones(100_000)) as shared:
        assert private.map(is_writable, [shared] * 2) == [True, True]


@every_process_kind
def test_what_is_shared_is_what_the_object_was(parallel: Parallel) -> None:
    values = np.zeros(100_000)
    with parallel.share(values) as shared:
        values[0] = 1
        assert parallel.map(operator.itemgetter(0), [shared] * 2) == [0.0, 0.0]


@every_kind
def test_after_it_was_closed_it_is_an_error_that_says_so(parallel: Parallel) -> None:
    shared = parallel.share(np.ones(100_000))
    shared.close()
    shared.close()
    with pytest.raises((ValueError, TaskPicklingError), match="this shared object was closed"):
        parallel.map(len, [shared] * 2)
    with pytest.raises(ValueError, match="closed"):
        shared.get()
    assert parallel.map(abs, [-1, -2]) == [1, 2]
    assert repr(shared) == "<Shared, closed>"


@every_kind
def test_closed_ones_fail_their_own_tasks_only(parallel: Parallel) -> None:
    shared = parallel.share(np.ones(100_000))
    shared.close()
    eager = Parallel(**{**(LOCAL | PROCESSES)["threads"], "return_exceptions": True})
    error, length = eager.map(len, [shared, [1, 2]])
    assert isinstance(error, ValueError)
    assert length == 2


@every_kind
def test_a_failure_names_the_task_and_not_what_is_behind_it(parallel: Parallel) -> None:
    values = np.arange(100_000.0)
    values[3] = -1
    with parallel.share(values) as shared, pytest.raises(LookupError) as caught:
        parallel(delayed(fail_if_negative)(shared, i) for i in range(3, 4))
    assert any("task 0 (fail_if_negative)" in note for note in caught.value.__notes__)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks at /proc")
@every_process_kind
def test_it_is_gone_when_it_is_closed_or_dropped(parallel: Parallel) -> None:
    before = n_regions()
    shared = parallel.share(np.ones(100_000))
    dropped = parallel.share(np.ones(100_000))
    assert n_regions() == before + 2
    assert parallel.map(len, [shared, dropped]) == [100_000] * 2
    shared.close()
    del dropped
    gc.collect()
    assert n_regions() == before


def test_it_travels_by_value_where_it_cannot_be_mapped() -> None:
    parallel = Parallel(n_jobs=2, backend="mp", max_nbytes=None)
    with parallel.share(np.arange(100_000.0)) as shared:
        assert parallel.map(operator.itemgetter(5), [shared] * 2) == [5.0, 5.0]


def test_one_that_was_given_on_inside_a_task_works_there() -> None:
    outer = Parallel(n_jobs=2, backend="mp")
    with outer.share(np.arange(100_000.0)) as shared:
        assert outer(delayed(hand_on)({"deep": shared}) for _ in range(2)) == [[0.0, 1.0]] * 2


def hand_on(holder: dict[str, Shared]) -> list[float]:
    inner = Parallel(n_jobs=2, backend="threads")
    return list(inner(delayed(get_inside)(holder, i) for i in range(2)))


def test_one_made_for_threads_can_be_given_to_processes() -> None:
    with Parallel(n_jobs=2, backend="threads").share(np.arange(100_000.0)) as shared:
        assert Parallel(n_jobs=2, backend="mp").map(operator.itemgetter(5), [shared] * 2) == [5.0, 5.0]


def test_what_cannot_be_pickled_cannot_be_shared_with_processes() -> None:
    with pytest.raises(TypeError, match="lock"):
        Parallel(n_jobs=2, backend="mp").share(__import__("threading").Lock())


class MadeWhilePickled:
    """Its array exists only while it is pickled, and is large enough to have a region for itself."""

    def __reduce__(self) -> Any:
        return give, (np.full(2_200_000, 7.0), "x" * 200_000)


def give(array: np.ndarray[Any, Any], text: str) -> np.ndarray[Any, Any]:
    return array


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks at /proc")
@every_process_kind
def test_an_array_that_is_made_while_its_object_is_pickled_stays(parallel: Parallel) -> None:
    before = n_regions()
    with parallel.share([MadeWhilePickled()]) as shared:
        gc.collect()
        assert n_regions() == before + 2  # for the array, and for the pickle
        for _ in range(2):
            (arrays,) = parallel(delayed(list)(shared) for _ in range(1))
            assert [float(array[-1]) for array in arrays] == [7.0]
