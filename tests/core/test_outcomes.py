"""Large containers among results are pickled as soon as they are there, and arrive like all others."""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
import types
from typing import Any

import pytest

from parallel import _outcomes, delayed
from parallel._codec import Codec
from parallel._context import Carried
from parallel._kept import MANY, Keeper
from parallel._memory import Sharing
from parallel._outcomes import decode_outcome
from parallel._region import Folder, Region
from parallel._rooms import ResultParcel
from parallel._serialize import Encoder
from parallel._settings import Settings
from parallel._task import Batch, Outcome
from parallel._worker import CallHeader, run_payload
from parallel.errors import ResultPicklingError


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Keeper]:
    """All keepers that were made."""
    made: list[Keeper] = []
    begin = Keeper.__init__

    def note(self: Keeper, *args: Any) -> None:
        made.append(self)
        begin(self, *args)

    monkeypatch.setattr(Keeper, "__init__", note)
    return made


def results_of(tasks: list[Any], *, sharing: Sharing | None = None, codec: Codec | None = None) -> Outcome:
    header = CallHeader(Settings(), False, sharing=sharing, codec=codec, context=Carried(), caller="another process")
    batch = Batch(0, 0, tasks)
    return decode_outcome(run_payload(Encoder(header, None, codec).encode(batch)), batch, "here", None, codec)


