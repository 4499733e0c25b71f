"""The context of a call: taken in the caller, found again by its tasks.

Tasks in threads of the caller each run in a copy of the caller's context, and find filters of warnings and loggers as
they are. To worker processes travel: context variables, by the module and the name where they are found; the filters of
warnings; the levels of loggers; and what plugins have captured. What cannot be found or pickled stays behind. What the
tasks of worker processes emit comes back; see `parallel._emissions`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, NamedTuple, TypeVar

from parallel._current import CURRENT, Place
from parallel._emissions import Collector, record_handler
from parallel._pickling import dumps
from parallel._settings import ACTIVE, BUSY, Settings
from parallel._variables import Places, find_variable, places_of

__all__ = ["ALL_KINDS", "Captured", "Carried", "Surroundings", "capture", "restored"]

#: What can be carried along.
ALL_KINDS = frozenset(("contextvars", "warnings", "logging", "plugins"))

_OUR_OWN = frozenset((ACTIVE, BUSY, CURRENT))

Result = TypeVar("Result")


class _Levels(NamedTuple):
    """How the loggers of a process are configured, but for handlers; (name, level, propagate, disabled) each."""

    disable: int
    loggers: tuple[tuple[str, int, bool, bool], ...]
    #: The names of those that are as they were made, a line each.
    plain: str


class Carried(NamedTuple):
    """What travels to another process."""

    #: Where it is found, and its pickled value.
    variables: tuple[tuple[Places, bytes], ...] = ()
    filters: bytes | None = None
    levels: _Levels | None = None
    #: A plugin's function and what it captured, pickled.
    plugins: tuple[bytes, ...] = ()


class Captured:
    """What was found in the caller.

    Attributes
    ----------
    context
        A copy of the caller's context; None if tasks are not to have it.
    plugins
        Functions of plugins, with what these have captured.
    """

    def __init__(
        self,
        context: Context | None,
        filters: list[Any] | None,
        levels: _Levels | None,
        plugins: list[tuple[Callable[..., Any], Any]],
    ) -> None:
        self.context = context
        self.plugins = plugins
        self._filters = filters
        self._levels = levels

    def carried(self) -> Carried:
        """Give what travels."""
        variables = tuple(_pack_variables(self.context)) if self.context else ()
        filters = _pack_filters(self._filters) if self._filters is not None else None
        plugins = tuple(map(dumps, self.plugins))
        return Carried(variables, filters, self._levels, plugins)


def capture(kinds: frozenset[str], relay: Any, *, is_local: bool) -> Captured:
    """Take the context of the calling thread.

    Parameters
    ----------
    kinds
        What of it; of `ALL_KINDS`.
    relay
        Of the plugin manager, or None.
    is_local
        Whether all tasks run in this process.
    """
    plugins = []
    if relay is not None and "plugins" in kinds:
        for implementation in relay.parallel_capture_context.get_hookimpls():
            state = implementation.function()
            restore = getattr(implementation.plugin, "parallel_restore_context", None)
            if state is not None and restore is not None:
                plugins.append((restore, state))
    return Captured(
        copy_context() if "contextvars" in kinds else None,
        list(warnings.filters) if "warnings" in kinds and not is_local else None,
        _find_levels() if "logging" in kinds and not is_local else None,
        plugins,
    )


@contextlib.contextmanager
def restored(plugins: Iterable[tuple[Callable[..., Any], Any]]) -> Any:
    """Let plugins restore what they have captured, for the time of a batch."""
    with contextlib.ExitStack() as stack:
        for restore, state in plugins:
            manager = restore(state=state)
            if manager is not None:
                stack.enter_context(manager)
        yield


# -- what is found in the caller ---------------------------------------------------------------------------------------


def _find_levels() -> _Levels | None:
    logging: Any = sys.modules.get("logging")
    if not hasattr(logging, "root"):
        return None
    manager = logging.root.manager
    loggers, plain = [("", logging.root.level, True, logging.root.disabled)], []
    for name, logger in list(manager.loggerDict.items()):
        # The others are there because something below them is.
        if isinstance(logger, logging.Logger):
            if _is_plain(logger):
                plain.append(name)
            else:
                loggers.append((name, logger.level, logger.propagate, logger.disabled))
    return _Levels(manager.disable, tuple(loggers), "\n".join(plain))


def _is_plain(logger: Any) -> bool:
    has_more = logger.disabled or logger.handlers or logger.filters
    return not logger.level and logger.propagate and not has_more


def _pack_variables(context: Context) -> Iterable[tuple[Places, bytes]]:
    for variable, value in context.items():
        places = places_of(variable) if variable not in _OUR_OWN else ()
        data = _try_dumps(value) if places else None
        if data is not None:
            yield places, data


#: The filters that were pickled last: they seldom change.
_pickled_filters: tuple[list[Any], bytes | None] = [], None


def _pack_filters(filters: list[Any]) -> bytes | None:
    global _pickled_filters
    known, data = _pickled_filters
    if data is None or known != filters:
        # Of the default ones one speaks of __main__, but only a category can be something that lives there; to find
        # that out would import cloudpickle in every program.
        is_plain = "cloudpickle" not in sys.modules and all(
            getattr(category, "__module__", "__main__") != "__main__" for _, _, category, *_ in filters
        )
        data = _try_dumps(filters, pickle.dumps if is_plain else dumps)
        _pickled_filters = filters, data
    return data


def _try_dumps(value: object, how: Callable[[object], bytes] = dumps) -> bytes | None:
    try:
        return how(value)
    except Exception:
        return None


# -- in a worker process -----------------------------------------------------------------------------------------------


class Surroundings:
    """In a worker process: the context of one call, kept for its batches.

    Parameters
    ----------
    carried, settings
        What has arrived, and the settings for calls inside the tasks.
    is_own_process
        Whether the process is there for this, and need not be left as it was found.
    is_here
        Whether this is the caller's own process after all: then nothing of it is changed.
    """

    def __init__(self, carried: Carried, settings: Settings, *, is_own_process: bool, is_here: bool = False) -> None:
        self._carried = carried
        self._is_own_process = is_own_process
        self._is_here = is_here
        self.context = _own_context()
        self.context.run(self._set_variables, settings)
        self._plugins: list[Any] | None = None

    def _set_variables(self, settings: Settings) -> None:
        ACTIVE.set(settings)
        for places, data in self._carried.variables:
            variable = find_variable(places)
            if variable is not None:
                with contextlib.suppress(Exception):  # of what a class of the user's does
                    variable.set(pickle.loads(data))  # noqa: S301 - from our own caller

    def run(self, function: Callable[..., Result], *args: Any) -> tuple[Result, bytes]:
        """Call a function, which runs a batch; give what it returns, and what the tasks have emitted."""
        if self._is_here:
            return self.context.copy().run(self._run, function, args), b""
        with _entering:
            undo = _enter(self)
        try:
            return self.context.copy().run(self._run, function, args), _collector.take()
        finally:
            if not self._is_own_process:
                undo()

    def _run(self, function: Callable[..., Result], args: tuple[Any, ...]) -> Result:
        if not self._carried.plugins:
            return function(*args)
        if self._plugins is None:
            self._plugins = [pickle.loads(data) for data in self._carried.plugins]  # noqa: S301 - from our own caller
        with restored(self._plugins):
            return function(*args)

    def refresh(self, place: Place) -> None:
        """The tasks of a batch are about to run: what was imported for them may have set things its own way."""
        _collector.place = place
        if not self._is_here and _Entered.n_modules != len(sys.modules):
            with _entering:
                _Entered.undo += self.enter()
                _Entered.n_modules = len(sys.modules)

    def enter(self) -> list[Callable[[], None]]:
        """Set what is of the whole process; give what undoes it."""
        undo = []
        if self._carried.filters is not None:
            undo.append(_set_filters(self._carried.filters))
        if self._carried.levels is not None:
            undo.append(_set_levels(self._carried.levels))
        return undo


_collector = Collector()


class _Entered:
    """Whose surroundings this process has."""

    surroundings: Surroundings | None = None
    n_modules = 0
    undo: list[Callable[[], None]] = []  # noqa: RUF012 - of the process


#: Held while that changes: a worker of other backends may have several threads.
_entering = threading.Lock()


def _enter(surroundings: Surroundings) -> Callable[[], None]:
    if _Entered.surroundings is not surroundings:
        _leave()
        _Entered.undo = surroundings.enter()
        _Entered.surroundings = surroundings
        _Entered.n_modules = len(sys.modules)
    return _leave


def _leave() -> None:
    undo, _Entered.undo, _Entered.surroundings = _Entered.undo, [], None
    for function in reversed(undo):
        function()


def _set_filters(data: bytes) -> Callable[[], None]:
    before, show = list(warnings.filters), warnings.showwarning
    try:
        filters = pickle.loads(data)  # noqa: S301 - from our own caller
    except Exception:
        filters = before
    _replace_filters(filters)
    warnings.showwarning = _collector.warn

    def undo() -> None:
        _replace_filters(before)
        warnings.showwarning = show

    return undo


def _replace_filters(filters: list[Any]) -> None:
    # Also if they are the same: a new call shows a warning again that one before has shown, if the caller would.
    warnings.resetwarnings()
    warnings.filters[:] = filters  # type: ignore[index]


@functools.cache
def _handler() -> Any:
    return record_handler(_collector)


def _set_levels(levels: _Levels) -> Callable[[], None]:
    import logging

    before = []
    handler = _handler()
    manager = logging.root.manager
    disable = manager.disable
    logging.disable(levels.disable)
    plain = set(levels.plain.split("\n"))
    changed = [
        (name, logging.NOTSET, True, False)
        for name, logger in list(manager.loggerDict.items())
        if name in plain and isinstance(logger, logging.Logger) and not _is_plain(logger)
    ]
    for name, level, propagates, disabled in (*levels.loggers, *changed):
        logger = logging.getLogger(name or None)
        handlers, filters = logger.handlers, logger.filters
        before.append((logger, logger.level, logger.propagate, logger.disabled, handlers, filters))
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagates, disabled
        logger.handlers = [known for known in handlers if id(known) not in _inherited and known is not handler]
        logger.filters = []  # the caller's own see the records when they come back
        if not name or not propagates:
            logger.handlers.append(handler)

    def undo() -> None:
        logging.disable(disable)
        for logger, level, propagates, disabled, handlers, filters in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagates, disabled
            logger.handlers, logger.filters = handlers, filters

    return undo


#: Handlers that a forked worker has of its parent, by id: the records go to the parent, which has them too.
_inherited: dict[int, Any] = {}

#: The context in which this process was forked.
_forked_in: Context = Context()


def _own_context() -> Context:
    """Give a context with what was set in this process, by an initializer say, and nothing that a fork has copied."""
    context = Context()
    for variable, value in copy_context().items():
        if variable not in _forked_in or _forked_in[variable] is not value:
            context.run(variable.set, value)
    return context


def _note_inherited() -> None:
    global _entering, _forked_in
    _entering = threading.Lock()
    _forked_in = copy_context()
    _inherited.clear()
    logging: Any = sys.modules.get("logging")
    if hasattr(logging, "root"):
        for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
            _inherited.update((id(handler), handler) for handler in getattr(logger, "handlers", ()))
    # What was entered is the parent's; here it holds until something else is entered.
    _Entered.surroundings = None
    _collector.take()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited)
