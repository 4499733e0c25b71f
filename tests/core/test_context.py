"""What travels of a caller's context, looked at in one process: packed, unpacked and undone."""

from __future__ import annotations

import logging
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import pytest

from parallel import register_plugin, unregister_plugin
from parallel._context import ALL_KINDS, Captured, Carried, Surroundings, capture
from parallel._current import Place
from parallel._emissions import MAX_ITEMS, Collector, record_handler, show
from parallel._pickling import dumps
from parallel._plugins import hooks
from parallel._settings import ACTIVE, Settings
from parallel.hookspecs import hookimpl
from parallel_testkit._context_tasks import COLOUR

LOCAL: ContextVar[object] = ContextVar("local")


@pytest.fixture(autouse=True)
def _colour() -> Iterator[None]:
    token = COLOUR.set("")
    yield
    COLOUR.reset(token)


def travel(captured: Captured) -> Carried:
    carried = pickle.loads(pickle.dumps(captured.carried()))
    assert isinstance(carried, Carried)
    return carried


def carried(*kinds: str) -> Carried:
    return travel(capture(frozenset(kinds), None, is_local=False))


def surroundings(found: Carried) -> Surroundings:
    """Give them as in somebody else's process, which is left as it was."""
    return Surroundings(found, Settings(nesting_level=1), is_own_process=False)


# -- context variables -------------------------------------------------------------------------------------------------


def test_a_variable_travels_by_the_name_of_its_module() -> None:
    COLOUR.set("red")
    found = carried("contextvars")
    ((places, value),) = found.variables
    assert ("parallel_testkit._context_tasks", "COLOUR") in places
    assert pickle.loads(value) == "red"
    COLOUR.set("blue")
    assert surroundings(found).run(COLOUR.get) == ("red", b"")
    assert COLOUR.get() == "blue"


def test_a_function_that_refers_to_a_variable_nobody_can_import_says_so() -> None:
    mine: ContextVar[int] = ContextVar("mine")
    with pytest.raises(TypeError, match="cannot pickle the context variable 'mine': define it in a module"):
        dumps(lambda: mine.get())


def test_a_variable_that_nobody_can_import_stays_behind() -> None:
    mine: ContextVar[int] = ContextVar("mine")
    token = mine.set(1)
    try:
        assert all(name != "mine" for places, _ in carried("contextvars").variables for _, name in places)
    finally:
        mine.reset(token)


def test_a_value_that_cannot_be_pickled_stays_behind_and_takes_nothing_with_it() -> None:
    token = LOCAL.set(threading.Lock())
    COLOUR.set("red")
    try:
        names = [name for places, _ in carried("contextvars").variables for _, name in places]
    finally:
        LOCAL.reset(token)
    assert "COLOUR" in names
    assert "LOCAL" not in names


def test_what_is_not_to_be_had_in_the_worker_is_left_out() -> None:
    no_value = ((("parallel_testkit._context_tasks", "COLOUR"),), b"no pickle")
    no_variable = ((("parallel_testkit._context_tasks", "Moody"),), pickle.dumps(1))
    found = Carried((((("no.such.module", "x"),), b""), no_variable, no_value))
    assert surroundings(found).run(lambda: ACTIVE.get().nesting_level) == (1, b"")


def test_what_a_batch_sets_is_not_there_for_the_next() -> None:
    COLOUR.set("red")
    around = surroundings(carried("contextvars"))
    around.run(COLOUR.set, "blue")
    assert around.run(COLOUR.get)[0] == "red"


def test_nothing_is_captured_that_is_not_asked_for() -> None:
    assert travel(capture(frozenset(), hooks(), is_local=False)) == Carried()
    assert capture(ALL_KINDS, None, is_local=True).context is not None


# -- warnings ----------------------------------------------------------------------------------------------------------


class Odd(UserWarning):
    pass


