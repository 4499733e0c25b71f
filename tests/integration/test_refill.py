"""Inputs that change what they have handed out: each task is to see what was there when it was read."""

from __future__ import annotations

import array
import functools
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from parallel import Parallel, delayed, parallel_config, share

KINDS: dict[str, dict[str, Any]] = {
    "mp": {"n_jobs": 2, "backend": "mp"},
    "loky": {"n_jobs": 2, "backend": "loky"},
}
POLICIES: dict[str, dict[str, Any]] = {
    "auto": {},
    "batches of five": {"batch_size": 5},
    "all read first": {"pre_dispatch": "all"},
}

every_kind = pytest.mark.parametrize("kind", KINDS)
every_policy = pytest.mark.parametrize("policy", POLICIES)

N_TASKS = 40


def first(values: Any, *_: Any) -> float:
    return float(np.asarray(values).ravel()[0])


def last_of(values: list[Any]) -> float:
    return first(values[-1])


def add_one(values: Any, *_: Any) -> float:
    values[0] += 1
    return float(values[0])


def is_writable(values: Any) -> bool:
    return bool(values.flags.writeable)


def give(value: Any) -> Any:
    return value


class Holder:
    def __init__(self, values: Any) -> None:
        self.values = values

    def __call__(self, *_: Any) -> float:
        return first(self.values)


class OwnArray(np.ndarray[Any, Any]):
    """A class derived from that of arrays."""


def fill(values: Any, number: int) -> None:
    if isinstance(values, np.ndarray):
        values[...] = number
    else:
        for i in range(len(values)):
            values[i] = number


MAKERS: dict[str, Callable[[], Any]] = {
    "large array": lambda: np.zeros(200_000),
    "small array": lambda: np.zeros(100),
    "large masked array": lambda: np.ma.zeros(200_000),
    "small masked array": lambda: np.ma.zeros(100),
    "array of a class of its own": lambda: np.zeros(100).view(OwnArray),
    "bytearray": lambda: bytearray(100),
    "array of the standard library": lambda: array.array("d", [0.0] * 100),
}

EXPECTED = [float(i) for i in range(N_TASKS)]


@every_kind
@every_policy
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_argument_that_is_refilled(kind: str, policy: str, make: Callable[[], Any]) -> None:
    def tasks() -> Iterator[Any]:
        values = make()
        for i in range(N_TASKS):
            fill(values, i)
            yield delayed(first)(values)

    assert Parallel(**KINDS[kind], **POLICIES[policy])(tasks()) == EXPECTED


@every_kind
@every_policy
@pytest.mark.parametrize("n_items", [100, 200_000])
def test_one_of_many_arrays_is_refilled(kind: str, policy: str, n_items: int) -> None:
    def tasks() -> Iterator[Any]:
        values = [np.full(n_items, float(j)) for j in range(20)]
        for i in range(N_TASKS):
            values[-1][:] = i
            yield delayed(last_of)(values)

    assert Parallel(**KINDS[kind], **POLICIES[policy])(tasks()) == EXPECTED


@every_kind
@every_policy
@pytest.mark.parametrize("n_items", [100, 200_000])
@pytest.mark.parametrize(
    "make", [Holder, lambda values: functools.partial(first, values), lambda values: lambda *_: first(values)]
)
def test_what_a_function_brings_along_is_refilled(
    kind: str, policy: str, n_items: int, make: Callable[[Any], Callable[..., float]]
) -> None:
    values = np.zeros(n_items)
    function = make(values)

    def tasks() -> Iterator[Any]:
        for i in range(N_TASKS):
            values[:] = i
            yield delayed(function)(i)

    assert Parallel(**KINDS[kind], **POLICIES[policy])(tasks()) == EXPECTED


@every_kind
def test_an_input_that_changes_nothing_is_read_ahead(kind: str) -> None:
    values = np.zeros(200_000)
    parallel = Parallel(**KINDS[kind])
    assert parallel(delayed(first)(values, i) for i in range(500)) == [0.0] * 500
    assert parallel.n_dispatched_batches < 250


# -- where nothing can be shared ---------------------------------------------------------------------------------------