LARGE: dict[str, Any] = {
    "list": list(range(MANY)),
    "tuple": tuple(range(MANY)),
    "set": set(range(MANY)),
    "frozenset": frozenset(range(MANY)),
    "dict": dict.fromkeys(range(MANY), "value"),
    "nested": [[number] for number in range(MANY)],
    "same": [["one"]] * MANY,
    "strings": [str(number) for number in range(MANY)],
    "bytes": [b"x" * 100] * MANY,
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("sharing", [None, Sharing(1 << 20, "r")])
def test_large_containers_arrive_as_they_were(value: Any, sharing: Sharing | None, kept: list[Keeper]) -> None:
    others = [None, 5, "text", [1, 2], LARGE["list"]]
    tasks = [delayed(give)(one) for one in (value, *others)]
    outcome = results_of(tasks, sharing=sharing)
    assert outcome.values == [value, *others]
    assert [type(one) for one in outcome.values] == [type(value), *map(type, others)]
    assert list(kept[-1].kept) == [0, 5]
    assert not outcome.failures


def give(value: object) -> object:
    """A copy that nobody else has."""
    return pickle.loads(pickle.dumps(value))


def test_a_container_that_others_have_too_travels_once(kept: list[Keeper]) -> None:
    table = list(range(MANY))

    def look_up(number: int) -> list[int]:
        return table

    outcome = results_of([delayed(look_up)(number) for number in range(3)])
    assert outcome.values == [table] * 3
    assert len({id(value) for value in outcome.values}) == 1
    assert kept[-1].kept == {}


def test_one_task_and_short_tasks_of_which_there_are_many_are_left_alone(kept: list[Keeper]) -> None:
    assert results_of([delayed(give)(LARGE["list"])]).values == [LARGE["list"]]
    assert kept == []
    tasks = [delayed(give)(LARGE["list"]) for _ in range(100)]
    assert results_of(tasks).values == [LARGE["list"]] * 100


def test_what_goes_through_a_codec_is_left_to_that(kept: list[Keeper]) -> None:
    codec = Codec("pickle", None, 0)
    assert results_of([delayed(give)(LARGE["list"])] * 2, codec=codec).values == [LARGE["list"]] * 2
    assert kept == []


def test_failures_keep_their_places() -> None:
    def fail(number: int) -> list[int]:
        if number % 2:
            raise LookupError(number)
        return list(range(MANY + number))

    outcome = results_of([delayed(fail)(number) for number in range(4)])
    assert [len(value) for value in outcome.values[::2]] == [MANY, MANY + 2]
    assert {position: failure.exception.args for position, failure in outcome.failures.items()} == {1: (1,), 3: (3,)}


def test_a_neighbour_that_cannot_be_pickled_costs_only_itself() -> None:
    def lock(number: int) -> Any:
        return threading.Lock() if number == 1 else list(range(MANY))

    outcome = results_of([delayed(lock)(number) for number in range(3)])
    assert outcome.values[0] == outcome.values[2] == LARGE["list"]
    assert list(outcome.failures) == [1]
    assert isinstance(outcome.failures[1].exception, ResultPicklingError)


class OneWay:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.fixture
def main_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of the program, which travels with its code."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec("class Point:\n    def __init__(self, x): self.x = x", module.__dict__)
    return module.Point


def test_items_of_a_class_of_the_program_arrive(main_class: type) -> None:
    points = [main_class(number) for number in range(MANY)]
    header = CallHeader(Settings(), False, context=Carried(), caller="another process")
    batch = Batch(0, 0, [delayed(points_of)(), delayed(points_of)()])
    outcome = decode_outcome(run_payload(Encoder(header).encode(batch)), batch, "here")
    assert [[point.x for point in value] for value in outcome.values] == [[point.x for point in points]] * 2


def points_of() -> Any:
    return [sys.modules["__main__"].Point(number) for number in range(MANY)]


def test_what_can_be_pickled_and_not_be_unpickled_is_a_clear_error_of_its_task() -> None:
    outcome = results_of([delayed(one_way)(), delayed(lock_of)(), delayed(give)(1)])
    assert outcome.values[2] == 1
    assert list(outcome.failures) == [1, 0]
    assert "cannot be unpickled in the caller" in str(outcome.failures[0].exception)
    assert "cannot be sent back" in str(outcome.failures[1].exception)


def test_what_raises_anything_when_it_is_pickled_is_left_to_the_batch() -> None:
    outcome = results_of([delayed(leaving)(), delayed(give)(LARGE["list"])])
    assert isinstance(outcome.failures[0].exception, ResultPicklingError)
    assert outcome.values[1] == LARGE["list"]


class Leaving:
    """Ends the program, if one lets it."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)


def leaving() -> Any:
    return [Leaving()] * MANY


@pytest.mark.parametrize("word", ["numpy", "__main__"])
def test_a_word_that_means_something_to_the_pickler_costs_nobody_else_anything(word: str, kept: list[Keeper]) -> None:
    loaded.clear()
    outcome = results_of([delayed(noting)(word), delayed(noting)("word"), delayed(give)(word), delayed(give)(1)])
    assert [value if isinstance(value, (str, int)) else value[-1] for value in outcome.values] == [
        word,
        "word",
        word,
        1,
    ]
    assert loaded == [], "what is sent is not unpickled where it was made"


#: What was unpickled in this process while a payload ran.
loaded: list[str] = []


class Noting:
    """Notes when it is unpickled, in a worker."""

    def __setstate__(self, state: Any) -> None:
        if "run_payload" in {frame.name for frame in traceback.extract_stack()}:
            loaded.append("here")


def noting(word: str) -> Any:
    return [*[Noting() for _ in range(MANY)], word]


def one_way() -> Any:
    return [OneWay()] * MANY


def lock_of() -> Any:
    return threading.Lock()


def test_results_that_are_large_together_are_in_the_room() -> None:
    values: list[Any] = []
    keeper = Keeper(50_000, values)
    for _ in range(20):
        values.append(keeper(list(range(10_000))))
    room = Region("results", Folder(None))
    parcel = ResultParcel(50_000, room.address)
    encoded = _outcomes.encode_outcome(Outcome(values, {}, 1.0), 0, str, parcel)
    encoded = _outcomes.with_kept(encoded, keeper.kept, parcel)
    parcel.close()
    assert len(encoded) < 1000
    outcome = decode_outcome(encoded, Batch(0, 0, [None] * 20), "here", room)
    assert outcome.values == [list(range(10_000))] * 20


def test_where_others_have_the_room_they_go_through_the_pipe() -> None:
    values: list[Any] = []
    keeper = Keeper(50_000, values)
    for make in (lambda: list(range(10_000)), lambda: b"x" * 60_000, lambda: list(range(9_000)), lambda: [1] * 60_000):
        values.append(keeper(make()))
    assert len(keeper.kept) == 2
    room = Region("results", Folder(None))
    parcel = ResultParcel(50_000, room.address)
    encoded = _outcomes.encode_outcome(Outcome(values, {}, 1.0), 0, str, parcel)
    encoded = _outcomes.with_kept(encoded, keeper.kept, parcel)
    parcel.close()
    outcome = decode_outcome(encoded, Batch(0, 0, [None] * 4), "here", room)
    assert outcome.values == [list(range(10_000)), b"x" * 60_000, list(range(9_000)), [1] * 60_000]


def test_a_result_that_is_large_alone_is_left_to_the_room() -> None:
    keeper = Keeper(1000, [])
    assert keeper(list(range(10_000))) == list(range(10_000))
    assert keeper.kept == {}
    assert keeper(list(range(MANY))) == list(range(MANY))  # nor is another one pickled in vain


def test_arrays_are_left_to_what_knows_them() -> None:
    numpy = pytest.importorskip("numpy")
    values: list[Any] = []
    keeper = Keeper(1 << 20, values)
    assert len(keeper([numpy.arange(10)] * MANY)) == MANY
    assert keeper.kept == {}