def test_filters_hold_for_the_batch_and_what_was_there_before_after_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Odd)
        found = carried("warnings")
    before, shown_by = list(warnings.filters), warnings.showwarning

    def warn() -> str:
        with pytest.raises(Odd):
            warnings.warn("odd", Odd, stacklevel=1)
        return "raised"

    assert surroundings(found).run(warn) == ("raised", b"")
    assert (list(warnings.filters), warnings.showwarning) == (before, shown_by)


def test_in_the_callers_own_process_nothing_is_changed() -> None:
    found = carried("warnings", "logging")
    before = list(warnings.filters), warnings.showwarning, list(logging.root.handlers)
    around = Surroundings(found, Settings(), is_own_process=True, is_here=True)
    assert around.run(lambda: (list(warnings.filters), warnings.showwarning, list(logging.root.handlers))) == (
        before,
        b"",
    )


def collect(*emit: Any) -> bytes:
    collector = Collector()
    for message, category in emit:
        collector.warn(message, category, "some/file.py", 3)
    return collector.take()


def shown(emitted: bytes) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        show(emitted)
    return found


def test_a_collector_gives_what_it_has_once() -> None:
    collector = Collector()
    assert collector.take() == b""
    collector.warn(Odd("one"), Odd, "some/file.py", 3)
    found = shown(collector.take())
    assert [(str(warning.message), warning.category, warning.filename, warning.lineno) for warning in found] == [
        ("one", Odd, "some/file.py", 3)
    ]
    assert collector.take() == b""


def test_a_warning_that_cannot_be_pickled_comes_back_as_text_and_the_others_as_they_are() -> None:
    class Holder(Odd):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.lock = threading.Lock()

    found = shown(collect((Holder("holds a lock"), Odd), (Odd("plain"), Odd)))
    assert [str(warning.message) for warning in found] == ["holds a lock", "plain"]
    assert [issubclass(warning.category, Odd) for warning in found] == [True, True]
    assert not hasattr(found[0].message, "lock") or isinstance(found[0].message.lock, str)  # type: ignore[union-attr]