def refilled(n_items: int, dtype: Any = float) -> Iterator[Any]:
    values = np.zeros(n_items, dtype)
    for i in range(N_TASKS):
        values[:] = i
        yield delayed(first)(values)


@every_kind
@pytest.mark.parametrize("settings", [{"max_nbytes": None}, {"mmap_mode": None}], ids=repr)
@pytest.mark.parametrize("n_items", [100, 200_000])
def test_an_argument_that_is_refilled_and_goes_through_the_pipe(
    kind: str, settings: dict[str, Any], n_items: int
) -> None:
    assert Parallel(**KINDS[kind], **settings)(refilled(n_items)) == EXPECTED


@every_kind
@pytest.mark.parametrize("n_items", [100, 200_000])
def test_an_array_of_objects_that_is_refilled(kind: str, n_items: int) -> None:
    assert Parallel(**KINDS[kind])(refilled(n_items, object)) == EXPECTED


@every_kind
def test_an_array_that_is_refilled_after_tasks_without_any(kind: str) -> None:
    def tasks() -> Iterator[Any]:
        for i in range(50):
            yield delayed(abs)(i)
        yield delayed(first)(np.zeros(1))  # from here on, it matters what changes
        yield from refilled(100)

    found = Parallel(**KINDS[kind], batch_size=1, pre_dispatch=1)(tasks())
    assert found[51:] == EXPECTED


@every_kind
def test_an_argument_that_is_refilled_when_the_system_refuses_memory(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no room for a test")

    monkeypatch.setattr("parallel._exports.write_all", refuse)
    with pytest.warns(RuntimeWarning, match="no room for a test"):
        assert Parallel(**KINDS[kind])(refilled(200_000)) == EXPECTED


def hide_memory() -> None:
    """Let this worker find nothing of what is shared, as in another pid namespace."""
    import parallel._imports

    parallel._imports.open_region = lambda _: None


@every_kind
@pytest.mark.parametrize("n_items", [100, 200_000])
def test_an_argument_that_is_refilled_when_no_worker_can_open_it(kind: str, n_items: int) -> None:
    parallel = Parallel(**KINDS[kind], initializer=hide_memory)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert parallel(refilled(n_items)) == EXPECTED
        assert (
            parallel(delayed(first)([values], i) for i, values in enumerate([np.full(200_000, 7.0)] * 8)) == [7.0] * 8
        )
    # From Python 3.12 on there may be another one, for a fork beside threads.
    ours = [str(warning.message) for warning in shown if warning.category is RuntimeWarning]
    assert {text.partition("shared: ")[2] for text in ours} == {"the workers cannot open it"}


@every_kind
def test_a_function_whose_array_is_refilled_uses_up_no_memory(kind: str) -> None:
    values = np.zeros(200_000)
    most = 0

    def tasks() -> Iterator[Any]:
        nonlocal most
        for i in range(300):
            values[:] = i
            most = max(most, len(os.listdir("/proc/self/fd")))
            yield delayed(lambda _: first(values))(i)

    before = len(os.listdir("/proc/self/fd"))
    assert Parallel(**KINDS[kind])(tasks()) == [float(i) for i in range(300)]
    assert most - before < 60


# -- copies of their own -----------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("batch_size", ["auto", 5])
def test_tasks_have_copies_of_their_own_to_write_to(kind: str, batch_size: int | str) -> None:
    values = np.zeros(200_000)
    parallel = Parallel(**KINDS[kind], mmap_mode="c", batch_size=batch_size)
    assert parallel([delayed(add_one)(values, i) for i in range(30)]) == [1.0] * 30
    with parallel.share(values) as shared:
        assert parallel.map(add_one, [shared] * 30) == [1.0] * 30
    assert values[0] == 0


def write_to_first(left: Any, right: Any) -> tuple[float, float]:
    left[0] = 7
    return float(left[0]), float(right[0])


@every_kind
@pytest.mark.parametrize("mode", ["c", "r+"])
def test_buffers_of_equal_content_stay_apart_where_tasks_may_write(kind: str, mode: str) -> None:
    left, right = (np.frombuffer(bytearray(2_000_000)) for _ in range(2))
    assert Parallel(**KINDS[kind], mmap_mode=mode)([delayed(write_to_first)(left, right)]) == [(7.0, 0.0)]


@every_kind
@pytest.mark.parametrize("max_nbytes", ["1M", None])
def test_results_can_be_written_to_whatever_is_shared(kind: str, max_nbytes: str | None) -> None:
    values = np.zeros(1000)
    values.flags.writeable = False
    parallel = Parallel(**KINDS[kind], max_nbytes=max_nbytes)
    assert all(is_writable(result) for result in parallel.map(give, [values, values[10:], values.reshape(10, 100).T]))


# -- share() of the package --------------------------------------------------------------------------------------------


@every_kind
def test_the_package_shares_by_the_settings_in_force(kind: str) -> None:
    with parallel_config(mmap_mode="c"), share(np.zeros(200_000)) as shared:
        assert Parallel(**KINDS[kind]).map(add_one, [shared] * 4) == [1.0] * 4
    with share(np.zeros(200_000)) as shared:
        assert Parallel(**KINDS[kind]).map(is_writable, [shared] * 4) == [False] * 4
        (found,) = Parallel(n_jobs=2, backend="threads").map(give, [shared])
        assert found is shared.get()


def n_mapped(*_: Any) -> int:
    with open("/proc/self/maps") as lines:
        return sum("memfd:parallel-data" in line for line in lines)


@every_kind
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="looks at /proc")
def test_what_a_closure_has_shared_is_given_back_by_the_workers(kind: str) -> None:
    gc.collect()  # a worker that is forked has what the caller has mapped
    with Parallel(**KINDS[kind]) as parallel:
        shared = parallel.share(np.zeros(200_000))
        assert parallel.map(lambda i: float(shared.get()[i]), range(4)) == [0.0] * 4
        shared.close()
        assert parallel.map(n_mapped, range(20)) == [0] * 20


