"""Round trips of batches and outcomes through bytes, in one process: encode, run, decode."""

from __future__ import annotations

import functools
import pickle
import sys
import threading
import types
import urllib.error
from typing import Any, Self

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import delayed
from parallel._outcomes import decode_outcome, encode_outcome, with_handling
from parallel._serialize import MAX_FUNCTIONS, Encoder
from parallel._settings import ACTIVE, Settings
from parallel._task import Batch, Kind, Outcome
from parallel._worker import CallHeader
from parallel.backend import dumps, run_payload
from parallel.errors import BackendContractError, ResultPicklingError, TaskPicklingError

LOCK = threading.Lock()


def header(stop_on_failure: bool = False) -> CallHeader:
    return CallHeader(nested=Settings(), stop_on_failure=stop_on_failure)


class Trip:
    """One call whose batches travel as bytes."""

    def __init__(self, stop_on_failure: bool = False) -> None:
        self.encoder = Encoder(header(stop_on_failure))
        self.next_task = 0

    def send(self, *tasks: Any, kind: Kind = Kind.CALLS, function: Any = None, start: int | None = None) -> Outcome:
        begin = self.next_task if start is None else start
        self.next_task = begin + len(tasks)
        batch = Batch(0, begin, list(tasks), kind, function)
        return decode_outcome(run_payload(self.encoder.encode(batch)), batch, "here")


@pytest.fixture
def trip() -> Trip:
    return Trip()


def fail(kind: type[BaseException], *args: Any) -> Any:
    raise kind(*args)