class TwoArguments(Odd):
    """Cannot be made of one text."""

    def __init__(self, *, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")
        self.what = what


def test_a_warning_that_cannot_be_made_of_a_text_comes_back_as_itself() -> None:
    (found,) = shown(collect((TwoArguments(what="smoke", where="kitchen"), TwoArguments)))
    assert isinstance(found.message, TwoArguments)
    assert (str(found.message), found.message.what) == ("smoke in kitchen", "smoke")


def test_more_than_a_batch_may_bring_is_counted() -> None:
    found = shown(collect(*((Odd(str(number)), Odd) for number in range(MAX_ITEMS + 5))))
    assert len(found) == MAX_ITEMS + 1
    assert "5 of them are not shown" in str(found[-1].message)


def test_a_warning_that_would_be_an_error_by_now_is_shown() -> None:
    found = []
    emitted = collect((Odd("late"), Odd))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.showwarning = lambda *fields: found.append(fields)
        show(emitted)
    assert [(str(message), *place) for message, *place in found] == [("late", Odd, "some/file.py", 3)]


def test_what_cannot_be_read_is_dropped_without_an_error() -> None:
    show(b"no pickle")


# -- logging -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.core.context")
    yield logger
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.disabled, logger.handlers = True, False, []


def test_levels_hold_for_the_batch_and_records_are_collected(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    logger.setLevel(logging.DEBUG)
    found = carried("logging")
    logger.setLevel(logging.ERROR)
    _, emitted = surroundings(found).run(logger.debug, "hello %s", "there")
    assert (logger.level, logger.handlers) == (logging.ERROR, [])
    caplog.clear()
    show(emitted)
    assert caplog.record_tuples == []  # the level here is another one by now
    logger.setLevel(logging.DEBUG)
    show(emitted)
    assert caplog.record_tuples == [("tests.core.context", logging.DEBUG, "hello there")]


def test_records_of_a_logger_that_keeps_them_to_itself_are_collected(logger: logging.Logger) -> None:
    logger.propagate = False
    found = carried("logging")
    logger.propagate = True
    _, emitted = surroundings(found).run(logger.warning, "hello")
    assert pickle.loads(emitted)[0][1]["msg"] == "hello"


def test_a_disabled_logger_is_disabled(logger: logging.Logger) -> None:
    logger.disabled = True
    found = carried("logging")
    logger.disabled = False
    assert surroundings(found).run(logger.warning, "hello") == (None, b"")


def test_of_a_record_what_cannot_be_pickled_is_left_out(logger: logging.Logger) -> None:
    collector = Collector()
    logger.addHandler(record_handler(collector))
    logger.propagate = False
    logger.warning("with %s", object, extra={"lock": threading.Lock(), "size": 3})
    ((_, fields),) = pickle.loads(collector.take())
    assert fields["msg"] == "with <class 'object'>"
    assert fields["size"] == 3
    assert "lock" not in fields


def test_a_logger_that_the_caller_has_as_it_was_made_is_so_in_the_worker(logger: logging.Logger) -> None:
    found = carried("logging")
    logger.setLevel(logging.ERROR)  # by a task, or by a fork's parent
    logger.propagate = False
    around = surroundings(found)
    _, emitted = around.run(logger.warning, "hello")
    assert pickle.loads(emitted)[0][1]["msg"] == "hello"
    assert (logger.level, logger.propagate) == (logging.ERROR, False)


def test_what_a_module_sets_when_it_is_imported_for_a_task_does_not_count(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger.setLevel(logging.INFO)
    around = surroundings(carried("logging", "warnings"))

    def batch() -> None:
        logger.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        monkeypatch.setitem(sys.modules, "module_of_a_task", ModuleType("module_of_a_task"))
        around.refresh(Place(7, (), None, 0, "", None))
        logger.info("hello")
        warnings.warn("odd", Odd, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        around = surroundings(carried("logging", "warnings"))
        _, emitted = around.run(batch)
    record, warning = pickle.loads(emitted)
    assert (record[1]["msg"], record[1]["task_index"]) == ("hello", 7)
    assert warning[2] is Odd


def test_what_was_set_again_in_the_middle_of_a_batch_is_left_as_it_was(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = surroundings(carried("logging"))  # the logger is as it was made

    def batch() -> int:
        logger.setLevel(logging.ERROR)
        monkeypatch.setitem(sys.modules, "module_of_a_task", ModuleType("module_of_a_task"))
        around.refresh(Place(0, (), None, 0, "", None))
        return logger.level

    assert around.run(batch) == (logging.NOTSET, b"")
    assert logger.level == logging.ERROR


def test_a_filter_of_a_logger_sees_a_record_once(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    def shout(record: logging.LogRecord) -> bool:
        record.msg = f"<{record.msg}>"
        return True

    logger.setLevel(logging.INFO)
    logger.addFilter(shout)
    try:
        _, emitted = surroundings(carried("logging")).run(logger.info, "hello")
        caplog.clear()
        show(emitted)
        assert caplog.messages == ["<hello>"]
    finally:
        logger.removeFilter(shout)


# -- plugins -----------------------------------------------------------------------------------------------------------


class Failing:
    @hookimpl
    def parallel_capture_context(self) -> str:
        return "state"

    @hookimpl
    def parallel_restore_context(self, state: str) -> None:
        raise LookupError(f"cannot restore {state}")


class Silent(Failing):
    @hookimpl
    def parallel_capture_context(self) -> str | None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(("kind", "count"), [(Failing, 1), (Silent, 0)])
def test_a_plugin_that_has_nothing_to_say_is_not_asked_again(kind: type[Failing], count: int) -> None:
    plugin = kind()
    register_plugin(plugin)
    try:
        assert len(travel(capture(ALL_KINDS, hooks(), is_local=False)).plugins) == count
    finally:
        unregister_plugin(plugin)


def test_what_a_plugin_raises_is_raised_where_the_batch_runs() -> None:
    plugin = Failing()
    register_plugin(plugin)
    try:
        found = travel(capture(ALL_KINDS, hooks(), is_local=False))
    finally:
        unregister_plugin(plugin)
    with pytest.raises(LookupError, match="cannot restore state"):
        surroundings(found).run(lambda: None)