@every_kind
@pytest.mark.parametrize("make", [np.zeros, lambda n: array.array("d", [0.0] * n), bytearray])
def test_a_call_of_a_function_that_had_small_tasks_before(kind: str, make: Callable[[int], Any]) -> None:
    parallel = Parallel(**KINDS[kind])
    numbers = list(range(200))
    for _ in range(2):  # so that it is known how short they are
        assert parallel(delayed(first)(i) for i in numbers) == numbers

    def tasks() -> Iterator[Any]:
        yield delayed(first)(-1)
        values = make(8)
        for i in numbers:
            values[0] = i
            yield delayed(first)(values)

    assert parallel(tasks()) == [-1, *numbers]


def add_to_array(value: Any) -> float:
    return add_one(value) if isinstance(value, np.ndarray) else float(value)


@every_kind
@pytest.mark.parametrize("n_items", [10, 400_000])
def test_tasks_of_a_known_function_have_copies_of_their_own(kind: str, n_items: int) -> None:
    with Parallel(**KINDS[kind], mmap_mode="c") as parallel:
        for _ in range(2):
            parallel.map(add_to_array, range(500))
        assert parallel.map(add_to_array, [0, *[np.zeros(n_items)] * 60]) == [0.0, *[1.0] * 60]
        # Of batches that were composed before there was an array to be seen.
        for n_numbers in (100, 1000):
            tasks = [*[0] * n_numbers, *[np.zeros(n_items)] * 60]
            assert parallel.map(add_to_array, tasks) == [*[0.0] * n_numbers, *[1.0] * 60]
            calls = [delayed(add_to_array)(task) for task in tasks]
            assert parallel(calls) == [*[0.0] * n_numbers, *[1.0] * 60]


class Adder:
    """A function that brings an array along, and changes it."""

    def __init__(self, n_items: int) -> None:
        self.values = np.zeros(n_items)

    def __call__(self, number: int) -> float:
        return add_one(self.values)


@every_kind
@pytest.mark.parametrize("n_items", [10, 400_000])
@pytest.mark.parametrize("batch_size", ["auto", 16, 200])
def test_tasks_have_copies_of_their_own_of_what_functions_bring(kind: str, n_items: int, batch_size: Any) -> None:
    adder = Adder(n_items)
    tasks = [*[delayed(float)(1)] * 150, *[delayed(adder)(i) for i in range(60)]]
    assert Parallel(**KINDS[kind], mmap_mode="c", batch_size=batch_size)(tasks) == [1.0] * 210