def failure(outcome: Outcome, position: int = 0) -> BaseException:
    return outcome.failures[position].exception


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A ``__main__`` that only the caller has, and whatever is defined in it."""
    module = types.ModuleType("__main__")
    exec(
        "class Point:\n"
        "    def __init__(self, x): self.x = x\n"
        "    def norm(self): return abs(self.x)\n"
        "def double(point): return Point(2 * point.x)\n"
        "def uses_global(): return CONSTANT\n"
        "CONSTANT = 42\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def run_elsewhere(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Run where the caller's ``__main__`` is not, as in a worker process."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        return run_payload(payload)


# -- what goes and comes -----------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)),
    max_leaves=5,
)


def identity(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@given(
    tasks=st.lists(
        st.tuples(st.lists(VALUES, max_size=3), st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=2)),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=100)
def test_whatever_the_arguments_each_task_gets_its_own(tasks: list[tuple[list[Any], dict[str, Any]]]) -> None:
    outcome = Trip().send(*[delayed(identity)(*args, **kwargs) for args, kwargs in tasks])
    assert outcome.failures == {}
    assert outcome.values == [(tuple(args), kwargs) for args, kwargs in tasks]


@pytest.mark.parametrize(
    "tasks",
    [
        [delayed(pow)(2, 3), delayed(pow)(2, 4)],
        [delayed(pow)(2, 3), delayed(pow)(2, exp=4)],
        [delayed(pow)(2, 3), delayed(pow)(2, 4, 1000)],
        [delayed(pow)(2, 3), delayed(max)(8, 16)],
        [delayed(lambda: 8)(), delayed(lambda: 16)()],
        [(pow, [2, 3], {}), (pow, (2, 4), {})],
        [(pow, iter([2, 3]), {}), (pow, iter([2, 4]), {})],
        [delayed(functools.partial(pow, 2))(3), delayed(functools.partial(pow, 2))(4)],
        [delayed((2).__pow__)(3), delayed((2).__pow__)(4)],
    ],
)
def test_tasks_of_all_forms_travel(trip: Trip, tasks: list[Any]) -> None:
    assert trip.send(*tasks).values == [8, 16]


def test_tasks_without_arguments_run_as_often_as_there_are(trip: Trip) -> None:
    assert trip.send(*[delayed(list)() for _ in range(3)]).values == [[], [], []]


def test_the_tasks_of_a_map_travel(trip: Trip) -> None:
    assert trip.send(-1, -2, kind=Kind.ITEMS, function=abs).values == [1, 2]
    assert trip.send((2, 3), (2, 4), kind=Kind.ARGS, function=pow).values == [8, 16]
    assert trip.send((2, 3), (2, 4, 10), kind=Kind.ARGS, function=pow).values == [8, 6]


def test_tasks_share_nothing_with_the_caller(trip: Trip) -> None:
    out: list[int] = []
    trip.send(delayed(out.append)(1))
    assert out == []


def test_the_outcome_says_how_long_it_took(trip: Trip) -> None:
    assert trip.send(delayed(abs)(1)).seconds >= 0


def test_arrays_travel(trip: Trip) -> None:
    (value,) = trip.send(delayed(np.multiply)(np.arange(5), 2)).values
    assert value.tolist() == [0, 2, 4, 6, 8]


def see_settings() -> Settings:
    return ACTIVE.get()


def test_tasks_see_the_settings_for_what_is_nested() -> None:
    batch = Batch(0, 0, [delayed(see_settings)()])
    encoder = Encoder(CallHeader(nested=Settings(n_jobs=7, nesting_level=1), stop_on_failure=True))
    (seen,) = decode_outcome(run_payload(encoder.encode(batch)), batch, "here").values
    assert (seen.n_jobs, seen.nesting_level) == (7, 1)


def test_the_budget_travels() -> None:
    batch = Batch(0, 0, [delayed(abs)(1)] * 3, budget_seconds=1e-12)
    assert len(decode_outcome(run_payload(Encoder(header()).encode(batch)), batch, "here").values) == 1


# -- functions ---------------------------------------------------------------------------------------------------------


class Counting:
    """A callable that counts how often it is pickled."""

    n_pickled = 0

    def __call__(self, i: int) -> int:
        return i * 10

    def __reduce__(self) -> Any:
        type(self).n_pickled += 1
        return Counting, ()


@pytest.fixture
def counting() -> Counting:
    Counting.n_pickled = 0
    return Counting()


def test_a_function_is_pickled_once_for_a_call_of_many_batches(trip: Trip, counting: Counting) -> None:
    for i in range(5):
        assert trip.send(delayed(counting)(i), delayed(counting)(i + 1)).values == [i * 10, i * 10 + 10]
    assert counting.n_pickled == 1


def test_a_function_is_pickled_once_also_beside_others_and_with_keywords(trip: Trip, counting: Counting) -> None:
    for i in range(5):
        assert trip.send(delayed(counting)(i), delayed(abs)(-1), delayed(counting)(i=3)).values == [i * 10, 1, 30]
    assert counting.n_pickled == 1


def test_the_function_of_a_map_is_pickled_once(trip: Trip, counting: Counting) -> None:
    for _ in range(5):
        assert trip.send(1, 2, kind=Kind.ITEMS, function=counting).values == [10, 20]
    assert counting.n_pickled == 1


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def predict(self, x: int) -> int:
        return self.factor * x


def test_the_object_of_a_bound_method_travels_as_it_is_when_its_batch_is_sent(trip: Trip) -> None:
    model = Model(0)
    for factor in range(3):
        model.factor = factor
        assert trip.send(delayed(model.predict)(1), delayed(model.predict)(10)).values == [factor, 10 * factor]


def test_methods_of_different_objects_are_not_confused(trip: Trip) -> None:
    for _ in range(3):
        outcome = trip.send(*[delayed(Model(factor).predict)(1) for factor in (2, 3, 4)])
        assert outcome.values == [2, 3, 4]


def test_two_calls_do_not_confuse_their_functions() -> None:
    first, second = Trip(), Trip()
    assert first.send(delayed(abs)(-1)).values == [1]
    assert second.send(delayed(str)(-1)).values == ["-1"]
    assert first.send(delayed(abs)(-2)).values == [2]


def test_a_function_for_each_task_travels_however_many_there_are(trip: Trip) -> None:
    count = 3 * MAX_FUNCTIONS
    tasks = [delayed(lambda i=i: i)() for i in range(count)]
    assert trip.send(*tasks).values == list(range(count))
    for i in range(3):
        assert trip.send(delayed(lambda i=i: ("later", i))()).values == [("later", i)]


def test_a_worker_keeps_few_of_them() -> None:
    from parallel import _worker

    trip = Trip()
    trip.send(*[delayed(lambda i=i: i)() for i in range(3 * MAX_FUNCTIONS)])
    assert len(_worker._known_calls[trip.encoder.token].functions) <= MAX_FUNCTIONS


def test_a_worker_forgets_calls_that_are_long_over() -> None:
    from parallel import _worker

    for _ in range(20):
        Trip().send(delayed(abs)(1))
    assert len(_worker._known_calls) <= 4


def test_a_call_that_a_worker_has_forgotten_goes_on(trip: Trip) -> None:
    trip.send(delayed(abs)(-1))
    for _ in range(20):
        Trip().send(delayed(abs)(1))
    assert trip.send(delayed(abs)(-2)).values == [2]


def test_what_a_callable_object_remembers_does_not_leak_into_the_next_batch(trip: Trip) -> None:
    class Counter:
        n = 0

        def __call__(self) -> int:
            self.n += 1
            return self.n

    counter = Counter()
    assert trip.send(delayed(counter)()).values == [1]
    assert trip.send(delayed(counter)()).values == [1]


# -- what only the caller can import -----------------------------------------------------------------------------------


def test_functions_and_classes_of_main_travel(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(header())
    tasks = [delayed(main.double)(main.Point(4)), delayed(main.uses_global)(), delayed(main.Point(-3).norm)()]
    batch = Batch(0, 0, tasks)
    brought = run_elsewhere(encoder.encode(batch), monkeypatch)
    point, constant, norm = decode_outcome(brought, batch, "here").values
    assert point.x == 8
    assert (constant, norm) == (42, 3)


def test_objects_of_main_travel_however_deep_they_are(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def norms(tree: Any) -> int:
        return int(tree["points"][0][0].norm())

    encoder = Encoder(header())
    for _ in range(3):  # the first batch teaches the encoder
        batch = Batch(0, 0, [delayed(norms)({"points": [(main.Point(-5),)]})])
        brought = run_elsewhere(encoder.encode(batch), monkeypatch)
        assert decode_outcome(brought, batch, "here").values == [5]


def test_a_text_that_names_main_travels_like_any_other(trip: Trip) -> None:
    assert trip.send(delayed(str)("__main__ and __mp_main__")).values == ["__main__ and __mp_main__"]


def test_what_is_registered_to_travel_by_value_does(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("def answer(): return 42", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    cloudpickle.register_pickle_by_value(module)
    try:
        batch = Batch(0, 0, [delayed(module.answer)()])
        payload = trip.encoder.encode(batch)
        monkeypatch.delitem(sys.modules, "only_here")
        assert decode_outcome(run_payload(payload), batch, "here").values == [42]
    finally:
        monkeypatch.setitem(sys.modules, "only_here", module)
        cloudpickle.unregister_pickle_by_value(module)


def test_closures_local_classes_and_modules_travel(trip: Trip) -> None:
    class Local:
        value = 7

    offset = 3
    tasks = [
        delayed(lambda x: x + offset)(1),
        delayed(lambda c: c().value)(Local),
        delayed(lambda m: m.pi)(__import__("math")),
    ]
    values = trip.send(*tasks).values
    assert values[:2] == [4, 7]
    assert 3.14 < values[2] < 3.15


def test_results_of_main_and_lambdas_come_back(trip: Trip) -> None:
    (function,) = trip.send(delayed(lambda: lambda x: x + 1)()).values
    assert function(1) == 2


# -- what cannot be sent -----------------------------------------------------------------------------------------------


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def uses_lock() -> Any:
    lock = threading.Lock()
    return lambda: lock


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (delayed(abs)(LOCK), "args[0]"),
        (delayed(pow)(1, Holder(cache=Holder(_lock=LOCK))), "args[1].cache._lock"),
        (delayed(dict)(x=[LOCK]), "kwargs['x'][0]"),
        (delayed(uses_lock())(), "function.<closure lock>"),
        (delayed(LOCK.acquire)(), "function"),
        (delayed(Holder(lock=LOCK).__init__)(), "function.__self__.lock"),
        (delayed(functools.partial(abs, LOCK))(), "function.args[0]"),
    ],
)
def test_what_cannot_be_pickled_is_named_with_its_task_and_path(trip: Trip, task: Any, path: str) -> None:
    good = delayed(abs)(1)
    for tasks, index in [((task,), 5), ((good, task, good), 6)]:
        with pytest.raises(TaskPicklingError) as caught:
            trip.send(*tasks, start=5)
        assert caught.value.task_index == index
        assert caught.value.path.startswith(path)
        assert f"task {index} (" in str(caught.value)
        assert f"{caught.value.path}: " in str(caught.value)
        assert caught.value.__cause__ is not None


def test_the_message_says_why(trip: Trip) -> None:
    with pytest.raises(TaskPicklingError, match=r"args\[1\]\.cache\._lock: cannot pickle '_thread\.lock' object"):
        trip.send(delayed(pow)(1, Holder(cache=Holder(_lock=LOCK))))


def test_an_item_of_a_map_that_cannot_be_pickled_is_named(trip: Trip) -> None:
    with pytest.raises(TaskPicklingError) as caught:
        trip.send(1, 2, [LOCK], kind=Kind.ITEMS, function=str)
    assert (caught.value.task_index, caught.value.path) == (2, "args[0][0]")


def test_after_what_could_not_be_sent_the_call_can_go_on(trip: Trip) -> None:
    with pytest.raises(TaskPicklingError):
        trip.send(delayed(abs)(LOCK))
    assert trip.send(delayed(abs)(-1)).values == [1]


def test_whatever_pickling_raises_is_an_error_of_the_task(trip: Trip) -> None:
    class Refusing:
        def __reduce__(self) -> Any:
            raise SystemError("not me")

    with pytest.raises(TaskPicklingError, match="not me"):
        trip.send(delayed(abs)(Refusing()))


def test_what_is_nested_too_deeply_is_said_to_be(trip: Trip) -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    try:
        with pytest.raises(TaskPicklingError, match="nested too deeply"):
            trip.send(delayed(len)(value))
    finally:
        while value:
            value = value.pop()


class Unloadable:
    """Can be pickled and not unpickled."""

    def __reduce__(self) -> Any:
        return raising_at_load, ()


def raising_at_load() -> Any:
    raise LookupError("at load")


def exiting_at_load() -> Any:
    raise SystemExit(3)


class Exiting:
    def __reduce__(self) -> Any:
        return exiting_at_load, ()


@pytest.mark.parametrize("value", [Unloadable(), Exiting()])
def test_a_task_that_cannot_be_unpickled_is_a_failure_that_nobody_can_place(trip: Trip, value: object) -> None:
    outcome = trip.send(delayed(abs)(1), delayed(abs)(value))
    assert outcome.values == []
    assert outcome.unclear is not None
    assert isinstance(outcome.unclear.exception, TaskPicklingError)
    assert "cannot be unpickled in the worker" in str(outcome.unclear.exception)


@pytest.mark.parametrize("function", [Unloadable(), Exiting()])
def test_a_function_that_cannot_be_unpickled_is_a_failure_too(trip: Trip, function: Any) -> None:
    outcome = trip.send((function, (), {}))
    assert outcome.unclear is not None
    assert trip.send(delayed(abs)(-1)).values == [1]


# -- what cannot come back ---------------------------------------------------------------------------------------------


def test_a_result_that_cannot_be_pickled_is_the_failure_of_its_task_only(trip: Trip) -> None:
    outcome = trip.send(
        delayed(abs)(-1), delayed(lambda: {"model": Holder(lock=threading.Lock())})(), delayed(abs)(-2), start=5
    )
    assert outcome.values[0] == 1 and outcome.values[2] == 2
    assert outcome.failures.keys() == {1}
    error = failure(outcome, 1)
    assert isinstance(error, ResultPicklingError)
    assert error.path == "result['model'].lock"
    assert "the result of task 6 (" in str(error)
    assert "cannot pickle '_thread.lock' object" in str(error)


@pytest.mark.parametrize("kind", [Kind.ITEMS, Kind.CALLS])
def test_a_result_that_raises_when_it_is_pickled_is_a_failure(trip: Trip, kind: Kind) -> None:
    class Refusing:
        def __reduce__(self) -> Any:
            raise SystemExit("not me")

    def make(_: int) -> Any:
        return Refusing()

    task = 1 if kind is Kind.ITEMS else delayed(make)(1)
    outcome = trip.send(task, kind=kind, function=make)
    assert isinstance(failure(outcome), ResultPicklingError)
    assert "not me" in str(failure(outcome))


def test_a_generator_cannot_come_back(trip: Trip) -> None:
    outcome = trip.send(delayed(lambda: (i for i in range(3)))())
    assert isinstance(failure(outcome), ResultPicklingError)
    assert "generator" in str(failure(outcome))


def test_a_result_that_cannot_be_unpickled_is_a_failure_that_nobody_can_place(trip: Trip) -> None:
    outcome = trip.send(delayed(abs)(1), delayed(Unloadable)())
    assert outcome.unclear is not None
    assert isinstance(outcome.unclear.exception, ResultPicklingError)
    assert "cannot be unpickled in the caller" in str(outcome.unclear.exception)
    assert isinstance(outcome.unclear.exception.__cause__, LookupError)


# -- exceptions --------------------------------------------------------------------------------------------------------


class ThreeArgumentsError(Exception):
    def __init__(self, code: int, url: str, body: str) -> None:
        super().__init__(f"{code} at {url}")
        self.code = code
        self.url = url
        self.body = body


class SystemProblemError(OSError):
    def __init__(self, code: int, text: str, host: str) -> None:
        super().__init__(code, text)
        self.host = host


class WithLockError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())
        self.lock = threading.Lock()
        self.kept = "this"


class NotRebuiltError(Exception):
    def __new__(cls, *args: Any) -> Self:
        if sys._getframe(1).f_code is not fail.__code__:
            raise TypeError("not here")
        return super().__new__(cls, *args)

    def __reduce__(self) -> Any:
        raise TypeError("and not like this")


class ChangedError(Exception):
    def __reduce__(self) -> Any:
        return str, ("not an exception",)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_an_exception_comes_back_as_itself_with_its_traceback_and_its_worker(trip: Trip) -> None:
    outcome = trip.send(delayed(fail)(LookupError, "mine", 5))
    error = failure(outcome)
    assert type(error) is LookupError
    assert error.args == ("mine", 5)
    text = outcome.failures[0].traceback_text
    assert text is not None
    assert "in fail\n" in text and text.endswith("LookupError: ('mine', 5)\n")
    assert "_run" not in text
    assert "pid" in outcome.failures[0].worker


def test_the_results_around_an_exception_come_back(trip: Trip) -> None:
    outcome = trip.send(delayed(abs)(-1), delayed(fail)(LookupError), delayed(abs)(-2))
    assert outcome.failures.keys() == {1}
    assert (outcome.values[0], outcome.values[2]) == (1, 2)


def test_the_first_failure_ends_a_batch_where_the_call_says_so() -> None:
    outcome = Trip(stop_on_failure=True).send(delayed(fail)(LookupError), delayed(abs)(-2))
    assert len(outcome.values) == 1
    assert outcome.failures.keys() == {0}


def test_an_exception_with_a_constructor_of_its_own_comes_back_whole(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(ThreeArgumentsError, 404, "here", "text")))
    assert type(error) is ThreeArgumentsError
    assert (error.code, error.url, error.body) == (404, "here", "text")
    assert str(error) == "404 at here"


def test_a_system_error_with_a_constructor_of_its_own_comes_back_whole(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(SystemProblemError, 2, "no such thing", "host")))
    assert type(error) is SystemProblemError
    assert (error.errno, error.strerror, error.host) == (2, "no such thing", "host")
    assert str(error) == "[Errno 2] no such thing"


def test_an_exception_of_the_standard_library_that_cannot_be_pickled_comes_back(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(urllib.error.HTTPError, "url", 404, "gone", {}, None)))  # type: ignore[arg-type]
    assert isinstance(error, urllib.error.HTTPError)
    assert (error.code, error.msg) == (404, "gone")


def test_what_an_exception_holds_that_cannot_be_pickled_becomes_text(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(WithLockError, "mine")))
    assert type(error) is WithLockError
    assert error.args[0] == "mine"
    assert "lock" in error.args[1] and "cannot be pickled" in error.args[1]
    assert "cannot be pickled" in str(error.lock)
    assert error.kept == "this"


def test_an_exception_that_cannot_come_back_is_told_of(trip: Trip) -> None:
    outcome = trip.send(delayed(abs)(-1), delayed(fail)(NotRebuiltError, "text"))
    error = failure(outcome, 1)
    assert isinstance(error, ResultPicklingError)
    assert "NotRebuiltError: text, which cannot be sent back" in str(error)
    assert outcome.values[0] == 1


def test_an_exception_that_would_become_something_else_comes_back(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(ChangedError, "text")))
    assert type(error) is ChangedError
    assert error.args == ("text",)


def test_an_exception_of_a_local_class_comes_back(trip: Trip) -> None:
    class LocalError(Exception):
        pass

    error = failure(trip.send(delayed(fail)(LocalError, "mine")))
    assert type(error).__qualname__ == LocalError.__qualname__
    assert error.args == ("mine",)


def test_an_exception_without_a_text_comes_back(trip: Trip) -> None:
    outcome = trip.send(delayed(fail)(UnprintableError, "mine"))
    assert type(failure(outcome)) is UnprintableError
    assert outcome.failures[0].traceback_text is not None


def test_a_recursion_error_comes_back(trip: Trip) -> None:
    def deeper(i: int) -> int:
        return deeper(i + 1) + 1

    outcome = trip.send(delayed(deeper)(0))
    assert type(failure(outcome)) is RecursionError
    text = outcome.failures[0].traceback_text
    assert text is not None and len(text) < 10_000


def test_a_huge_exception_comes_back(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(ValueError, "x" * 10_000_000)))
    assert len(error.args[0]) == 10_000_000


def test_a_group_of_exceptions_comes_back(trip: Trip) -> None:
    error = failure(trip.send(delayed(fail)(ExceptionGroup, "several", [LookupError("a"), ValueError("b")])))
    assert isinstance(error, ExceptionGroup)
    assert [type(inner) for inner in error.exceptions] == [LookupError, ValueError]


def test_notes_come_back(trip: Trip) -> None:
    def annotate() -> None:
        error = LookupError()
        error.add_note("a note")
        raise error

    assert failure(trip.send(delayed(annotate)())).__notes__ == ["a note"]


def test_the_cause_is_in_the_traceback(trip: Trip) -> None:
    def chain() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    text = trip.send(delayed(chain)()).failures[0].traceback_text
    assert text is not None
    assert "KeyError: 'first'" in text and "ValueError: second" in text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_no_task_gets_out_of_its_batch(trip: Trip, kind: type[BaseException]) -> None:
    outcome = trip.send(delayed(abs)(-1), delayed(fail)(kind, 3), delayed(abs)(-2))
    assert type(failure(outcome, 1)) is kind
    assert failure(outcome, 1).args == (3,)
    assert outcome.values[2] == 2


# -- contracts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("brought", [None, 5, "text", [1], pickle.dumps([1, 2]), pickle.dumps(("other", [], {}, 0.0))])
def test_what_is_no_outcome_breaks_the_contract(brought: Any) -> None:
    with pytest.raises(BackendContractError, match="'strange' brought ") as caught:
        decode_outcome(brought, Batch(0, 3, [delayed(abs)(1)] * 2), "strange")
    assert (caught.value.backend, caught.value.task_indices) == ("strange", range(3, 5))


@pytest.mark.parametrize("brought", [b"", b"garbage"])
def test_bytes_that_cannot_be_unpickled_are_a_failure_that_nobody_can_place(brought: bytes) -> None:
    outcome = decode_outcome(brought, Batch(0, 3, [delayed(abs)(1)] * 2), "strange")
    assert outcome.unclear is not None
    assert isinstance(outcome.unclear.exception, ResultPicklingError)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_an_outcome_may_come_in_any_kind_of_buffer(form: Any) -> None:
    batch = Batch(0, 0, [delayed(abs)(-1)])
    brought = form(run_payload(Encoder(header()).encode(batch)))
    assert decode_outcome(brought, batch, "here").values == [1]


def encoded_outcome(value: Any, handling: float) -> bytes:
    return with_handling(encode_outcome(Outcome([value], {}, 2.0), 0, str), handling)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_an_outcome_tells_what_pickling_and_transport_took_besides(form: Any) -> None:
    brought = form(encoded_outcome(1, 2.25))
    outcome = decode_outcome(brought, Batch(0, 0, [1]), "here")
    assert (outcome.values, outcome.seconds) == ([1], 2.0)
    assert outcome.handling_seconds == pytest.approx(0.25 + len(brought) * 1e-9)


def test_an_outcome_whose_clock_is_off_took_no_time_besides() -> None:
    outcome = decode_outcome(encoded_outcome(1, 0.5), Batch(0, 0, [1]), "here")
    assert 0 <= outcome.handling_seconds < 1e-6


def test_what_a_large_outcome_took_is_guessed_and_it_is_not_copied() -> None:
    value = b"x" * 2_000_000
    plain = encode_outcome(Outcome([value], {}, 2.0), 0, str)
    assert with_handling(plain, 3.0) is plain
    outcome = decode_outcome(plain, Batch(0, 0, [1]), "here")
    assert outcome.values == [value]
    assert outcome.handling_seconds == pytest.approx(len(plain) * 5e-9)


def test_an_outcome_of_a_worker_process_says_how_long_it_was_handled() -> None:
    batch = Batch(0, 0, [delayed(abs)(-1)])
    outcome = decode_outcome(run_payload(Encoder(header()).encode(batch)), batch, "here")
    assert outcome.handling_seconds > 0


def test_an_outcome_of_this_process_comes_as_it_is() -> None:
    outcome = Outcome([1], {}, 0.0)
    assert decode_outcome(outcome, Batch(0, 0, [1]), "here") is outcome


@given(value=VALUES)
@settings(max_examples=100)
def test_dumps_gives_what_can_be_loaded(value: Any) -> None:
    assert pickle.loads(dumps(value)) == value


# -- the header --------------------------------------------------------------------------------------------------------


def make_header(n_jobs: int = 7, options: dict[str, int] | None = None, seed: Any = None) -> CallHeader:
    nested = Settings(backend="threads", n_jobs=n_jobs, nesting_level=1, backend_options=options or {})
    return CallHeader(nested=nested, stop_on_failure=True, seed=seed)


def test_a_header_that_is_as_the_last_one_is_not_pickled_again() -> None:
    first = make_header().pack()
    assert make_header().pack() is first
    assert pickle.loads(make_header(n_jobs=8).pack()).nested.n_jobs == 8


def test_a_header_with_what_may_change_is_pickled_each_time() -> None:
    seed = [1]
    header = make_header(seed=seed)
    header.pack()
    seed.append(2)
    assert pickle.loads(header.pack()).seed == [1, 2]

    options = {"a": 1}
    header = make_header(options=options)
    header.pack()
    options["a"] = 2
    assert pickle.loads(header.pack()).nested.backend_options["a"] == 2


# -- the weight --------------------------------------------------------------------------------------------------------


def weigh(arguments: list[Any]) -> float:
    encoder = Encoder(header())
    encoder.encode(Batch(0, 0, [(len, (argument, number), {}) for number, argument in enumerate(arguments)]))
    return encoder.bytes_per_task


def test_a_task_weighs_what_it_brings_along() -> None:
    assert weigh([np.ones(1_000_000) * i for i in range(4)]) == pytest.approx(8_000_000, rel=0.01)
    assert weigh([bytes(1_000_000 + i) for i in range(8)]) == pytest.approx(1_000_000, rel=0.01)
    assert weigh([1, 2, 3, 4]) < 1000


def test_what_all_tasks_have_in_common_weighs_nothing() -> None:
    assert weigh([np.ones(1_000_000)] * 4) == 0
    assert weigh([np.ones(1_000_000)]) == pytest.approx(8_000_000, rel=0.01)
